"""PyTorch in float32: the models of diffusers, and BEATs and the token projector of Converter/reference."""
import os
import sys
import time

import torch

from .workload import SOUND, UNET, VAE

REFERENCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "Converter", "reference")
WEIGHT_FILE = "diffusion_pytorch_model.safetensors"


class UNetStep(torch.nn.Module):
    """The UNet as a function of plain tensors, for export too."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, latents, timestep, context):
        return self.unet(latents, timestep, context, return_dict=False)[0]


class VAEDecode(torch.nn.Module):
    """The decoder, with the convolution that comes before it."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latents):
        return self.vae.decode(latents, return_dict=False)[0]


def load_unet(workload):
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(os.path.join(workload.sd, "unet"), torch_dtype=torch.float32)
    return UNetStep(unet).eval()


def load_vae(workload):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(os.path.join(workload.sd, "vae"), torch_dtype=torch.float32)
    del vae.encoder
    return VAEDecode(vae).eval()


def load_sound(workload):
    sys.path.insert(0, os.path.abspath(REFERENCE))
    import beats_reference
    from token_projector import TokenProjector

    def read(name):
        return torch.load(os.path.join(workload.checkpoint, name), weights_only=True)

    beats = beats_reference.load_checkpoint(read("beats.pt"))
    projector = TokenProjector.from_state_dict(read("embedder.bin"))

    def run(waveform):
        _, features = beats_reference.features_of(beats, waveform)
        return projector(features[None])

    return run


class PyTorch:
    def __init__(self, workload):
        self.workload = workload

    def prepare(self, stages):
        pass

    def weight_files(self, stages):
        sd, checkpoint = self.workload.sd, self.workload.checkpoint
        files = {
            UNET: [os.path.join(sd, "unet", WEIGHT_FILE)],
            VAE: [os.path.join(sd, "vae", WEIGHT_FILE)],
            SOUND: [os.path.join(checkpoint, "beats.pt"), os.path.join(checkpoint, "embedder.bin")],
        }
        return [file for stage in stages for file in files[stage]]

    def load(self, stages):
        torch.set_num_threads(self.workload.threads)
        load = {UNET: load_unet, VAE: load_vae, SOUND: load_sound}
        inputs = {
            UNET: self.workload.unet_inputs,
            VAE: self.workload.vae_inputs,
            SOUND: lambda: (self.workload.waveform(),),
        }
        self.models = {stage: load[stage](self.workload) for stage in stages}
        self.inputs = {stage: [torch.from_numpy(array) for array in inputs[stage]()] for stage in stages}

    @torch.inference_mode()
    def measure(self, stages):
        seconds = {}
        for stage in stages:
            started = time.perf_counter()
            self.models[stage](*self.inputs[stage])
            seconds[stage] = time.perf_counter() - started
        return seconds
