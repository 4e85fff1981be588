"""Pictures of a report: confusion matrix, accuracy by class, reliability. Sized so that every name can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmcl.evaluation.calibration import Calibration
from mmcl.evaluation.reporting.figures import BLUE, DPI, GREY, ORANGE, as_written, name_axis, new_figure, save_figure

FEW, SOME, MANY = 15, 30, 60  # classes: where cells and letters become smaller
FOREIGN = 12  # columns for answers that are the true class of no clip; the rest of them share one


def confusion_table(predicted: np.ndarray, labels: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[int], int]:
    """Confusion of the classes that occur.

    A classifier judged on some of its classes (label maps) may answer with any other one: the commonest such answers
    get columns of their own, the rest share the last column.

    Args:
        predicted: (n,) answers.
        labels: (n,) true classes.
        names: K class names.

    Returns:
        (rows, columns) clips; the classes of the columns, those of the rows first; how many classes share the last
        column (0: there is none).
    """
    from sklearn.metrics import confusion_matrix

    whole = confusion_matrix(labels, predicted, labels=np.arange(len(names)))
    rows = np.unique(labels)
    strays = np.setdiff1d(np.unique(predicted), rows)
    strays = strays[np.argsort(-whole[:, strays].sum(axis=0), kind="stable")]
    shared = strays[FOREIGN:]
    columns = [*rows.tolist(), *strays[:FOREIGN].tolist()]
    table = whole[rows][:, columns]
    if len(shared):
        table = np.column_stack([table, whole[rows][:, shared].sum(axis=1)])
    return table, columns, len(shared)


def draw_confusion(path: Path, predicted: np.ndarray, labels: np.ndarray, names: list[str], title: str) -> None:
    """Draw the confusion matrix of the classes that occur: each row is a true class and sums to 100 %."""
    from matplotlib.colors import PowerNorm

    table, columns, shared = confusion_table(predicted, labels, names)
    rows, width = table.shape
    share = 100 * table / table.sum(axis=1, keepdims=True)
    cell = 0.46 if width <= FEW else 0.34 if width <= SOME else 0.24 if width <= MANY else 0.17
    letters = min(10.0, cell * 72 * 0.62)
    figure, axes = new_figure(cell * width, cell * rows)
    axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 100), aspect="auto")  # a few per cent can be seen, too
    columns_named = [names[column] for column in columns] + ([f"{shared} other classes"] if shared else [])
    name_axis(axes.xaxis, columns_named, letters, rotation=90)
    name_axis(axes.yaxis, [names[row] for row in columns[:rows]], letters)
    if width > SOME:  # far from the names: lines to follow
        axes.tick_params(top=True, labeltop=True, right=True, labelright=True)
    axes.set_xticks(np.arange(width + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e4e4e4", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    if width > rows:
        axes.axvline(rows - 0.5, color=GREY, linewidth=1.5)
    if width <= SOME:
        for row, column in np.argwhere(table):
            ink = "white" if share[row, column] > 35 else "black"
            axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=ink, fontsize=letters)
    axes.set_xlabel("answered", fontsize=letters + 2)
    axes.set_ylabel("true class", fontsize=letters + 2)
    axes.set_title(f"{title}\n% of the true class's clips", fontsize=letters + 2, loc="left", **as_written(title))
    save_figure(figure, path)


def draw_classes(path: Path, rows: list[dict[str, Any]], mean: float, title: str) -> None:
    """Draw the recall of each class that occurs, the hardest on top, with counts; and the mean over classes.

    Args:
        path: of the PNG.
        rows: of :func:`mmcl.evaluation.metrics.per_class`.
        mean: mean class accuracy, a fraction of 1.
        title: of the picture.
    """
    shown = sorted((row for row in rows if row["clips"]), key=lambda row: (row["recall"], row["label"]))
    line = 0.3 if len(shown) <= SOME else 0.22 if len(shown) <= MANY else 0.17
    letters = min(10.0, line * 72 * 0.66)
    figure, axes = new_figure(6.0, line * (len(shown) + 0.6))
    recall = [100 * row["recall"] for row in shown]
    axes.barh(range(len(shown)), recall, height=0.74, color=BLUE)
    axes.axvline(100 * mean, color=ORANGE, linewidth=1.5, linestyle="--")
    for position, row in enumerate(shown):
        counts = f"{row['correct']} / {row['clips']}"
        axes.text(101, position, counts, va="center", fontsize=letters, color="#404040", clip_on=False)
    name_axis(axes.yaxis, [row["name"] for row in shown], letters)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"clips answered right, % (dashed: mean over classes, {mean:.1%})", fontsize=10)
    axes.grid(axis="x", color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=11, loc="left", **as_written(title))
    save_figure(figure, path)


def draw_reliability(path: Path, found: Calibration, title: str) -> None:
    """Draw accuracy against confidence, bin by bin, and below it how many clips each bin holds."""
    figure, axes = new_figure(4.6, 4.0)
    centres, width = (found.edges[1:] + found.edges[:-1]) / 2, found.edges[1] - found.edges[0]
    full = found.counts > 0
    accuracy, confidence = found.accuracy[full], found.confidence[full]
    axes.bar(centres[full], accuracy, width * 0.92, color=BLUE, label="accuracy")
    # the gap stands where the bin's clips are on average, not in its middle
    axes.vlines(confidence, accuracy, confidence, color=ORANGE, linewidth=2.5, label="gap to confidence")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="as sure as right")
    axes.plot(confidence, confidence, ".", color=ORANGE)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share answered right")
    axes.set_xticklabels([])
    axes.grid(color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9, frameon=False)
    axes.set_title(f"{title}\nECE {found.ece:.2%}, NLL {found.nll:.3f}", fontsize=11, loc="left", **as_written(title))
    below = figure.add_axes((0, -0.38, 1, 0.32))
    below.bar(centres, found.counts, width * 0.92, color=GREY)
    below.set(xlim=(0, 1), xlabel="confidence: probability of the answer", ylabel="clips")
    below.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def draw_table(path: Path, values: np.ndarray, rows: list[str], columns: list[str]) -> None:
    """Draw numbers of classes and parts: blue above zero, orange below.

    Args:
        path: of the picture.
        values: (rows, columns).
        rows: names.
        columns: names.
    """
    from matplotlib.colors import LinearSegmentedColormap

    cell = 0.24 if len(rows) <= MANY else 0.17
    figure, axes = new_figure(0.8 * len(columns), cell * len(rows))
    most = float(np.abs(values).max()) or 1.0
    colours = LinearSegmentedColormap.from_list("both ways", [ORANGE, "white", BLUE])
    axes.imshow(values, cmap=colours, vmin=-most, vmax=most, aspect="auto")
    name_axis(axes.xaxis, columns, 8)
    name_axis(axes.yaxis, rows, cell * 72 * 0.5)
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if abs(value) > 0.6 * most else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=cell * 72 * 0.42, color=ink)
    save_figure(figure, path)


def draw_stream(path: Path, any_class: np.ndarray, own_part: np.ndarray) -> None:
    """Accuracy on every part after every part, beside the mean over what has been learned so far.

    Args:
        path: of the picture.
        any_class: (J, P) any class being an answer.
        own_part: (J, P) one of the part's own classes being the answer.
    """
    from matplotlib.figure import Figure

    rows, columns = any_class.shape
    side = max(2.6, 0.34 * columns)
    figure = Figure(figsize=(1, 1), dpi=DPI)  # axes are placed in inches; the file grows around them
    grid = figure.add_axes((0, 0, side, side * rows / columns))
    grid.imshow(100 * any_class, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(any_class):
        if not np.isnan(value):
            colour = "white" if value > 0.6 else "black"
            grid.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    grid.set_xticks(range(columns), [str(part + 1) for part in range(columns)], fontsize=8)
    grid.set_yticks(range(rows), [str(part + 1) for part in range(rows)], fontsize=8)
    grid.set_xlabel("accuracy on part, %")
    grid.set_ylabel("after part")
    if rows > 1:
        curve = figure.add_axes((side + 0.9, 0, 3.6, side * rows / columns))
        for table, name, colour in ((own_part, "a class of the part", GREY), (any_class, "any class", BLUE)):
            means = [100 * np.nanmean(values[: row + 1]) for row, values in enumerate(table)]
            curve.plot(range(1, rows + 1), means, "o-", color=colour, markersize=4, label=name)
        curve.set_ylim(0, 103)
        curve.set_xticks(range(1, rows + 1))
        curve.set_xlabel("parts learned")
        curve.set_ylabel("mean accuracy on them, %")
        curve.grid(alpha=0.3)
        curve.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
