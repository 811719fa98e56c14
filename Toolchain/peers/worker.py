"""A process that runs one peer. It loads once, then runs one repetition for each line on its standard input.

    python -m peers.worker prepare|serve PEER STAGES WORKLOAD_AS_JSON

Answers are lines of JSON on standard output; whatever the runtimes print goes to standard error.
"""
import json
import os
import sys

from . import registry
from .workload import Workload


def peak_resident_bytes():
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def take_standard_output():
    """A stream to the parent, of which the libraries know nothing: theirs now leads to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def serve(peer, stages, answer):
    peer.load(stages)
    peer.measure(stages)  # warm-up
    answer({"ready": True})
    for line in sys.stdin:
        if line.strip() == "measure":
            answer({"seconds": peer.measure(stages)})
        else:
            break
    answer({"peak_rss_bytes": peak_resident_bytes(), "weight_bytes": weight_bytes(peer, stages)})


def weight_bytes(peer, stages):
    return sum(os.path.getsize(file) for file in peer.weight_files(stages))


def main():
    task, name, stages, workload = sys.argv[1:]
    answers = take_standard_output()

    def answer(message):
        answers.write(json.dumps(message) + "\n")

    peer = registry.make(name, Workload(**json.loads(workload)))
    if task == "prepare":
        peer.prepare(stages.split(","))
        answer({"ready": True})
    else:
        serve(peer, stages.split(","), answer)


if __name__ == "__main__":
    main()
