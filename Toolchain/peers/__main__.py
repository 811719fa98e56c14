"""The command behind Toolchain/bench-peers: prepares the models, measures, and reports."""
import argparse
import hashlib
import os
import subprocess
import sys

from . import machine, measuring, registry
from .measuring import AudioToken, Failure
from .report import Report
from .workload import Workload

REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD_CHECKPOINT = os.path.join(REPOSITORY, "Converter", "reference", "build_checkpoint.py")
CHECKPOINT_FILES = (
    "sd/unet/config.json",
    "sd/unet/diffusion_pytorch_model.safetensors",
    "sd/vae/diffusion_pytorch_model.safetensors",
    "sd/text_encoder/model.safetensors",
    "beats.pt",
    "embedder.bin",
)
EXPORTERS = ("torch", "openvino", "nncf", "diffusers", "stable-diffusion-cpp-python")


def say(text):
    print(text, flush=True)


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def peer_names(text):
    names = text.split(",")
    for name in names:
        if name not in registry.PEERS:
            raise argparse.ArgumentTypeError(f"there is no peer {name}; there are {', '.join(registry.PEERS)}")
    return names


def parse():
    parser = argparse.ArgumentParser(prog="bench-peers", usage="Toolchain/bench-peers [OPTIONS]; see its --help")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--peers", type=peer_names)
    parser.add_argument("--checkpoint")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--codes", choices=("fours", "pairs", "full"), default="pairs")
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--peers-only", action="store_true")
    parser.add_argument("--work", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--programs")
    options = parser.parse_args()
    if options.small and options.checkpoint:
        parser.error("--small makes a checkpoint of its own; leave out --checkpoint")
    full_size_only = [name for name in options.peers or () if not registry.PEERS[name].any_size]
    if options.small and full_size_only:
        parser.error(f"{full_size_only[0]} knows only the shapes of released models; leave it or --small out")
    return options


def run(command, what):
    """Runs a program whose output is the user's."""
    if subprocess.run(command).returncode != 0:
        raise Failure(f"{what} failed; the command was: {' '.join(command)}")


def checkpoint_folder(options):
    """The given checkpoint, or a random one in the work folder, made when it is not there yet."""
    if options.checkpoint:
        folder = os.path.abspath(options.checkpoint)
    else:
        size = "small" if options.small else "sd14"
        folder = os.path.join(options.work, f"checkpoint-{size}")
        if not os.path.exists(os.path.join(folder, "lora.bin")):  # written last
            say("Making a checkpoint with random weights")
            command = [sys.executable, BUILD_CHECKPOINT, "--size", size, "--dtype", "float16", "--out", folder]
            run(command, "making the checkpoint")
    missing = [name for name in CHECKPOINT_FILES if not os.path.exists(os.path.join(folder, name))]
    if missing:
        raise Failure(f"{folder} has no {missing[0]}; build_checkpoint.py in Converter/reference writes what is needed")
    return folder


def cache_folder(options, checkpoint):
    """A folder for what is made from this checkpoint with these versions."""
    versions = machine.versions()
    identity = [f"{name} {versions[name]}" for name in EXPORTERS]
    for name in CHECKPOINT_FILES:
        path = os.path.join(checkpoint, name)
        identity.append(f"{os.path.realpath(path)} {os.path.getsize(path)} {os.stat(path).st_mtime_ns}")
    folder = os.path.join(options.work, "cache", hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16])
    os.makedirs(folder, exist_ok=True)
    return folder


def our_program(options, checkpoint, cache):
    """Converts the checkpoint, again where the converter is newer than its result."""
    model = os.path.join(cache, f"audiotoken-{options.codes}.gguf")
    converter = os.path.join(options.programs, "audiotoken-convert")
    if not os.path.exists(model) or os.path.getmtime(converter) > os.path.getmtime(model):
        say("Converting the checkpoint for AudioToken Edge")
        inputs = [("--sd", "sd"), ("--beats", "beats.pt"), ("--embedder", "embedder.bin")]
        arguments = [part for option, name in inputs for part in (option, os.path.join(checkpoint, name))]
        run([converter, *arguments, "--codes", options.codes, "-o", model], "converting the checkpoint")
    return AudioToken(os.path.join(options.programs, "audiotoken"), model, options.threads)


def measure_all(peers, workload, ours, rounds, logs):
    """Every run of every peer; a peer that fails does not keep the others from being measured."""
    measurements, failures = [], []
    for peer in peers:
        entry = registry.PEERS[peer]
        try:
            say(f"{entry.label}: preparing")
            measuring.prepare(peer, workload, logs)
            for stages in entry.runs:
                say(f"{entry.label}: measuring {' and '.join(stages)}")
                measurements += measuring.measure(peer, stages, workload, ours, rounds, logs, say)
        except Failure as failure:
            failures.append(str(failure))
            say(f"  failed: {failure}")
    return measurements, failures


def revision():
    command = ["git", "-C", REPOSITORY, "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def model_name(options, checkpoint):
    if options.checkpoint:
        return f"checkpoint {os.path.basename(checkpoint)}"
    size = "a small model, for a trial" if options.small else "a model of the size of Stable Diffusion 1.4"
    return f"{size}, random weights"


def compare(options):
    """Returns the failures."""
    peers = options.peers or [name for name, entry in registry.PEERS.items() if not options.small or entry.any_size]
    logs = os.path.join(options.work, "logs")
    os.makedirs(logs, exist_ok=True)
    checkpoint = checkpoint_folder(options)
    cache = cache_folder(options, checkpoint)
    workload = Workload(checkpoint, cache, options.threads, options.avx2)
    ours = None if options.peers_only else our_program(options, checkpoint, cache)
    measurements, failures = measure_all(peers, workload, ours, options.rounds, logs)
    settings = {
        "threads": options.threads,
        "rounds": options.rounds,
        "model": model_name(options, checkpoint),
        "instructions": "AVX2 at most" if options.avx2 else "all",
        "stages": {stage: workload.describe(stage) for stage in {m.stage for m in measurements}},
    }
    our_bytes = os.path.getsize(ours.model) if ours else 0
    report = Report(machine.describe(revision()), settings, measurements, our_bytes, failures)
    paths = report.write(options.output)
    say("\n" + report.as_markdown() + "\nWritten: " + ", ".join(paths))
    return failures


def main():
    try:
        failures = compare(parse())
    except Failure as failure:
        failures = [str(failure)]
    except KeyboardInterrupt:
        sys.exit(130)
    for failure in failures:
        print(f"bench-peers: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
