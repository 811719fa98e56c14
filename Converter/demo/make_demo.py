"""Makes the demo model: fetches its data, trains its parts, writes checkpoints, converts and evaluates them.

Two branches train side by side, each on one processor: pictures (autoencoder, text encoder and UNet) and sounds
(BEATs). The projector joins them. Each part goes on where it was cut off, and is skipped where it is done.
"""
import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np
import torch

import split

SETTINGS = {
    "autoencoder": {"pictures_per_kind": 300, "steps": 750, "batch": 12},
    "painter": {"pictures_per_kind": 400, "text_steps": 200, "steps": 2300, "batch": 16},
    "decoder": {"pictures_per_kind": 300, "steps": 500},
    "beats": {
        "rounds": [
            {"spoken": 250, "per_kind": 500, "steps": 2200, "peak": 1.2e-3, "mixing": 0.25},
            {"spoken": 300, "per_kind": 800, "steps": 5000, "peak": 1e-3, "mixing": 0.1},
        ],
        "batch": 24,
        "long": {"spoken": 250, "per_kind": 30, "steps": 100, "batch": 6, "peak": 1e-4},
    },
    "projector": {"per_kind": 60, "steps": 450, "batch": 16},
    "judge": {"pictures_per_kind": 300, "steps": 500},
    "seeds": [0, 1, 2, 3],
}
LICENCE = "GPL-3.0-only"


class Stages:
    """Runs what has not been run with these settings, and notes how long it took."""

    def __init__(self, work, branch):
        self.folder = os.path.join(work, "stages")
        self.branch = branch
        os.makedirs(self.folder, exist_ok=True)

    def __call__(self, name, settings, work):
        path = os.path.join(self.folder, f"{name}.json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                if json.load(file)["settings"] == settings:
                    return
            # What it made would be taken for what these settings make, here and in later stages.
            raise SystemExit(f"{path}: {name} was made with other settings; give a new folder to --work")
        started = time.time()
        work()
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"settings": settings, "seconds": round(time.time() - started, 1)}, file)
        print(f"{self.branch}: {name} took {time.time() - started:.0f} s", flush=True)


def kept(path, make):
    """What `make()` gives, kept as a tensor file."""
    if not os.path.exists(path):
        torch.save(make(), path + ".new")
        os.replace(path + ".new", path)
    return torch.load(path, weights_only=True)


def load_autoencoder(work):
    from diffusers import AutoencoderKL

    refined = os.path.join(work, "vae-refined")
    return AutoencoderKL.from_pretrained(refined if os.path.exists(refined) else os.path.join(work, "vae")).eval()


def latents_of(work):
    """(scaled latents, kinds)"""
    import autoencoder
    import pictures

    model = load_autoencoder(work)

    def make():
        images, kinds = pictures.make(work, SETTINGS["painter"]["pictures_per_kind"], 1)
        return autoencoder.encode(model, images), torch.from_numpy(kinds)

    latents, kinds = kept(os.path.join(work, "latents.pt"), make)
    return latents * model.config.scaling_factor, kinds


def load_painter(work):
    import diffusion

    tokenizer = diffusion.write_tokenizer(os.path.join(work, "tokenizer"))
    painter = diffusion.Painter(tokenizer)
    text = torch.load(os.path.join(work, "painter", "text.pt"), weights_only=True)
    painter.text.load_state_dict({name[5:]: tensor for name, tensor in text.items() if name.startswith("text.")})
    painter.unet.load_state_dict(torch.load(os.path.join(work, "painter", "unet.pt"), weights_only=True))
    return painter.eval(), tokenizer


def pictures_branch(work):
    import autoencoder
    import diffusion
    import judge
    import pictures

    stages, s = Stages(work, "pictures"), SETTINGS

    def train_autoencoder():
        images, _ = pictures.make(work, s["autoencoder"]["pictures_per_kind"], 0)
        model = autoencoder.train(
            images, os.path.join(work, "autoencoder"), s["autoencoder"]["steps"], s["autoencoder"]["batch"]
        )
        model.save_pretrained(os.path.join(work, "vae"))

    def train_painter():
        latents, kinds = latents_of(work)
        tokenizer = diffusion.write_tokenizer(os.path.join(work, "tokenizer"))
        folder = os.path.join(work, "painter")
        text = diffusion.train_text(tokenizer, split.NAMES, folder, s["painter"]["text_steps"])
        diffusion.train(
            latents, kinds, text, tokenizer, split.NAMES, folder, s["painter"]["steps"], s["painter"]["batch"]
        )

    def refine_decoder():
        images, _ = pictures.make(work, s["decoder"]["pictures_per_kind"], 4)
        model = autoencoder.refine(
            load_autoencoder(work), images, os.path.join(work, "autoencoder"), s["decoder"]["steps"]
        )
        folder = os.path.join(work, "vae-refined")
        model.save_pretrained(folder + ".new")
        os.replace(folder + ".new", folder)

    def train_judge():
        images, kinds = pictures.make(work, s["judge"]["pictures_per_kind"], 2)
        model = judge.train(images, kinds, os.path.join(work, "judge"), s["judge"]["steps"])
        fresh, kinds = pictures.make(work, 60, 3)
        encoder = load_autoencoder(work)
        shares = {
            "fresh_pictures": judge.share_right(model, fresh, kinds),
            "reconstructions": judge.share_right(
                model, autoencoder.decode(encoder, autoencoder.encode(encoder, fresh)), kinds
            ),
        }
        with open(os.path.join(work, "judge", "judge.json"), "w", encoding="utf-8") as file:
            json.dump(shares, file)
        print(shares, flush=True)

    stages("autoencoder", s["autoencoder"], train_autoencoder)
    stages("painter", s["painter"], train_painter)
    stages("decoder", s["decoder"], refine_decoder)
    stages("judge", s["judge"], train_judge)


