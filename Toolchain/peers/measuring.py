"""Runs peers and AudioToken Edge in turn: A B A B, so that both meet the same state of the machine."""
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from statistics import median

from . import machine, registry

#: How our program names what makes up a stage.
OUR_STAGES = {"unet_step": ("unet_step",), "vae_decode": ("vae_decode",), "sound": ("beats", "projector")}
LAST_LINES = 3


class Failure(Exception):
    """One sentence for the user."""


@dataclass
class Measurement:
    """One peer and one stage. `ours` holds the seconds of the same rounds; empty where only peers are measured."""

    peer: str
    stage: str
    seconds: list = field(default_factory=list)
    ours: list = field(default_factory=list)
    #: For each round, the share of all cores that other programs used meanwhile.
    disturbance: list = field(default_factory=list)
    peak_rss_bytes: int = 0
    our_peak_rss_bytes: int = 0
    weight_bytes: int = 0
    #: The stages that the peer's process ran, which its peak and its weight files belong to.
    run: tuple = ()

    @property
    def ratios(self):
        """Above 1 where the peer takes longer."""
        return [theirs / ours for theirs, ours in zip(self.seconds, self.ours)]

    @property
    def ratio(self):
        return median(self.ratios) if self.ours else None


class Worker:
    """The parent's end of a `peers.worker` process."""

    def __init__(self, task, peer, stages, workload, logs):
        self.label = registry.PEERS[peer].label
        self.log_path = os.path.join(logs, f"{task}-{peer}-{'-'.join(stages)}.log")
        environment = os.environ | {"OMP_NUM_THREADS": str(workload.threads)}
        with open(self.log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "peers.worker", task, peer, ",".join(stages), json.dumps(vars(workload))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
            )
        try:
            self.answer()
        except BaseException:
            self.close()
            raise

    def processor_seconds(self):
        return machine.process_seconds(self.process.pid)

    def ask(self, command):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # answer() says what happened
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            said = last_lines(self.log_path)
            raise Failure(f"{self.label}: its process ended with {status}: {said} ({self.log_path})")
        return json.loads(line)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def last_lines(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file.read().replace("\r", "\n").splitlines() if line.strip()]
    return " / ".join(lines[-LAST_LINES:]) or "it said nothing"


class AudioToken:
    """Our program. Each repetition is a process of its own, which warms up before it measures."""

    def __init__(self, program, model, threads):
        self.program, self.model, self.threads = program, model, threads

    def measure(self, stages):
        """({stage: seconds}, peak resident bytes)."""
        seconds, peak = {}, 0
        for stage in stages:
            reports = [self.bench(part) for part in OUR_STAGES[stage]]
            seconds[stage] = sum(report[0] for report in reports)
            peak = max([peak] + [report[1] for report in reports])
        return seconds, peak

    def bench(self, stage):
        command = [self.program, "bench", self.model, "--json", "--stage", stage, "--repetitions", "1"]
        done = subprocess.run(command + ["--threads", str(self.threads)], capture_output=True, text=True)
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
            raise Failure(f"`{' '.join(command)}` ended with {done.returncode}: {said}")
        try:
            report = json.loads(done.stdout)
            times = {entry["name"]: entry["seconds_all"] for entry in report["stages"]}
            return times[stage][-1], report["peak_rss_bytes"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise Failure(f"`{' '.join(command)}` gave a report that cannot be read ({error!r})") from error


def watched(work, own_seconds):
    """What work() returns, and the share of all cores that programs other than the measured one used meanwhile."""
    busy, own, started = machine.busy_seconds(), own_seconds(), time.perf_counter()
    result = work()
    others = machine.busy_seconds() - busy - (own_seconds() - own)
    return result, max(0, others / (time.perf_counter() - started) / os.cpu_count())


def prepare(peer, workload, logs):
    for stages in registry.PEERS[peer].runs:
        Worker("prepare", peer, stages, workload, logs).close()


def measure(peer, stages, workload, ours, rounds, logs, say):
    """One worker process and our program in turn; returns a measurement for each stage."""
    found = {stage: Measurement(peer, stage, run=tuple(stages)) for stage in stages}
    worker = Worker("serve", peer, stages, workload, logs)
    try:
        for number in range(rounds):
            theirs, disturbed = watched(lambda: worker.ask("measure")["seconds"], worker.processor_seconds)
            mine, peak, ours_disturbed = {}, 0, 0
            if ours:
                (mine, peak), ours_disturbed = watched(lambda: ours.measure(stages), machine.children_seconds)
            disturbed = max(disturbed, ours_disturbed)
            for stage, measurement in found.items():
                measurement.seconds.append(theirs[stage])
                measurement.ours += [mine[stage]] if ours else []
                measurement.disturbance.append(disturbed)
                measurement.our_peak_rss_bytes = max(measurement.our_peak_rss_bytes, peak)
                beside = f", ours {mine[stage]:.2f} s" if ours else ""
                others = f"others {100 * disturbed:.0f}%"
                say(f"  round {number + 1}, {stage}: {theirs[stage]:.2f} s{beside}; {others}")
        end = worker.ask("finish")
    finally:
        worker.close()
    for measurement in found.values():
        measurement.peak_rss_bytes, measurement.weight_bytes = end["peak_rss_bytes"], end["weight_bytes"]
    return list(found.values())
