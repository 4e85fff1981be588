"""A model at several sizes, side by side: a table and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmcl.encoders.counting import count_macs, count_parameters
from mmcl.evaluation.base import build_evaluation, make_apply
from mmcl.evaluation.reporting.figures import BLUE, DPI, GREY, save_figure
from mmcl.models.model import Model
from mmcl.surgery.low_rank.measure import graph_latencies, latencies

if TYPE_CHECKING:
    from mmcl.benchmarks.timing import Timing
    from mmcl.data.selection import Selection

PICTURE = "tradeoff.png"


@dataclass(frozen=True)
class Point:
    """A model of a sweep.

    Attributes:
        name: "original", or the policy with its amount.
        parameters: of the encoder.
        macs: multiply-accumulates of a clip.
        latency: of a clip, in the form in which :class:`mmcl.models.model.Model` runs it.
        graph: the same through ONNX Runtime; None where that was not asked for.
        accuracy: top-1 of the clips that were judged; None where there were none.
    """

    name: str
    parameters: int
    macs: int
    latency: Timing
    graph: Timing | None = None
    accuracy: float | None = None


def measured(
    models: Mapping[str, Model], data: Selection | None, batch_size: int, seconds: float, onnx: bool
) -> list[Point]:
    """Size, cost, time and accuracy of models of one layout on one device; the first is the original.

    Args:
        models: by name.
        data: clips to judge on; None judges nothing.
        batch_size: clips at once, where they are judged.
        seconds: for taking the time of each model, for each way of running it.
        onnx: take the time through ONNX Runtime, too.

    Raises:
        UserError: the clips are of classes that the models do not know, or onnxruntime is missing.
    """
    every = list(models.values())
    times = latencies(every, seconds * len(every))
    graphs = graph_latencies(every, seconds * len(every)) if onnx else [None] * len(every)
    found = []
    for (name, model), latency, graph in zip(models.items(), times, graphs, strict=True):
        accuracy = None
        if data is not None:
            apply = make_apply(data.store, model.device, batch_size, progress=True)
            accuracy = build_evaluation("top1").run(model, data, apply).metrics["top1"]
        macs = count_macs(model.encoder, model.preprocess.options.window)
        found.append(Point(name, count_parameters(model.encoder), macs, latency, graph, accuracy))
    return found


def in_markdown(points: Sequence[Point]) -> str:
    """The table of a sweep; the first point is the original."""
    first = points[0]
    head = ["model", "parameters", "MACs a clip", "ms a clip", "times faster"]
    head += ["ms, ONNX", "times faster"] if first.graph else []
    head += ["top-1"] if first.accuracy is not None else []
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    for point in points:
        line = [point.name, f"{point.parameters:,} ({point.parameters / first.parameters:.0%})"]
        line += [f"{point.macs / 1e6:,.1f} M ({point.macs / first.macs:.0%})", *_times(point.latency)]
        line += _times(point.graph) if point.graph else []
        line += [f"{point.accuracy:.2%}"] if point.accuracy is not None else []
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _times(timing: Timing) -> list[str]:
    ratio = f"{timing.ratio:.2f} ({timing.ratio_low:.2f}-{timing.ratio_high:.2f})"
    return [f"{1e3 * timing.seconds:.1f}", ratio]


def draw(points: Sequence[Point], path: Path) -> None:
    """Accuracy against parameters, multiply-accumulates and time; the dashed line is the original's accuracy."""
    from matplotlib.figure import Figure

    timed = [point.latency if point.graph is None else point.graph for point in points]
    axes = {
        "parameters, thousands": [point.parameters / 1e3 for point in points],
        "MACs a clip, millions": [point.macs / 1e6 for point in points],
        f"ms a clip{', ONNX Runtime' if points[0].graph else ''}": [1e3 * timing.seconds for timing in timed],
    }
    values = [100 * (point.accuracy or 0.0) for point in points]
    figure = Figure(figsize=(11, 3.2), dpi=DPI)
    for number, (label, sizes) in enumerate(axes.items()):
        panel = figure.add_axes((0.34 * number, 0, 0.28, 1))
        panel.axhline(values[0], color=GREY, linewidth=1, linestyle="--")
        panel.plot(sizes, values, "o", color=BLUE)
        for place, (point, x, y) in enumerate(zip(points, sizes, values, strict=True)):
            side = "left" if x < 0.7 * max(sizes) else "right"
            offset = (4 if side == "left" else -4, -11 if place % 2 else 5)  # neighbours on either side of the line
            panel.annotate(point.name, (x, y), offset, textcoords="offset points", fontsize=8, ha=side)
        panel.set_xlabel(label)
        panel.set_xlim(left=0, right=1.1 * max(sizes))
        panel.set_ylabel("top-1, %" if not number else "")
        panel.margins(y=0.15)
    save_figure(figure, path)