def sounds_branch(work):
    import augment
    import beats_training
    import sounds

    stages, b = Stages(work, "sounds"), SETTINGS["beats"]

    folder, kinds = os.path.join(work, "beats"), len(split.NAMES)
    os.makedirs(folder, exist_ok=True)

    def pool(name, samples, spoken, per_kind, seed):
        def make():
            said = sounds.spoken(spoken, seed)
            return tuple(augment.pool(sounds.recordings(work), said, samples, per_kind, seed))

        return augment.Pool(*kept(os.path.join(folder, f"{name}-pool.pt"), make))

    def train_beats():
        """Rounds of short sounds, each with new ones and a new rise and fall of the rate; then the full length."""
        model = None
        for number, r in enumerate(b["rounds"]):
            name = f"short-{number}"
            heard = pool(name, beats_training.SHORT, r["spoken"], r["per_kind"], seed=2 * number)
            model = beats_training.train(
                name, heard, folder, r["steps"], b["batch"], r["peak"], kinds, model, number, r["mixing"]
            )
        r = b["long"]
        heard = pool("long", beats_training.LONG, r["spoken"], r["per_kind"], seed=1)
        model = beats_training.train("long", heard, folder, r["steps"], r["batch"], r["peak"], kinds, model, mixing=0)
        beats_training.save(model, os.path.join(folder, "beats.pt"))

    stages("beats", b, train_beats)


def projector_stage(work):
    import beats_training
    import projector_training as training
    import sounds

    p, folder = SETTINGS["projector"], os.path.join(work, "projector")
    os.makedirs(folder, exist_ok=True)

    def make_features():
        model = beats_training.Classifier(len(split.NAMES))
        model.load_state_dict(torch.load(os.path.join(work, "beats", "long.pt"), weights_only=True))
        recordings, spoken = sounds.recordings(work), sounds.spoken(100, 5)
        pool = training.pool_of(recordings, spoken, p["per_kind"], 5)
        return training.cached_features(model.eval(), pool), pool.kinds

    def train():
        features, kinds = kept(os.path.join(folder, "features.pt"), make_features)
        latents, latent_kinds = latents_of(work)
        painter, tokenizer = load_painter(work)
        training.train(
            features, kinds, latents, latent_kinds, painter, tokenizer, split.NAMES, folder, p["steps"], p["batch"]
        )

    Stages(work, "projector")("projector", p, train)


def write_checkpoints(work):
    """The set that the converter reads: sd/, beats.pt, embedder.bin."""
    import diffusion

    out = os.path.join(work, "checkpoint")
    os.makedirs(out, exist_ok=True)
    painter, _ = load_painter(work)
    diffusion.save(painter, load_autoencoder(work), os.path.join(out, "sd"))
    torch.save(torch.load(os.path.join(work, "beats", "beats.pt"), weights_only=True), os.path.join(out, "beats.pt"))
    projector = torch.load(os.path.join(work, "projector", "projector.pt"), weights_only=True)
    torch.save(projector, os.path.join(out, "embedder.bin"))
    return out


def convert(work, checkpoint, programs):
    models = {}
    for weights in ("f32", "int8"):
        models[weights] = os.path.join(work, f"demo-{weights}.gguf")
        sources = ["--sd", "sd", "--beats", "beats.pt", "--embedder", "embedder.bin"]
        subprocess.run(
            [os.path.join(programs, "audiotoken-convert"), *sources, "--weights", weights, "--licence", LICENCE]
            + ["--convolutions", "direct", "-o", os.path.abspath(models[weights])],
            cwd=checkpoint, check=True,
        )  # fmt: skip
    return models


def evaluate_all(work, checkpoint, programs, models):
    import evaluate
    import pictures
    import sounds

    listed = sounds.write_evaluation(work, os.path.join(work, "evaluation"))
    program = os.path.join(programs, "audiotoken")
    report, drawn = evaluate.evaluate(work, checkpoint, program, listed, models, SETTINGS["seeds"])
    seeds = len(SETTINGS["seeds"])
    for group in evaluate.GROUPS:
        shown = [i * seeds for i, (g, _, _) in enumerate(listed) if g == group]
        pictures.sheet(np.stack([drawn["int8"][i] for i in shown]), 16, os.path.join(work, f"sheet-{group}.png"))
    print(json.dumps(report["top1"], indent=1), json.dumps(report["psnr"], indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="a folder for everything that is made")
    parser.add_argument("--packages", action="append", default=[], help="a folder with .deb files that are there already")
    parser.add_argument("--programs", default=".build/release", help="where audiotoken and audiotoken-convert are")
    parser.add_argument("--branch", choices=("pictures", "sounds", "projector", "finish"), help="one part alone")
    options = parser.parse_args()
    work, programs = os.path.abspath(options.work), os.path.abspath(options.programs)
    branches = {"pictures": pictures_branch, "sounds": sounds_branch, "projector": projector_stage}
    if options.branch in branches:
        torch.set_num_threads(2 if options.branch == "projector" else 1)
        return branches[options.branch](work)
    if options.branch is None:
        import packages

        packages.prepare(work, options.packages)
        call = [sys.executable, os.path.abspath(__file__), "--work", work, "--branch"]
        running = [subprocess.Popen([*call, branch]) for branch in ("pictures", "sounds")]
        if any([process.wait() for process in running]):
            raise SystemExit("a branch failed; the same command goes on where it stopped")
        subprocess.run([*call, "projector"], check=True)
    checkpoint = write_checkpoints(work)
    models = convert(work, checkpoint, programs)
    torch.set_num_threads(2)
    evaluate_all(work, checkpoint, programs, models)


if __name__ == "__main__":
    main()
