"""What a report of attacks shows: heat maps from surrogate to target, success by budget, and how changes look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.evaluation.attack_tables import SMOOTHED
from mmcl.evaluation.base import Verdict
from mmcl.evaluation.reporting.figures import DPI, as_written, save_figure, shortened
from mmcl.evaluation.reporting.page import table

MAPS, CURVES = "transfer.png", "budget.png"


def attack_blocks(verdict: Verdict, folder: Path) -> list[str]:
    """Draw the pictures, and give the page's blocks."""
    cells: list[Mapping[str, Any]] = verdict.facts["cells"]
    rows: list[Mapping[str, Any]] = verdict.facts["attacks"]
    sizes = list(dict.fromkeys(cell["epsilon"] for cell in cells))
    draw_maps(folder / MAPS, cells, sizes[0])
    blocks = [
        "## Success from surrogate (rows) to target (columns)",
        "Share of the clips that both answer right when clean, and on which the target errs (or obeys, where "
        f"targeted), at a budget of {sizes[0]:g}. On the diagonal a model is attacked itself.",
        f"![heat maps]({MAPS})",
    ]
    if len(sizes) > 1:
        draw_curves(folder / CURVES, rows)
        blocks += ["## Success by budget", f"![success by budget]({CURVES})"]
    return [*blocks, "## Attacks over all pairs", summary_table(rows, cells), HOW]


ABREAST = 4  # heat maps beside each other
HOW = (
    "Intervals are 95 % by a bootstrap over clips and seeds, which all pairs share. `less the first` is the difference "
    "of the means over pairs of different models to the first attack's: where its interval holds 0, these runs show no "
    "difference. Noise of the same budget is the control. Models behind a defence are compared among themselves. "
    "Pairs that share no clip which both answer right are left out, and so are targets that the attack itself looks at "
    "(`ensemble`)."
)


def _share(row: Mapping[str, Any], key: str) -> str:
    """A rate with its interval."""
    if row[key] is None:
        return ""
    return f"{row[key]:.1%} [{row[f'{key}_low']:.1%}, {row[f'{key}_high']:.1%}]"


def summary_table(rows: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]]) -> str:
    """One line an attack and budget, with what its changes look like."""
    lines = []
    for row in rows:
        attack, word, deviation = row["attack"].partition(SMOOTHED)
        own = [
            cell for cell in cells
            if (cell["attack"], cell["epsilon"]) == (attack, row["epsilon"])
            and cell["surrogate"].partition(SMOOTHED)[1:] == (word, deviation)
        ]  # fmt: skip
        bone, acceleration, position = (
            float(np.mean([cell[key] for cell in own])) for key in ("bone", "acceleration", "position")
        )
        looks = [f"{bone:.2%}", f"{1e3 * acceleration:.2f}", f"{1e3 * position:.2f}"]
        rates = [_share(row, key) for key in ("itself", "others", "less_first")]
        lines.append([row["attack"], f"{row['epsilon']:g}", *rates, *looks])
    head = ["attack", "budget", "on itself", "on other models", "less the first", "bone length",
            "acceleration, mm/frame²", "joint, mm"]  # fmt: skip
    return table(head, lines)


def draw_maps(path: Path, cells: Sequence[Mapping[str, Any]], epsilon: float) -> None:
    """A heat map of success for each attack, four beside each other."""
    from matplotlib.figure import Figure

    attacks = list(dict.fromkeys(cell["attack"] for cell in cells))
    rows = list(dict.fromkeys(cell["surrogate"] for cell in cells))
    columns = list(dict.fromkeys(cell["target"] for cell in cells))
    width, height = 0.75 * len(columns), 0.5 * len(rows)
    figure = Figure(figsize=(1, 1), dpi=DPI)  # axes are placed in inches; the file grows around them
    for place, attack in enumerate(attacks):
        values = np.full((len(rows), len(columns)), np.nan)
        for cell in cells:
            if cell["attack"] == attack and cell["epsilon"] == epsilon and cell["success"] is not None:
                values[rows.index(cell["surrogate"]), columns.index(cell["target"])] = 100 * cell["success"]
        line, side = divmod(place, ABREAST)
        axes = figure.add_axes((side * (width + 0.35), -line * (height + 0.45), width, height))
        axes.imshow(values, cmap="Oranges", vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                ink = "white" if value > 65 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=9, color=ink)
        axes.set_title(attack, fontsize=10)
        lowest = place + ABREAST >= len(attacks)
        shown = [shortened(name) for name in columns] if lowest else [""] * len(columns)
        axes.set_xticks(range(len(columns)), shown, rotation=90, fontsize=8, **as_written(*shown))
        shown = [shortened(name) for name in rows] if side == 0 else [""] * len(rows)
        axes.set_yticks(range(len(rows)), shown, fontsize=8, **as_written(*shown))
    save_figure(figure, path)


def draw_curves(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Success of each attack by budget, with its interval: on other models where there are some, else on itself."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    key = "itself" if all(row["others"] is None for row in rows) else "others"
    for attack in dict.fromkeys(row["attack"] for row in rows):
        own = sorted((row for row in rows if row["attack"] == attack), key=lambda row: row["epsilon"])
        sizes = [row["epsilon"] for row in own]
        columns = (np.array([row[name] for row in own], dtype=float) for name in (key, f"{key}_low", f"{key}_high"))
        middle, low, high = (100 * column for column in columns)  # NaN, which is not drawn, where no pair counts
        (line,) = axes.plot(sizes, middle, "o-", markersize=4, label=attack)
        axes.fill_between(sizes, low, high, color=line.get_color(), alpha=0.15)
    axes.set_xlabel("budget")
    axes.set_ylabel("success on other models, %" if key == "others" else "success on the model itself, %")
    axes.set_ylim(0, 103)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
