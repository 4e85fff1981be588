"""Curves of a report: the probability of the answer by how many joints were damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmcl.evaluation.base import Verdict
from mmcl.evaluation.reporting.figures import BLUE, GREY, ORANGE, save_figure

TITLES = {
    "deletion": "joints taken away", "insertion": "joints alone", "edge_zero": "edge importance at zero",
    "edge_shift": "edge importance moved away from zero",
}  # fmt: skip
FILE = "faithfulness.png"


def draw(verdict: Verdict, folder: Path) -> list[str]:
    """Write the curves, and say in a table how far the named joints are from chance; Markdown blocks."""
    from matplotlib.figure import Figure

    kinds = [kind for kind in TITLES if kind in verdict.metrics]
    counts = verdict.facts["counts"]
    figure = Figure(figsize=(4.0 * len(kinds), 3.2), dpi=110)
    for number, kind in enumerate(kinds):
        axes = figure.add_axes((number / len(kinds) * 1.06, 0, 0.9 / len(kinds), 1))
        _curves(axes, verdict.arrays[f"{kind}_probability"], verdict.arrays["whole"], counts)
        axes.set_title(TITLES[kind], fontsize=10, loc="left")
        axes.set_xlabel("joints", fontsize=9)
        if not number:
            axes.set_ylabel("probability of the answer", fontsize=9)
            axes.legend(fontsize=8, frameon=False)
    save_figure(figure, folder / FILE)
    rows = [_row(TITLES[kind], verdict.metrics[kind]) for kind in kinds]
    head = ["| damage | gap to random joints | PGI | PGU | random |", "|---|---|---|---|---|"]
    return ["## Named joints against chance", "\n".join([*head, *rows]), f"![Curves]({FILE})"]


def _curves(axes: Any, probability: np.ndarray, whole: np.ndarray, counts: list[int]) -> None:
    mean = probability.mean(axis=0)  # (2 + draws, k)
    axes.fill_between(counts, mean[2:].min(axis=0), mean[2:].max(axis=0), color=GREY, alpha=0.25, linewidth=0)
    axes.plot(counts, mean[2:].mean(axis=0), "o-", color=GREY, markersize=3, label="random joints")
    axes.plot(counts, mean[0], "o-", color=ORANGE, markersize=3, label="named first")
    axes.plot(counts, mean[1], "o-", color=BLUE, markersize=3, label="named last")
    axes.axhline(float(whole.mean()), color=GREY, linewidth=0.8, linestyle=":")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _row(title: str, metrics: dict[str, Any]) -> str:
    cells = [_words(metrics[name]) for name in ("gap", "pgi", "pgu", "pg_random")]
    return f"| {title} | {' | '.join(cells)} |"


def _words(found: dict[str, float | None]) -> str:
    if found["mean"] is None:
        return ""
    return f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
