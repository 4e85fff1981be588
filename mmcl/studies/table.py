"""The one table a study ends in: study.md, study.csv, study.json and study.png; of several judges, matrix.png, too."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.files import atomic_file, write_json, write_text
from mmcl.common.printing import safe_page
from mmcl.evaluation.directions import meaning_of
from mmcl.evaluation.reporting.figures import BLUE, DPI, GREY, as_written, save_figure
from mmcl.evaluation.reporting.page import table
from mmcl.studies.grid import Study
from mmcl.studies.matrix import Measure, draw_matrix, matrix_table, measures
from mmcl.studies.power import power_sentences
from mmcl.studies.run import Run
from mmcl.studies.sentences import method, name_of, sentences
from mmcl.studies.statistics import Reports, Row, compare_arms


def write_table(
    out: Path, study: Study, rows: Sequence[Row], reports: Reports, unfinished: Mapping[str, str]
) -> str:  # fmt: skip
    """Write the table of a study.

    Args:
        out: the study's folder.
        study: what was asked for.
        rows: of :func:`mmcl.studies.statistics.compare_arms`.
        reports: of the finished runs.
        unfinished: name of a run -> why it is not among them.

    Returns:
        Table and sentences, to be printed.
    """
    name = name_of(study, reports)
    said = [*sentences(study, rows), *power_sentences(rows)]
    body = f"{_table(rows, f'{name} %')}\n\n" + "\n".join(f"- {line}" for line in said)
    also, shown, trouble = _beside(out, study, reports)
    body += "".join(f"\n\n{_also(others, number)}" for number, others in also.items())
    body += "\n\n" + "\n".join(trouble) if trouble else ""
    write_text(out / "study.md", safe_page(_page(study, body, reports, unfinished, shown)))
    write_text(out / "study.csv", _csv(rows))
    runs = [{**_name(run), "value": float(report.value), "n": len(report.ids)} for run, report in reports.items()]
    content = {
        "study": study.facts(), "judgement": _judgement(reports), "runs": runs, "unfinished": dict(unfinished),
        "rows": _facts(rows), "also": {number: _facts(others) for number, others in also.items()},
    }  # fmt: skip
    write_json(out / "study.json", content)
    if any(row.value is not None for row in rows):
        draw_study(out / "study.png", study, rows, reports)
    if shown:
        draw_matrix(out / "matrix.png", study, shown)
    return body


def _beside(out: Path, study: Study, reports: Reports) -> tuple[dict[str, list[Row]], list[Measure], list[str]]:
    """Rows of other numbers, measures of the matrix, and a line for each that cannot be had: the table goes without."""
    also, shown, trouble = {}, [], []
    for number in study.also if reports else ():
        try:
            also[number] = compare_arms(study, reports, number)
        except UserError as error:
            trouble.append(f"- {number} is not shown: {error}")
    try:
        shown = measures(study, study.runs(out), out) if len(study.judged_by) > 1 else []
    except UserError as error:
        trouble.append(f"- no matrix: {error}")
    return also, shown, trouble


def _also(rows: Sequence[Row], number: str) -> str:
    """The table of another number: shares in per cent, anything else as it is."""
    meaning = meaning_of(number)
    less = ", less is better" if meaning.better == "less" else ""
    return _table(rows, f"{number}{' %' if meaning.share else ''}{less}", 100 if meaning.share else 1)


def _table(rows: Sequence[Row], title: str, scale: int = 100) -> str:
    drawn = any(row.draws is not None for row in rows)
    head = ["arm", "seeds", *["draws"] * drawn, "n", title, "difference", "95 % interval"]
    return table(head, [_cells(row, drawn, scale) for row in rows])


def _cells(row: Row, drawn: bool, scale: int) -> list[Any]:
    n = str(row.n[0]) if row.n[0] == row.n[1] else f"{row.n[0]} to {row.n[1]}"
    digits = 2 if scale == 100 else 4
    mean = "" if row.value is None else f"{scale * row.value:.{digits}f}"
    spread = "" if row.deviation is None else f" ± {scale * row.deviation:.{digits}f}"
    difference = "" if row.difference is None else f"{scale * row.difference:+.{digits}f}"
    ends = [f"{scale * end:+.{digits}f}" for end in (row.low, row.high) if end is not None]
    return [row.arm, row.seeds, *[row.draws] * drawn, n, mean + spread, difference, " to ".join(ends)]


def _facts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{**asdict(row), "verdict": row.verdict} for row in rows]


def _name(run: Run) -> dict[str, Any]:
    places = {"folder": str(run.folder), "report": run.judge.report}
    return {"arm": run.arm, "seed": run.seed, "draw": run.draw, **places}


def _judgement(reports: Reports) -> dict[str, Any]:
    """What identifies the numbers; the protocol of the first draw stands for all."""
    facts = next(iter(reports.values())).facts if reports else {}
    keys = ("evaluation", "main", "protocol", "kind", "split", "data", "data_fingerprint", "selection")
    return {key: facts[key] for key in keys if facts.get(key)}


def _page(
    study: Study, body: str, reports: Reports, unfinished: Mapping[str, str], shown: Sequence[Measure]
) -> str:  # fmt: skip
    how = method(study, reports)
    arms = [[arm, _settings(study.own(arm)) or "as the recipe"] for arm in study.arms]
    blocks = [
        f"# Study {study.name}",
        "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in _judgement(reports).items()),
        body,
        "![every run, and differences with intervals](study.png)" if reports else "",
        f"## Matrix\n\n![every measure of every arm](matrix.png)\n\n{matrix_table(study, shown)}" if shown else "",
        f"{how} Each interval stands by itself: of twenty arms that differ in nothing, one is expected to look as "
        "if it did. An interval that holds 0 shows no difference; it does not show that there is none.",
        f"## Arms\n\nRecipe {' + '.join(study.recipes)}; for all arms: {_settings(study.set) or 'nothing else'}.\n\n"
        + table(["arm", "settings"], arms),
        "## Not finished\n\n" + "\n".join(f"- {name}: {why}" for name, why in unfinished.items()) if unfinished else "",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}: {json.dumps(value)}`" for key, value in settings.items())


def _csv(rows: Sequence[Row]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seeds", "draws", "n", "value", "deviation", "difference", "low", "high", "verdict"])
    for row in rows:
        numbers = (row.value, row.deviation, row.difference, row.low, row.high)
        n = row.n[0] if row.n[0] == row.n[1] else f"{row.n[0]}-{row.n[1]}"
        writer.writerow(
            [row.arm, row.seeds, row.draws, n, *("" if v is None else f"{v:.6f}" for v in numbers), row.verdict]
        )
    return text.getvalue()


def draw_study(path: Path, study: Study, rows: Sequence[Row], reports: Reports) -> None:
    """Draw every run's value by arm, and beside it the differences to the baseline with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.2 + 0.5 * len(rows)), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for height, row in enumerate(rows):
        dots = [100 * report.value for run, report in reports.items() if run.arm == row.arm]
        left.plot(dots, [height] * len(dots), "o", color=GREY, alpha=0.6, markersize=5)
        if row.value is not None:
            left.plot([100 * row.value], [height], "|", color=BLUE, markersize=18, markeredgewidth=2.5)
        if row.difference is not None:
            right.plot([100 * row.difference], [height], "o", color=BLUE)
        if row.low is not None and row.high is not None:
            right.plot([100 * row.low, 100 * row.high], [height, height], color=BLUE, linewidth=2)
    right.axvline(0, color=GREY, linestyle="--", linewidth=1)
    left.set_yticks(range(len(rows)), [row.arm for row in rows], **as_written(*(row.arm for row in rows)))
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlabel(f"{name_of(study, reports)}, %: every run, and the mean")
    right.set_xlabel(f"difference to {study.baseline}, points, with 95 % interval", **as_written(study.baseline))
    for axes in (left, right):
        axes.grid(axis="x", color="#e4e4e4")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as temporary:
        save_figure(figure, temporary)
