"""The results as JSON, as Markdown and as a bar chart."""
import json
import os
from dataclasses import asdict, dataclass
from statistics import median

from . import registry
from .workload import STAGES

OURS = "AudioToken Edge, int8"
OUR_COLOUR, PEER_COLOUR = "#c8442b", "#8a9bb0"


@dataclass
class Row:
    """One runtime in the table of one stage."""

    label: str
    seconds: float
    ratio: float | None
    ratios: list
    peak_rss_bytes: int
    weight_bytes: int
    disturbance: float
    ours: bool = False


@dataclass
class Report:
    machine: dict
    settings: dict
    measurements: list
    our_weight_bytes: int
    failures: list

    def rows(self, stage):
        """The rows of a stage, fastest first; ours is the median of its repetitions beside all peers."""
        found = [m for m in self.measurements if m.stage == stage]
        rows = [
            Row(
                registry.PEERS[m.peer].label + (" *" if len(m.run) > 1 else ""),
                median(m.seconds),
                m.ratio,
                m.ratios,
                m.peak_rss_bytes,
                m.weight_bytes,
                max(m.disturbance),
            )
            for m in found
        ]
        ours = [seconds for m in found for seconds in m.ours]
        if ours:
            # A peer that runs several stages in one process makes our peak beside it cover them too.
            peaks = [m.our_peak_rss_bytes for m in found if len(m.run) == 1] or [m.our_peak_rss_bytes for m in found]
            disturbance = max(share for m in found for share in m.disturbance)
            rows.append(Row(OURS, median(ours), 1.0, [], max(peaks), self.our_weight_bytes, disturbance, ours=True))
        return sorted(rows, key=lambda row: row.seconds)

    def stages(self):
        return [stage for stage in STAGES if any(m.stage == stage for m in self.measurements)]

    def as_json(self):
        measurements = [asdict(m) | {"ratios": m.ratios, "ratio": m.ratio} for m in self.measurements]
        return json.dumps(
            {
                "machine": self.machine,
                "settings": self.settings,
                "our_weight_bytes": self.our_weight_bytes,
                "measurements": measurements,
                "failures": self.failures,
            },
            indent=2,
        )

    def as_markdown(self):
        lines = ["# Comparison with other runtimes", "", *self.machine_lines(), ""]
        for stage in self.stages():
            lines += [f"## {STAGES[stage]}", "", self.settings["stages"][stage] + ".", ""]
            lines += [*self.table(stage), ""]
        lines += [
            "Time relative to ours is the median over the rounds of peer / ours, each measured one after the other;"
            " above 1 the peer takes longer. \"Others\" is the highest share of the cores that other programs took in a"
            " round; where it is more than a few percent, measure again.",
        ]
        if any(len(m.run) > 1 for m in self.measurements):
            lines += ["", "\\* It makes whole pictures: memory and weight file are those of all its stages."]
        if self.failures:
            lines += ["", "## Failed", "", *(f"- {failure}" for failure in self.failures)]
        return "\n".join(lines) + "\n"

    def machine_lines(self):
        machine, settings = self.machine, self.settings
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
        return [
            f"- {machine['date']}, {settings['threads']} threads, {settings['rounds']} rounds, {settings['model']}",
            f"- {machine['processor']}, {machine['cores']} cores, {gigabytes(machine['memory_bytes'])} of memory;"
            f" {' '.join(machine['flags'])}; instructions used: {settings['instructions']}",
            f"- {machine['system']}, Linux {machine['kernel']}",
            f"- AudioToken Edge {machine['audiotoken_revision']}; {versions}",
        ]

    def table(self, stage):
        yield "| runtime | seconds | time relative to ours | lowest to highest | peak RAM | weight files | others |"
        yield "|---|---:|---:|---:|---:|---:|---:|"
        for row in self.rows(stage):
            label = f"**{row.label}**" if row.ours else row.label.replace("*", "\\*")
            ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
            spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}" if row.ratios else "-"
            yield (
                f"| {label} | {seconds_text(row.seconds)} | {ratio} | {spread} "
                f"| {gigabytes(row.peak_rss_bytes)} | {gigabytes(row.weight_bytes)} | {100 * row.disturbance:.0f}% |"
            )

    def draw(self, path):
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        stages = self.stages()
        counts = [len(self.rows(stage)) for stage in stages]
        figure, axes = pyplot.subplots(
            len(stages), 1, figsize=(9, 1.2 + 0.38 * sum(counts) + 0.75 * len(stages)),
            height_ratios=counts, squeeze=False, layout="constrained",
        )
        for axis, stage in zip(axes[:, 0], stages):
            rows = self.rows(stage)[::-1]
            bars = axis.barh(
                [row.label for row in rows],
                [row.seconds for row in rows],
                color=[OUR_COLOUR if row.ours else PEER_COLOUR for row in rows],
            )
            axis.bar_label(bars, [bar_text(row) for row in rows], padding=4, fontsize=9)
            axis.set_title(f"{STAGES[stage]}: {self.settings['stages'][stage]}", loc="left", fontsize=10)
            axis.set_xlim(0, 1.22 * max(row.seconds for row in rows))
            axis.spines[["top", "right"]].set_visible(False)
        axes[-1, 0].set_xlabel("seconds, less is better")
        machine = self.machine
        limit = "" if self.settings["instructions"] == "all" else f", {self.settings['instructions']}"
        title = f"{machine['processor']}{limit}, {self.settings['threads']} threads, {machine['date']}"
        figure.suptitle(title, fontsize=11)
        figure.savefig(path, dpi=130)
        pyplot.close(figure)

    def write(self, folder):
        """Returns the paths of what was written."""
        os.makedirs(folder, exist_ok=True)
        paths = [os.path.join(folder, name) for name in ("comparison.md", "comparison.json", "comparison.png")]
        for path, text in zip(paths, (self.as_markdown(), self.as_json() + "\n")):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        if not self.measurements:
            return paths[:2]
        self.draw(paths[2])
        return paths


def bar_text(row):
    return seconds_text(row.seconds) + " s" + (f" ({row.ratio:.2f}x)" if row.ratio and not row.ours else "")


def seconds_text(seconds):
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.2f}"


def gigabytes(count):
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
