"""Writes the test sound, the layouts and the goldens: what the float32 reference computes for them.

goldens.json describes them: per case its layout, the settings of the run, and for each stage the file and the stride:
1, or n where only every n-th row is kept. A stage that equals another case's is stored once.
"""
import argparse
import hashlib
import json
import os
import tempfile
import wave
from dataclasses import dataclass, field

import numpy as np

import hashed_weights
import layouts
import make_layout
import run_reference
import write_checkpoint

RATE = 16000
SECONDS = 3
#: Stages too large to keep whole: every n-th row.
STRIDES = {"waveform": 64, "fbank": 16, "audio_features": 16}
WHOLE = ("audio_token", "token_ids", "prompt_embeddings", "negative_embeddings", "noise", "eps_first")


@dataclass(frozen=True)
class Case:
    layout: str
    options: list = field(default_factory=list)  # of run_reference.py
    float_image: bool = False  # keep `image` beside `image_u8`


CASES = {
    "tiny-pndm": Case("tiny", ["--steps", "10"], True),
    "tiny-ddim": Case("tiny", ["--steps", "6", "--scheduler", "DDIMScheduler"]),
    "tiny-lora": Case("tiny", ["--steps", "10", "--lora"]),
    "tiny-wide": Case("tiny", ["--steps", "4", "--width", "160", "--height", "128"]),
    "tiny-odd": Case("tiny", ["--steps", "4", "--width", "136", "--height", "120", "--seed", "7"]),
    "tiny-sd2": Case("tiny-sd2", ["--steps", "6"], True),
    "tiny-pruned": Case("tiny-pruned", ["--steps", "6"]),
}


def chirp():
    """int16 [48000]: three chirps, one falling, with a growl below, and bursts of filtered noise between them."""
    time = np.arange(RATE * SECONDS) / RATE
    sound = np.zeros_like(time)
    for start, length, low, high in ((0.1, 0.7, 300, 3000), (1.0, 0.5, 5000, 800), (2.2, 0.6, 1000, 7000)):
        local = time - start
        inside = (local >= 0) & (local < length)
        phase = 2 * np.pi * (low * local + (high - low) * local**2 / (2 * length))
        sound += np.where(inside, np.sin(np.pi * local / length) ** 2 * np.sin(phase), 0) * 0.5
    sound += 0.1 * np.sin(2 * np.pi * 110 * time) * (1 + np.sin(2 * np.pi * 7 * time))
    noise = hashed_weights.units(hashed_weights.fnv1a64(b"chirp.wav"), time.size).astype(np.float64)
    smooth = np.convolve(noise, np.hanning(9) / np.hanning(9).sum(), "same")
    bursts = np.exp(-((time - 0.9) ** 2) / 0.002) + np.exp(-((time - 1.85) ** 2) / 0.01)
    sound += 0.6 * bursts * smooth + 0.003 * noise
    return np.round(sound / np.abs(sound).max() * 0.8 * 32767).astype("<i2")


def write_wav(path, samples):
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def run_options(case):
    parser = argparse.ArgumentParser()
    run_reference.add_options(parser)
    return parser.parse_args(case.options)


def stages_of(case, checkpoint, wav):
    """{name: array} of one run, reduced to what is kept."""
    stages = {}
    run_reference.run(
        checkpoint,
        wav,
        run_options(case),
        lambda name, tensor: stages.__setitem__(name, tensor.detach().numpy().copy()),
    )
    last = max(name for name in stages if name.startswith("latents_"))
    kept = [*STRIDES, *WHOLE, last, "image_u8"] + (["image"] if case.float_image else [])
    return {name: np.ascontiguousarray(stages[name][:: STRIDES.get(name, 1)]) for name in kept}


def settings(case, stages):
    """What a test needs to make the same run."""
    options = run_options(case)
    scheduler = options.scheduler or ("DDIMScheduler" if make_layout.LAYOUTS[case.layout][1] else "PNDMScheduler")
    height, width, _ = stages["image_u8"].shape
    return {
        "prompt": options.prompt,
        "steps": options.steps,
        "guidance": options.cfg,
        "seed": options.seed,
        "sampler": scheduler.removesuffix("Scheduler").lower(),
        "width": width,
        "height": height,
        "lora": options.lora,
    }


def write_goldens(folder, checkpoints, wav):
    stored, cases = {}, {}
    for name, case in CASES.items():
        stages = stages_of(case, checkpoints[case.layout], wav)
        files = {}
        for stage, array in stages.items():
            digest = hashlib.sha256(str((array.dtype, array.shape)).encode() + array.tobytes()).digest()
            if digest not in stored:
                stored[digest] = f"{name}/{stage}.npy"
                os.makedirs(os.path.join(folder, name), exist_ok=True)
                np.save(os.path.join(folder, stored[digest]), array)
            files[stage] = {"file": stored[digest], "stride": STRIDES.get(stage, 1)}
        cases[name] = {"layout": case.layout, "settings": settings(case, stages), "stages": files}
    with open(os.path.join(folder, "goldens.json"), "w", encoding="utf-8") as file:
        json.dump({"sound": os.path.basename(wav), "cases": cases}, file, indent=1)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("--fixtures", default=os.path.join(here, "..", "..", "Tests", "Fixtures"))
    parser.add_argument("--keep-layouts", action="store_true", help="use the layouts that are there")
    options = parser.parse_args()
    folder = os.path.join(options.fixtures, "layouts")
    os.makedirs(folder, exist_ok=True)
    wav = os.path.join(options.fixtures, "chirp.wav")
    write_wav(wav, chirp())
    with tempfile.TemporaryDirectory() as work:
        checkpoints = {}
        for name in make_layout.LAYOUTS:
            path = os.path.join(folder, f"{name}.json")
            if not options.keep_layouts:
                layouts.write(make_layout.make(name), path)
            checkpoints[name] = os.path.join(work, name)
            write_checkpoint.write(layouts.read(path), checkpoints[name])
        write_goldens(os.path.join(options.fixtures, "goldens"), checkpoints, wav)


if __name__ == "__main__":
    main()
