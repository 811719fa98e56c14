"""The acceptance check: converts random checkpoints, generates from them and compares every stage with PyTorch.

Checkpoints and reference runs are kept in the work folder and used again; weight files and runs of the programs are
always made anew. Exit code 1 if any stage of any case misses its limit.

The scheduler's config states `skip_prk_steps: true` and `clip_sample: false`, for which diffusers would take the
opposite. Steps of Runge-Kutta are not what AudioToken does. Clipping makes DDIM chaotic on random weights: an error of
0.1 % in the noise predictions becomes a picture at 21 dB, so that `tiny-clip`, which clips, is compared with float
weights only.
"""
import argparse
import fnmatch
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import beats_reference
import comparison

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.normpath(os.path.join(HERE, "..", ".."))
STEPS = {"pndm": 10, "ddim": 6}
SCHEDULERS = {"pndm": "PNDMScheduler", "ddim": "DDIMScheduler"}
NATIVE = {"tiny": 128, "small": 256}
MODELS = ("tiny", "tiny-sd2", "tiny-clip", "small", "small-lora")
WIDE = (512, 320)
SEED = 0


class Failure(Exception):
    """A program that did not do its work."""


@dataclass(frozen=True)
class Case:
    model: str
    naming: str
    sampler: str
    width: int
    height: int
    weights: str

    @property
    def size(self):
        return self.model.split("-")[0]

    @property
    def lora(self):
        return self.model.endswith("-lora")

    @property
    def checkpoint(self):
        return f"{self.model.removesuffix('-lora')}-{self.naming}"

    @property
    def name(self):
        return f"{self.model}/{self.naming}/{self.sampler}/{self.width}x{self.height}/{self.weights}"

    @property
    def reference(self):
        """The reference's run; its values do not depend on the naming."""
        return f"{self.model}-{self.sampler}-{self.width}x{self.height}"


def all_cases():
    cases = []
    for model in MODELS:
        native = NATIVE[model.split("-")[0]]
        sizes = [(native, native)] + ([WIDE] if model == "small" else [])
        clips = model == "tiny-clip"
        for naming in ("hub", "new"):
            for width, height in sizes:
                for sampler in ("ddim",) if clips else STEPS:
                    for weights in ("f32",) if clips else ("f32", "int8"):
                        cases.append(Case(model, naming, sampler, width, height, weights))
    return cases


def run(command, log):
    """Runs a program; what it prints goes to the file `log`, whose end is shown when it fails."""
    with open(log, "w", encoding="utf-8") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if code != 0:
        with open(log, encoding="utf-8") as output:
            last = (output.read().strip().splitlines() or ["no output"])[-1]
        raise Failure(f"{os.path.basename(command[0])} exited with {code}: {last} (see {log})")


def mark(done):
    with open(done, "w", encoding="utf-8"):
        pass


