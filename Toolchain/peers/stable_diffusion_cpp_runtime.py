"""stable-diffusion.cpp with q8_0 weights and flash attention, through its Python package.

It makes whole pictures, so one repetition is a picture of two steps: the second step is timed, from one report of its
progress to the next, and the decoder's time is taken from its log. A guided step is two passes of batch 1.
"""
import os
import re
import time

import stable_diffusion_cpp
from stable_diffusion_cpp import StableDiffusion

from .workload import UNET, VAE

DECODED = re.compile(r"decode_first_stage completed, taking ([0-9.]+)s")
STEPS = 2


class StableDiffusionCpp:
    def __init__(self, workload):
        self.workload = workload
        self.model = os.path.join(workload.cache, "stable-diffusion-q8_0.gguf")
        self.log = []
        self.listen()

    def listen(self):
        @stable_diffusion_cpp.sd_log_callback
        def keep(level, text, data):
            self.log.append(text.decode("utf-8", errors="replace"))

        self.log_callback = keep  # must outlive the library's use of it
        stable_diffusion_cpp.sd_set_log_callback(keep, None)

    def weight_files(self, stages):
        return [self.model]

    def prepare(self, stages):
        if os.path.exists(self.model):
            return
        partial = self.model.replace(".gguf", ".partial.gguf")
        done = StableDiffusion().convert(input_path=self.workload.sd, output_path=partial, output_type="q8_0")
        if not done:
            raise RuntimeError("stable-diffusion.cpp could not convert the checkpoint: " + "".join(self.log[-3:]))
        os.replace(partial, self.model)

    def load(self, stages):
        self.program = StableDiffusion(
            model_path=self.model, n_threads=self.workload.threads, flash_attn=True, vae_decode_only=True
        )

    def measure(self, stages):
        self.log.clear()
        reports = {}
        side = self.workload.picture_side
        self.program.generate_image(
            prompt="a photo of a dog, 4k, high resolution",
            width=side,
            height=side,
            cfg_scale=7.5,
            sample_method="euler",
            sample_steps=STEPS,
            seed=0,
            progress_callback=lambda step, steps, seconds: reports.setdefault(step, time.perf_counter()),
        )
        decoded = DECODED.search("".join(self.log))
        if decoded is None or STEPS not in reports:
            raise RuntimeError("stable-diffusion.cpp made no picture: " + "".join(self.log[-3:]))
        return {UNET: reports[STEPS] - reports[STEPS - 1], VAE: float(decoded.group(1))}
