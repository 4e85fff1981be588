"""Gives every picture of a report its size, its colours and its names, in the script that they are written in.

Drawn on bare figures, never through pyplot, so that nothing global changes in the process that evaluates.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.common.fonts import families, quiet_boxes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
NAME_LENGTH = 34  # characters of a class name that are shown
BLUE, ORANGE, GREY = "#2f6db3", "#d9772b", "#8a8a8a"


def shortened(name: str) -> str:
    """A class name that fits beside a picture."""
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1].rstrip() + "…"


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one set of axes of that size in inches; the file grows by whatever is written around them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI)
    return figure, figure.add_axes((0, 0, 1, 1))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure with all that stands around its axes; what is no text (bytes of a file's name) is escaped."""
    from matplotlib.axis import Axis
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter

    for text in figure.findobj(Text):
        text.set_text(_escaped(text.get_text()))
    for axis in figure.findobj(Axis):
        if isinstance(names := axis.get_major_formatter(), FuncFormatter):  # what matplotlib makes of names of ticks
            axis.set_major_formatter(FuncFormatter(lambda at, number, names=names: _escaped(names(at, number))))
    with quiet_boxes():
        figure.savefig(path, bbox_inches="tight", pad_inches=0.15, format="png")


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def as_written(*texts: str) -> dict[str, Any]:
    """Options with which matplotlib shows texts of others: in their script, and a dollar sign begins no formula."""
    return {"parse_math": False, "fontfamily": families(*texts)}


def name_axis(axis: Any, names: list[str], size: float, **options: Any) -> None:
    """Class names as tick labels."""
    shown = [shortened(name) for name in names]
    axis.set_ticks(range(len(names)), shown, fontsize=size, **as_written(*shown), **options)
