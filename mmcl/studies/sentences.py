"""A study in plain words: what each arm's difference means, and how deviations and intervals were come by."""

from __future__ import annotations

from collections.abc import Sequence

from mmcl.studies.differences import judge_alike
from mmcl.studies.grid import Study
from mmcl.studies.statistics import Reports, Row


def sentences(study: Study, rows: Sequence[Row]) -> list[str]:
    """What each arm's difference to the baseline means, in plain words."""
    lines = []
    for row in rows[1:]:
        if row.value is None:
            lines.append(f"{row.arm}: no finished run yet.")
        elif row.difference is None:
            why = "has no finished run yet" if rows[0].value is None else f"has no {_unit(study)} in common with it yet"
            lines.append(f"{row.arm}: nothing to compare it with, {study.baseline} {why}.")
        elif row.low is None:
            few = f" on one {_unit(study)}: no interval"
            if row.compared > 1:
                few = f": no interval, since every {_unit(study)} gave the same difference"
            lines.append(f"{row.arm}: {_points(row.difference)} points to {study.baseline}{few}.")
        else:
            lines.append(
                f"{row.arm}: {row.verdict}, {_points(row.difference)} points against {study.baseline}, 95 % interval "
                f"{_interval(row)}."
            )
    return lines


def name_of(study: Study, reports: Reports) -> str:
    """Of the number that the runs are judged by."""
    main = next((report.main for report in reports.values()), next(iter(study.judged_by)))
    return "top-1" if main == "top1" else main.replace("_", " ")


def method(study: Study, reports: Reports) -> str:
    """How deviations and intervals were come by."""
    others = [arm for arm in study.arms if arm != study.baseline] if study.draws is None else []
    if matched := [arm for arm in others if study.seeds_pair(arm)]:
        rest = [arm for arm in others if arm not in matched]
        which = f" of {study.baseline} and {', '.join(matched)}" if rest else ""
        alone = f" {', '.join(rest)}: the seeds of each side are drawn by themselves." if rest else ""
        return (
            f"± is the deviation over seeds. Runs of one seed{which} learn from the same clips, or start from what was "
            "made with that seed. Intervals: bootstrap over clips and seeds, both arms of a seed together, 10,000 "
            f"resamples; where a number is no share of clips, paired t over seeds.{alone} A few seeds say little of "
            "how much seeds matter, so that the true ones are wider."
        )
    if study.draws is None:
        return (
            "± is the deviation over seeds. Intervals: paired bootstrap over clips and seeds, 10,000 resamples; two "
            "or three seeds say little of how much seeds matter, so that the true ones are wider."
        )
    if reports and judge_alike(reports.values()):
        return (
            "± is the deviation over draws, which all judge the same clips. Intervals: bootstrap over clips and draws, "
            "both arms of a draw together, 10,000 resamples; where a number is no share of clips, paired t over draws, "
            "which says nothing of other clips. A few draws say little of how much draws matter."
        )
    return (
        "± is the deviation over draws. Intervals: corrected resampled t (Nadeau and Bengio 2003), since random halves "
        "of one data set are not independent."
    )


def _unit(study: Study) -> str:
    """What the runs of two arms have in common."""
    return "seed" if study.draws is None else "draw"


def _points(value: float) -> str:
    return f"{100 * value:+.2f}"


def _interval(row: Row) -> str:
    return "" if row.low is None or row.high is None else f"{_points(row.low)} to {_points(row.high)}"
