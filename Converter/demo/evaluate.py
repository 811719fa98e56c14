"""Draws every sound that is evaluated, with PyTorch and with `audiotoken`, and asks the judge what it sees."""
import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

import autoencoder
import beats_training
import diffusion
import judge
import projector_training
import sounds
import split

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))
import beats_reference  # noqa: E402
import run_reference  # noqa: E402
from token_projector import TokenProjector  # noqa: E402

GROUPS = {
    "seen_recordings": "recordings that training heard",
    "other_recordings": "other recordings",
    "other_voices": "names by other synthetic voices",
    "people": "names by a person",
}
HELD_OUT = ("other_recordings", "other_voices", "people")
#: The guidance, of 3 to 7.5, with which most prompts give pictures that the judge knows; see captions.py.
STEPS, GUIDANCE, SAMPLER = 20, 5.0, "ddim"


class Reference:
    """The checkpoint set in PyTorch, float32."""

    def __init__(self, checkpoint):
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel

        sd = os.path.join(checkpoint, "sd")
        self.beats = beats_reference.load_checkpoint(torch.load(os.path.join(checkpoint, "beats.pt"), weights_only=True))
        self.projector = TokenProjector.from_state_dict(
            torch.load(os.path.join(checkpoint, "embedder.bin"), weights_only=True)
        )
        self.text = CLIPTextModel.from_pretrained(os.path.join(sd, "text_encoder")).eval()
        self.unet = UNet2DConditionModel.from_pretrained(os.path.join(sd, "unet")).eval()
        self.vae = AutoencoderKL.from_pretrained(os.path.join(sd, "vae")).eval()
        self.scheduler = run_reference.load_scheduler(sd, "DDIMScheduler" if SAMPLER == "ddim" else None)
        tokenizer = diffusion.write_tokenizer(os.path.join(sd, "tokenizer"))
        self.prompt = projector_training.Prompt(self, tokenizer)
        self.empty = self.text(diffusion.token_ids(tokenizer, [""]))[0].detach()

    @torch.no_grad()
    def token(self, path):
        # The programs repeat a sound until ten seconds are full; AudioToken's authors at most ten times.
        samples = sounds.read(path)
        waveform = np.tile(samples, -(-beats_training.LONG // len(samples)))[: beats_training.LONG]
        _, features = beats_reference.features_of(self.beats, torch.from_numpy(waveform)[None])
        return self.projector(features[None])

    @torch.no_grad()
    def draw(self, path, seeds):
        """uint8 pictures [seeds, side, side, 3]."""
        states = torch.cat([self.empty, self.prompt.states(self.token(path))])
        latents = diffusion.sample(self, states, seeds, GUIDANCE, STEPS, self.scheduler)
        return autoencoder.to_pictures(self.vae.decode(latents / self.vae.config.scaling_factor).sample)


def draw_with_program(program, model, sounds_at, seeds, folder, threads):
    """Pictures of each sound with each seed by `audiotoken generate`; those that are there already stay."""
    os.makedirs(folder, exist_ok=True)
    choices = [word for seed in seeds for word in ("--seed", str(seed))]

    def one(sound):
        name = os.path.splitext(os.path.basename(sound))[0]
        paths = [os.path.join(folder, f"{name}-seed{seed}.png") for seed in seeds]
        if not all(os.path.exists(path) for path in paths):
            subprocess.run(
                [program, "generate", model, sound, "--pictures", folder, *choices, "--steps", str(STEPS)]
                + ["--guidance", str(GUIDANCE), "--sampler", SAMPLER, "--threads", "1", "--quiet"],
                check=True,
            )
        return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])

    with ThreadPoolExecutor(threads) as workers:
        return np.concatenate(list(workers.map(one, sounds_at)))


