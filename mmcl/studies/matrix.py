"""Arms by several measures: means over runs, as a table and as one picture of heat maps.

An arm called ENCODER.TASK stands in row ENCODER and column TASK; arms without a point share one column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.common.files import atomic_file
from mmcl.evaluation.directions import meaning_of
from mmcl.evaluation.reporting.figures import DPI, as_written, save_figure, shortened
from mmcl.evaluation.reporting.page import table
from mmcl.studies.grid import Study
from mmcl.studies.run import Run

CALIBRATION = "ece"  # of an evaluation that scores classes, shown beside its main number
TIMES = Path("frontier") / "frontier.json"  # in the study's folder, where `mmcl bench frontier` was told to write
PALE, STRONG = 0.08, 0.62  # ends of the shading: letters stay readable on both


@dataclass(frozen=True)
class Measure:
    """One number of every arm.

    Attributes:
        name: for people, with its unit.
        values: arm -> mean over its finished runs; arms without one are left out.
        less: whether less is better.
        digits: behind the point.
    """

    name: str
    values: Mapping[str, float]
    less: bool = False
    digits: int = 1


def measures(study: Study, runs: Iterable[Run], out: Path) -> list[Measure]:
    """The main number of every evaluation that judges the study, calibration, and the time of a clip if known.

    Args:
        study: with several judges.
        runs: all of them, finished or not.
        out: the study's folder.
    """
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for run in runs:
        for judge in filter(run.judged, (run.judge, *run.beside)):
            facts = _facts(run.folder / judge.report / "report.json")
            for key in (str(facts.get("main", "top1")), CALIBRATION):
                if isinstance(facts.get(key), int | float):
                    found.setdefault((key, judge.evaluation), {}).setdefault(run.arm, []).append(100.0 * facts[key])
    keys = [key for key, _ in found]
    shown = [
        Measure(
            f"{_words(key)}{f' ({judge})' if keys.count(key) > 1 else ''}, %",
            {arm: float(np.mean(values)) for arm, values in by_arm.items()},
            meaning_of(key).better == "less",
        )
        for (key, judge), by_arm in found.items()
    ]  # fmt: skip
    times = _times(out / TIMES, study)
    return [*shown, Measure("one clip, ms (fp32 graph)", times, less=True, digits=2)] if times else shown


def _facts(file: Path) -> dict[str, Any]:
    """What a report of a run holds; nothing where there is none.

    Raises:
        UserError: it is damaged.
    """
    facts = read_json(file) if file.is_file() else {}
    if not isinstance(facts, dict):
        raise UserError(f"{file}: damaged report (no keys); evaluate the model again")
    return facts


def _times(file: Path, study: Study) -> dict[str, float]:
    """Arm -> milliseconds of a clip, from ``mmcl bench frontier OUT --out OUT/frontier``.

    Raises:
        UserError: that file is damaged.
    """
    try:
        points = read_json(file)["points"] if file.is_file() else []
        times = {str(point["name"]): 1e3 * float(point["times"]["fp32"]["seconds"]) for point in points}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: damaged; delete it, or run `mmcl bench frontier` again") from error
    return {name: time for name, time in times.items() if name in study.arms}


def _words(main: str) -> str:
    return {"top1": "top-1", CALIBRATION: "calibration error"}.get(main, main.replace("_", " "))


def matrix_table(study: Study, shown: Sequence[Measure]) -> str:
    """A row an arm, a column a measure."""
    rows = [[arm, *(_cell(measure, arm) for measure in shown)] for arm in study.arms]
    return table(["arm", *(measure.name for measure in shown)], rows)


def _cell(measure: Measure, arm: str) -> str:
    return f"{measure.values[arm]:.{measure.digits}f}" if arm in measure.values else ""


def places(arms: Iterable[str]) -> tuple[list[str], list[str], dict[str, tuple[int, int]]]:
    """Rows, columns, and the (row, column) of each arm."""
    parts = {arm: arm.rpartition(".")[::2] if "." in arm else (arm, "") for arm in arms}
    rows, columns = (list(dict.fromkeys(pair[side] for pair in parts.values())) for side in (0, 1))
    return rows, columns, {arm: (rows.index(row), columns.index(column)) for arm, (row, column) in parts.items()}


def draw_matrix(path: Path, study: Study, shown: Sequence[Measure]) -> None:
    """Draw a heat map for each measure, side by side: darker is better, and the best cell is framed."""
    from matplotlib.figure import Figure

    rows, columns, place = places(study.arms)
    width = max(2.2, 0.8 * len(columns))
    figure = Figure(figsize=(width * len(shown) + 1.8, 0.42 * len(rows) + 1.6), dpi=DPI, layout="constrained")
    for axes, measure in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        _draw_measure(axes, measure, (len(rows), len(columns)), place)
        names = [shortened(column) for column in columns]
        axes.set_xticks(range(len(columns)), names, rotation=40, ha="right", **as_written(*names))
        axes.set_title(f"{measure.name}\n{'less' if measure.less else 'more'} is better", fontsize=10)
    names = [shortened(row) for row in rows]
    axes.set_yticks(range(len(rows)), names, **as_written(*names))
    figure.suptitle(f"{study.name}: darker is better within each panel; empty: not run", fontsize=10, x=0.01, ha="left")
    with atomic_file(path) as temporary:
        save_figure(figure, temporary)


def _draw_measure(axes: Any, measure: Measure, shape: tuple[int, int], place: Mapping[str, tuple[int, int]]) -> None:
    from matplotlib.patches import Rectangle

    grid = np.full(shape, np.nan)
    for arm, value in measure.values.items():
        grid[place[arm]] = value
    axes.imshow(shades(grid, measure.less), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    best = min(measure.values.values()) if measure.less else max(measure.values.values())
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            axes.text(column, row, f"{value:.{measure.digits}f}", ha="center", va="center", fontsize=8)
        if value == best:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, linewidth=1.6))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def shades(grid: np.ndarray, less: bool) -> np.ndarray:
    """Values -> shades from pale (worst) to strong (best) by rank, ties alike; empty cells stay empty.

    Ranks and not values: one bad cell would make all the others look the same.
    """
    from scipy.stats import rankdata

    there = np.isfinite(grid)
    ranks = rankdata(-grid[there] if less else grid[there], method="average") - 1
    shaded = np.full(grid.shape, np.nan)
    shaded[there] = PALE + (STRONG - PALE) * ranks / max(1, there.sum() - 1)
    return shaded
