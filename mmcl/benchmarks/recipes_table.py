"""What dry-runs of recipes showed, and the table of it: size, time to open, memory and hours of whole runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmcl.benchmarks.machine import in_words
from mmcl.benchmarks.step_cost import StepCost

GPUS = (1, 8)


@dataclass(frozen=True)
class DryRun:
    """What opening a recipe and stepping it showed.

    Attributes:
        name: of the case.
        what: task and encoder.
        protocol: of its data.
        clips: of the training side.
        batch: clips of an optimiser step, as the recipe has it.
        steps: of the whole run.
        opened: seconds to open the data and build the task.
        small: clips of the steps that were taken.
        cost: of one such step.
    """

    name: str
    what: str
    protocol: str
    clips: int
    batch: int
    steps: int
    opened: float
    small: int
    cost: StepCost

    @property
    def operations(self) -> float:
        """Floating-point operations of the whole run: two for each multiplication with its addition."""
        return 2.0 * self.cost.macs / self.small * self.batch * self.steps

    def hours(self, tflops: float, gpus: int) -> float:
        """Of a whole run, at an assumed sustained rate of each GPU."""
        return self.operations / (tflops * 1e12 * gpus) / 3600

    def memory(self, gpus: int) -> float:
        """Bytes of one GPU in a step of its share of the batch: what is held, and what the backward pass needs."""
        return self.cost.held + self.cost.kept / self.small * self.batch / gpus


def table(runs: Sequence[DryRun], here: dict[str, Any], tflops: float) -> str:
    """The dry-runs as lines of text and a table in Markdown."""
    numbers = " and ".join(map(str, GPUS))
    lines = [
        f"{in_words(here)}; torch {here['versions']['torch']}. Labels and joints random, hours extrapolated: "
        f"multiplications of a run at {tflops:g} TFLOPS sustained by each GPU, which is assumed.",
        "",
        "| recipe | protocol, training clips | batch x steps | opens in, s | trained, M "
        f"| G multiplications a clip and step | GB a GPU of {numbers} | clips, CPU s a step here "
        f"| hours on {numbers} GPUs |",
        "|---|---|---|---:|---:|---:|---|---|---|",
    ]
    for run in runs:
        cost = run.cost
        memory = ", ".join(f"{run.memory(gpus) / 1e9:.2g}" for gpus in GPUS)
        hours = ", ".join(_hours(run.hours(tflops, gpus)) for gpus in GPUS)
        lines.append(
            f"| `{run.name}` | {run.protocol}, {run.clips:,} | {run.batch} x {run.steps:,} | {run.opened:.1f} "
            f"| {cost.trained / 1e6:.2f} | {cost.macs / run.small / 1e9:.3g} | {memory} "
            f"| {run.small}, {cost.seconds:.2f} | {hours} |"
        )
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return "< 0.01" if hours < 0.01 else f"{hours:.2g}"
