"""Rows, table and picture of ``mmcl bench frontier``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.benchmarks.machine import in_words
from mmcl.benchmarks.timing import Timing
from mmcl.common.files import atomic_folder, write_json
from mmcl.common.printing import safe_page
from mmcl.evaluation.reporting.figures import BLUE, DPI, GREY, ORANGE, as_written, save_figure, shortened
from mmcl.evaluation.reporting.page import table

MARK = "frontier.json"
PRECISIONS = ("fp32", "int8")
BASELINE = "published"
NAME_WIDTH, NAME_HEIGHT = 0.3, 0.025  # what a name takes of the picture: logarithm of time, accuracy


@dataclass(frozen=True)
class Point:
    """One row: what a group of reports is worth, and what it costs.

    Attributes:
        name: of the group.
        values: accuracy of each seed.
        low, high: 95 % interval of their mean.
        networks: how many answer together; 1 but for ensembles.
        parameters: of all of them.
        macs: multiply-accumulates of a clip, of all of them.
        agreement: share of known clips for which the int8 graph names the network's class; the lowest of the members.
        times: precision -> time of a clip, and that of :data:`BASELINE`.
    """

    name: str
    values: list[float]
    low: float
    high: float
    networks: int
    parameters: int
    macs: int
    agreement: float
    times: dict[str, Timing]

    @property
    def value(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.values))


def on_frontier(points: Sequence[Point]) -> list[bool]:
    """Which points no other one beats: none is at least as right and faster, or more right and as fast, in int8."""

    def beats(one: Point, other: Point) -> bool:
        no_worse = one.value >= other.value and one.times["int8"].seconds <= other.times["int8"].seconds
        return no_worse and (one.value, one.times["int8"].seconds) != (other.value, other.times["int8"].seconds)

    return [not any(beats(other, point) for other in points) for point in points]


def in_json(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The rows as plain data."""
    pairs = zip(points, on_frontier(points), strict=True)
    return [{**asdict(point), "value": point.value, "frontier": on} for point, on in pairs]


def frontier_table(points: Sequence[Point], facts: Mapping[str, Any]) -> str:
    """The table, and what its numbers are of."""
    head = ["", "seeds", "top-1 % (95 % interval)", "parameters", "M MACs a clip", "fp32, ms", "int8, ms",
            "int8, times as fast (quartiles)", "int8 agrees", "frontier"]  # fmt: skip
    lines = [
        [
            point.name + (f" ({point.networks} networks)" if point.networks > 1 else ""), len(point.values),
            f"{100 * point.value:.2f} ({100 * point.low:.2f} to {100 * point.high:.2f})", f"{point.parameters:,}",
            f"{point.macs / 1e6:,.1f}", *(f"{1e3 * point.times[precision].seconds:.2f}" for precision in PRECISIONS),
            _ratio(point.times["int8"]), f"{point.agreement:.1%}", "yes" if on else "",
        ]
        for point, on in zip(points, on_frontier(points), strict=True)
    ]  # fmt: skip
    published, versions = points[0].times[BASELINE], facts["machine"]["versions"]
    words = (
        f"Judged by {facts.get('protocol', 'no protocol')} {facts.get('split', '')}".rstrip()
        + f"; one clip, {facts['threads']} thread(s), medians of {published.rounds} rounds taken in turns. "
        f"Times as fast as CTR-GCN as published, eagerly in PyTorch ({1e3 * published.seconds:.2f} ms). "
        f"{in_words(facts['machine'])}; onnxruntime {versions['onnxruntime']}, torch {versions['torch']}."
    )
    return f"{table(head, lines)}\n\n{words}"


def _ratio(timing: Timing) -> str:
    return f"{timing.ratio:.1f} ({timing.ratio_low:.1f} to {timing.ratio_high:.1f})"


def write_frontier(out: Path, points: Sequence[Point], facts: Mapping[str, Any]) -> None:
    """Write frontier.md, frontier.json and frontier.png in one go.

    Raises:
        UserError: ``out`` holds something else.
    """
    with atomic_folder(out, MARK) as folder:
        write_json(folder / MARK, {**facts, "points": in_json(points)})
        page = f"# Accuracy and time\n\n{frontier_table(points, facts)}\n\n![accuracy and time](frontier.png)\n"
        (folder / "frontier.md").write_text(safe_page(page), encoding="utf-8")
        draw_frontier(folder / "frontier.png", points)


def draw_frontier(path: Path, points: Sequence[Point]) -> None:
    """Accuracy with its interval against the time of a clip, fp32 and int8 of a row joined; the frontier is a line."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(8.5, 5), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    for index, point in enumerate(points):
        single, integer = (1e3 * point.times[precision].seconds for precision in PRECISIONS)
        axes.plot([integer, integer], [100 * point.low, 100 * point.high], color=GREY, linewidth=1)
        axes.plot([single, integer], [100 * point.value] * 2, color=GREY, linewidth=1, linestyle=":")
        axes.plot([single], [100 * point.value], "o", color=BLUE, markerfacecolor="white")
        axes.plot([integer], [100 * point.value], "o", color=BLUE)
        name = shortened(point.name)
        where = (5, -12) if _is_crowded(index, points) else (5, 5)
        axes.annotate(name, (integer, 100 * point.value), where, textcoords="offset points", fontsize=9,
                      **as_written(name))  # fmt: skip
    pairs = zip(points, on_frontier(points), strict=True)
    best = sorted((1e3 * point.times["int8"].seconds, 100 * point.value) for point, on in pairs if on)
    axes.plot(*zip(*best, strict=True), color=ORANGE, linewidth=1.5, drawstyle="steps-post", zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("ms a clip, ONNX Runtime on this machine (filled: int8, open: fp32; orange: the frontier in int8)")
    axes.set_ylabel("top-1, %, with 95 % interval")
    axes.grid(color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _is_crowded(index: int, points: Sequence[Point]) -> bool:
    """Whether the name of another point, a little higher or as high and earlier, would be written over this one's."""
    point = points[index]
    for number, other in enumerate(points):
        apart = abs(math.log(other.times["int8"].seconds / point.times["int8"].seconds))
        higher = other.value - point.value
        if apart < NAME_WIDTH and (0 < higher < NAME_HEIGHT or (higher == 0 and number < index)):
            return True
    return False