class Work:
    """The work folder and what is cached in it."""

    def __init__(self, folder, binaries, wav):
        self.folder, self.binaries, self.wav = folder, binaries, wav
        for name in ("checkpoints", "references", "models", "runs"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def checkpoint(self, name, size):
        folder = self.path("checkpoints", name)
        done = folder + ".done"
        arguments = ["--size", size, "--naming", name.rsplit("-", 1)[1], "--out", folder]
        if not os.path.exists(done):
            arguments += ["--sd2"] if "-sd2" in name else []
            run([sys.executable, os.path.join(HERE, "build_checkpoint.py"), *arguments], folder + ".log")
            settings = {"skip_prk_steps": True, "clip_sample": "-clip" in name}
            set_scheduler(os.path.join(folder, "sd", "scheduler", "scheduler_config.json"), settings)
            mark(done)
        return folder

    def reference(self, case):
        sound = os.path.splitext(os.path.basename(self.wav))[0]
        out = self.path("references", f"{case.reference}-{sound}")
        checkpoint = self.checkpoint(f"{case.model.removesuffix('-lora')}-hub", case.size)
        arguments = [checkpoint, self.wav, out, "--steps", str(STEPS[case.sampler]), "--seed", str(SEED)]
        arguments += ["--scheduler", SCHEDULERS[case.sampler]]
        arguments += ["--width", str(case.width), "--height", str(case.height)] + (["--lora"] if case.lora else [])
        if not os.path.exists(out + ".done"):
            run([sys.executable, os.path.join(HERE, "run_reference.py"), *arguments], out + ".log")
            mark(out + ".done")
        return out

    def model(self, case):
        folder = self.checkpoint(case.checkpoint, case.size)
        name = f"{case.model}-{case.naming}-{case.weights}"
        path = self.path("models", f"{name}.gguf")
        command = [os.path.join(self.binaries, "audiotoken-convert")]
        for option, file in (("--sd", "sd"), ("--beats", "beats.pt"), ("--embedder", "embedder.bin")):
            command += [option, os.path.join(folder, file)]
        if case.lora:
            command += ["--lora", os.path.join(folder, "lora.bin")]
        run(command + ["--weights", case.weights, "-o", path], self.path("models", f"{name}.log"))
        return path

    def generate(self, case, model):
        name = case.name.replace("/", "-")
        dump = self.path("runs", name)
        command = [os.path.join(self.binaries, "audiotoken"), "generate", model, self.wav, "-o", dump + ".png"]
        command += ["--steps", str(STEPS[case.sampler]), "--sampler", case.sampler, "--seed", str(SEED)]
        command += ["--width", str(case.width), "--height", str(case.height), "--dump-tensors", dump, "--quiet"]
        for file in os.listdir(dump) if os.path.isdir(dump) else ():
            os.remove(os.path.join(dump, file))
        run(command, dump + ".log")
        return dump


def set_scheduler(path, settings):
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config | settings, file, indent=2)


def text_of(value):
    return f"{value:.3g}" if isinstance(value, (int, float)) else value


def check(case, work, models):
    """Prints a case's rows; returns whether all pass."""
    started = time.monotonic()
    try:
        reference = work.reference(case)
        key = (case.checkpoint, case.lora, case.weights)
        if key not in models:
            models[key] = work.model(case)
        found = work.generate(case, models[key])
        rows = comparison.compare(reference, found, comparison.limits(case.weights, case.size))
    except Failure as failure:
        rows = [("run", "", str(failure), "", False)]
    print(f"{case.name}  ({time.monotonic() - started:.0f} s)")
    for stage, unit, value, limit, passed in rows:
        print(f"  {'ok  ' if passed else 'FAIL'}  {stage:<18} {text_of(value):>10}  limit {text_of(limit):<7} {unit}")
    sys.stdout.flush()
    return all(row[4] for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    build = os.path.join(REPOSITORY, ".build")
    sound = os.path.join(REPOSITORY, "Tests", "Fixtures", "chirp.wav")
    parser.add_argument("--binaries", default=os.path.join(build, "release"), help="folder of the programs")
    parser.add_argument("--wav", default=sound, help="16 kHz sound")
    parser.add_argument("--work", default=os.path.join(build, "check"), help="folder for checkpoints and runs")
    parser.add_argument("--cases", nargs="*", default=["*"], help="patterns of names, such as 'tiny/*' '*/int8'")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    options = parser.parse_args()
    cases = [c for c in all_cases() if any(fnmatch.fnmatchcase(c.name, pattern) for pattern in options.cases)]
    if options.list:
        print("\n".join(case.name for case in cases))
        return
    if not cases:
        sys.exit(f"no case is named {' or '.join(options.cases)}; --list prints the names")
    for program in ("audiotoken", "audiotoken-convert"):
        if not os.path.exists(os.path.join(options.binaries, program)):
            sys.exit(f"{options.binaries} has no {program}; run swift build -c release or give --binaries")
    beats_reference.load()  # names what is not installed before any work
    work = Work(os.path.abspath(options.work), os.path.abspath(options.binaries), os.path.abspath(options.wav))
    models = {}
    failed = [case.name for case in cases if not check(case, work, models)]
    print(f"{len(cases) - len(failed)} of {len(cases)} cases pass")
    if failed:
        print("failed:\n  " + "\n  ".join(failed))
        sys.exit(1)


if __name__ == "__main__":
    main()
