"""The picture of ``mmcl bench frontier``: how right every row is, beside the time that a clip takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmcl.benchmarks.frontier_points import PRECISIONS, Point, on_frontier
from mmcl.evaluation.reporting.figures import BLUE, DPI, GREY, ORANGE, as_written, save_figure, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADES = (0, 2, 3, 4, 5, 6, 8, 9)  # of tab10, without the orange of the frontier and the grey of intervals
NAME_WIDTH, NAME_HEIGHT = 0.3, 0.025  # what a name takes of the picture: logarithm of time, accuracy


def draw_frontier(path: Path, points: Sequence[Point]) -> None:
    """Accuracy with its interval against the time of a clip, fp32 and int8 of a row joined; the frontier is a line.

    Rows whose names are equal before the first dot (`ctrgcn`, `ctrgcn.small`) are sizes of one thing. They have one
    colour, and a line joins them from the smallest to the largest; a legend names them, and no point has a name. Where
    two of them have the same number of parameters (`ctrgcn.supervised`, `ctrgcn.distil`), every point keeps its name.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    sizes: dict[str, list[Point]] = {}
    for point in points:
        sizes.setdefault(point.name.partition(".")[0], []).append(point)
    differ = all(len({point.parameters for point in members}) == len(members) for members in sizes.values())
    if len(sizes) == len(points) or not differ:
        for index, point in enumerate(points):
            _draw_point(axes, point, BLUE)
            _write_name(axes, index, points)
    else:
        for number, (name, members) in enumerate(sizes.items()):
            colour = colormaps["tab10"](SHADES[number % len(SHADES)])
            for point in members:
                _draw_point(axes, point, colour)
            members.sort(key=lambda point: point.parameters)
            places = [(_ms(point, "int8"), 100 * point.value) for point in members]
            axes.plot(*zip(*places, strict=True), color=colour, linewidth=1.2, label=shortened(name))
        axes.legend(loc="lower right", frameon=False, prop={"family": as_written(*sizes)["fontfamily"], "size": 9})
    pairs = zip(points, on_frontier(points), strict=True)
    best = sorted((_ms(point, "int8"), 100 * point.value) for point, chosen in pairs if chosen)
    axes.plot(*zip(*best, strict=True), color=ORANGE, linewidth=1.5, drawstyle="steps-post", zorder=0)
    _name_axes(axes)
    save_figure(figure, path)


def _ms(point: Point, precision: str) -> float:
    return 1e3 * point.times[precision].seconds


def _draw_point(axes: Axes, point: Point, colour: object) -> None:
    single, integer = (_ms(point, precision) for precision in PRECISIONS)
    axes.plot([integer, integer], [100 * point.low, 100 * point.high], color=GREY, linewidth=1)
    axes.plot([single, integer], [100 * point.value] * 2, color=GREY, linewidth=1, linestyle=":")
    axes.plot([single], [100 * point.value], "o", color=colour, markerfacecolor="white")
    axes.plot([integer], [100 * point.value], "o", color=colour)


def _write_name(axes: Axes, index: int, points: Sequence[Point]) -> None:
    """Write the name of a row beside it, below where the name of another row would be written over it."""
    point = points[index]
    crowded = False
    for number, other in enumerate(points):
        apart = abs(math.log(_ms(other, "int8") / _ms(point, "int8")))
        higher = other.value - point.value
        crowded |= apart < NAME_WIDTH and (0 < higher < NAME_HEIGHT or (higher == 0 and number < index))
    name = shortened(point.name)
    axes.annotate(name, (_ms(point, "int8"), 100 * point.value), (5, -12) if crowded else (5, 5),
                  textcoords="offset points", fontsize=9, **as_written(name))  # fmt: skip


def _name_axes(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("ms a clip, ONNX Runtime on this machine (filled: int8, open: fp32; orange: the frontier in int8)")
    axes.set_ylabel("top-1, %, with 95 % interval")
    axes.grid(color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
