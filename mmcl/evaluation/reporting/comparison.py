"""A comparison as a Markdown table and as a picture of intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmcl.common.files import atomic_folder, write_json
from mmcl.common.printing import safe_page
from mmcl.evaluation.compare import RESAMPLES, Row, mean_and_deviation
from mmcl.evaluation.reporting.figures import BLUE, DPI, GREY, ORANGE, as_written, save_figure, shortened
from mmcl.evaluation.reporting.page import table
from mmcl.evaluation.reporting.same_clips import RULE
from mmcl.evaluation.reporting.saved import SavedReport, caveats

MARK = "comparison.json"


def comparison_text(rows: Sequence[Row], groups: Mapping[str, Sequence[SavedReport]]) -> str:
    """The table, the rule that all numbers are by, how to read it, and what the reports warn of.

    Args:
        rows: of :func:`mmcl.evaluation.compare.compare`.
        groups: the reports, by name of the row.
    """
    report = groups[rows[0].name][0]
    first = f"difference to {rows[0].name}, points [95 %]"
    head = ["", "seeds", "n", f"{_title(rows[0].main)} %", "mean class accuracy %", "ECE %", first]
    lines = [
        (row.name, len(row.values), len(report.ids), _percent(row.values), _percent(row.mean_class_accuracy),
         _percent(row.ece), _difference(row))
        for row in rows
    ]  # fmt: skip
    rule = ", ".join(f"{key.replace('_', ' ')} {report.facts[key]}" for key in RULE if report.facts.get(key))
    how = (
        f"Difference in accuracy: paired bootstrap, {RESAMPLES:,} resamples of the clips, the same for both sides; "
        "where a side has several seeds, they are resampled too. Where the interval holds 0, these runs show no "
        "difference. ± is the sample standard deviation (n - 1) over seeds."
    )
    if pairs := [f"{row.name} ({row.pairs})" for row in rows if row.pairs]:
        how += (
            f" As in their study, runs of one number (seed, or draw of the protocol) were resampled together with "
            f"those of {rows[0].name}, so many pairs of each: {', '.join(pairs)}."
        )
    said = [f"{name}: {key}: {words}" for name, group in groups.items() for key, words in caveats(group).items()]
    return "\n\n".join([table(head, lines), f"Judged by: {rule}.", how, *said])


def _title(main: str) -> str:
    """A metric's name in a table's head."""
    return "top-1" if main == "top1" else main.replace("_", " ")


def _percent(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean, deviation = mean_and_deviation(values)
    return f"{100 * mean:.2f}" + (f" ± {100 * deviation:.2f}" if deviation is not None else "")


def _difference(row: Row) -> str:
    if row.difference is None:
        return "-"
    value, low, high = (f"{100 * x:+.2f}" for x in row.difference)
    return f"{value} [{low}, {high}]" + (" holds 0" if holds_zero(row.difference) else "")


def holds_zero(difference: tuple[float, float, float]) -> bool:
    """Whether an interval is no evidence of a difference."""
    return difference[1] <= 0 <= difference[2]


def write_comparison(out: Path, rows: Sequence[Row], groups: dict[str, list[SavedReport]]) -> None:
    """Write comparison.md, comparison.json and comparison.png in one go.

    Raises:
        UserError: ``out`` holds something else than a comparison.
    """
    report = next(iter(groups.values()))[0]
    facts: dict[str, Any] = {key: report.facts.get(key) for key in RULE}
    facts |= {"n": len(report.ids), "resamples": RESAMPLES}
    members = {name: [str(entry.path) for entry in entries] for name, entries in groups.items()}
    with atomic_folder(out, MARK) as folder:
        listed = [asdict(row) | {"reports": members[row.name]} for row in rows]
        write_json(folder / MARK, {**facts, "groups": listed})
        text = f"# {rows[0].name} and others\n\n{comparison_text(rows, groups)}\n\n![comparison](comparison.png)\n"
        (folder / "comparison.md").write_text(safe_page(text), encoding="utf-8")
        draw_comparison(folder / "comparison.png", rows, " ".join(str(facts[key]) for key in RULE[:2] if facts[key]))


def draw_comparison(path: Path, rows: Sequence[Row], title: str) -> None:
    """Draw each group's seeds and mean, and beside them the difference to the first group with its interval."""
    from matplotlib.figure import Figure

    height = 0.42 * len(rows) + 0.3
    figure = Figure(figsize=(4.2, height), dpi=DPI)
    left, right = figure.add_axes((0, 0, 1, 1)), figure.add_axes((1.08, 0, 1, 1))
    right.axvline(0, color=GREY, linewidth=1)
    for position, row in enumerate(rows):
        mean = 100 * mean_and_deviation(row.values)[0]
        left.plot([100 * value for value in row.values], [position] * len(row.values), "o", color=BLUE, alpha=0.55)
        left.plot([mean], [position], "|", color="black", markersize=16, markeredgewidth=2)
        if row.difference is not None:
            value, low, high = (100 * x for x in row.difference)
            colour = GREY if holds_zero(row.difference) else ORANGE
            right.plot([low, high], [position, position], "-", color=colour, linewidth=3, solid_capstyle="butt")
            right.plot([value], [position], "o", color=colour)
    names = [shortened(row.name) for row in rows]
    left.set_yticks(range(len(rows)), names, **as_written(*names))
    right.set_yticks(range(len(rows)), [""] * len(rows))
    left.set_xlabel(f"{_title(rows[0].main)}, %: seeds and their mean")
    right.set_xlabel(f"points more than {names[0]}, 95 % interval\n(grey: it holds 0)", **as_written(names[0]))
    for axes in (left, right):
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", color="#e4e4e4")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    left.set_title(title, fontsize=11, loc="left", **as_written(title))
    save_figure(figure, path)