def drawings(work, name, model):
    """A folder for what `name` draws with the weights of `model` and these settings, never taken for what others give."""
    with open(model, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return os.path.join(work, "drawn", f"{name}-{digest}-{SAMPLER}-{STEPS}-{GUIDANCE:g}")


def decibels(a, b):
    error = ((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean((1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-9))


def top1(seen, jobs, listed, seeds):
    """By group, the share of pictures in which the judge sees the sound's animal; and of each kind in what was held out."""
    right = np.array([seen[i] == kind for i, (_, kind, _) in enumerate(jobs)])
    groups = np.array([group for group, _, _ in jobs])
    kinds = np.array([kind for _, kind, _ in jobs])
    shares = {group: float(right[groups == group].mean()) for group in GROUPS}
    held_out = np.isin(groups, HELD_OUT)
    shares["held_out"] = float(right[held_out].mean())
    by_kind = {
        name: {
            group: round(float(right[(groups == group) & (kinds == index)].mean()), 3)
            for group in GROUPS
            if ((groups == group) & (kinds == index)).any()
        }
        for index, name in enumerate(split.NAMES)
    }
    return shares, by_kind


def markdown(report):
    lines = ["| sounds | number | " + " | ".join(report["top1"]) + " |", "|---" * (2 + len(report["top1"])) + "|"]
    for group, title in [*GROUPS.items(), ("held_out", "all that was held out")]:
        shares = " | ".join(f"{100 * shares[group]:.1f} %" for shares in report["top1"].values())
        lines.append(f"| {title} | {report['sounds'][group]} | {shares} |")
    return "\n".join(lines) + "\n"


def evaluate(work, checkpoint, program, listed, models, seeds, threads=2):
    """`models` are weight files by name, the exact one first. Writes report.json and report.md."""
    kind_judge = judge.load(work)
    reference = Reference(checkpoint)
    cache = drawings(work, "pytorch", models[next(iter(models))])
    os.makedirs(cache, exist_ok=True)
    drawn = {"pytorch": []}
    for number, (_, _, path) in enumerate(listed):
        kept = os.path.join(cache, os.path.basename(path) + ".npy")
        if not os.path.exists(kept):
            np.save(kept, reference.draw(path, seeds))
        drawn["pytorch"].append(np.load(kept))
        if number % 25 == 0:
            print("pytorch", number, "of", len(listed), flush=True)
    drawn["pytorch"] = np.concatenate(drawn["pytorch"])
    jobs = [(group, kind, path) for group, kind, path in listed for _ in seeds]
    paths = [path for _, _, path in listed]
    for name, model in models.items():
        drawn[name] = draw_with_program(program, model, paths, seeds, drawings(work, name, model), threads)
        print(name, "drawn", flush=True)
    report = {
        "steps": STEPS, "guidance": GUIDANCE, "sampler": SAMPLER, "seeds": list(seeds),
        "sounds": {group: sum(g == group for g, _, _ in listed) for group in GROUPS},
        "judge": json.load(open(os.path.join(work, "judge", "judge.json"), encoding="utf-8")),
        "top1": {}, "by_kind": {}, "psnr": {},
    }  # fmt: skip
    report["sounds"]["held_out"] = sum(report["sounds"][group] for group in HELD_OUT)
    for name, pictures in drawn.items():
        report["top1"][name], report["by_kind"][name] = top1(judge.names(kind_judge, pictures), jobs, listed, seeds)
    names = list(drawn)
    for a, b in ((names[0], names[1]), (names[1], names[2]), (names[0], names[2])):
        ratio = decibels(drawn[a], drawn[b])
        report["psnr"][f"{a} / {b}"] = {
            "median": round(float(np.median(ratio)), 2),
            "lowest": round(float(ratio.min()), 2),
            "share_above_35_dB": round(float((ratio >= 35).mean()), 3),
        }
    with open(os.path.join(work, "report.json"), "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
    with open(os.path.join(work, "report.md"), "w", encoding="utf-8") as file:
        file.write(markdown(report))
    return report, drawn
