"""What the runs of a study say about its arms: means, deviations, and intervals of the difference to the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mmcl.common.errors import UserError
from mmcl.evaluation.directions import Better, meaning_of
from mmcl.evaluation.reporting.same_clips import check_same_clips
from mmcl.evaluation.reporting.saved import SavedReport, read_report
from mmcl.studies.differences import Judged, Values, over_clips, over_draws, over_seeds, seed_differences, value_by_draw
from mmcl.studies.grid import Study
from mmcl.studies.run import Run

Reports = Mapping[Run, SavedReport]


@dataclass(frozen=True)
class Row:
    """One arm. Values, differences and deviations are in the number's own unit; None where there is nothing to know.

    Attributes:
        arm: its name.
        seeds: how many it was finished with.
        draws: of the protocol, at least one seed finished; None where the protocol is not random.
        n: clips judged by one run, the fewest and the most.
        value: mean of the number that the runs are judged by.
        deviation: over draws (of their means over seeds) where there are some, else over seeds; n - 1 below.
        difference: to the baseline arm.
        low, high: its 95 % interval.
        paired: the difference of each seed that both arms were finished with; empty where the protocol is random.
        matched: whether the interval is of those pairs alone, since runs of a seed share clips or a beginning.
        compared: seeds, or draws, that the difference is of; of seeds that do not belong together, those of the side
            that has fewer.
        better: whether more or less of the number is better; empty where nobody can say.
    """

    arm: str
    seeds: int
    draws: int | None
    n: tuple[int, int]
    value: float | None
    deviation: float | None
    difference: float | None
    low: float | None
    high: float | None
    paired: tuple[float, ...] = ()
    matched: bool = False
    compared: int = 0
    better: Better = "more"

    @property
    def verdict(self) -> str:
        """better, worse, or no difference shown; empty where nothing was compared, or nobody can say what is better."""
        if self.low is None or self.high is None or not self.better:
            return ""
        if self.low <= 0 <= self.high:
            return "no difference shown"
        return "better" if (self.low > 0) == (self.better == "more") else "worse"


def read_reports(runs: Iterable[Run]) -> dict[Run, SavedReport]:
    """Reports of the runs that are finished.

    Raises:
        UserError: a report is damaged, or runs of one draw did not judge the same clips of the same data.
    """
    found = {run: read_report(run.report) for run in runs if not run.commands}
    mains = {report.main: report for report in found.values()}
    if len(mains) > 1:
        one, other, *_ = mains.values()
        raise UserError(
            f"{one.path} is judged by {one.main} and {other.path} by {other.main}: evaluate one of them again"
        )
    for draw in {run.draw for run in found}:
        check_same_clips([report for run, report in found.items() if run.draw == draw])
    return found


def compare_arms(study: Study, reports: Reports, number: str = "") -> list[Row]:
    """One row an arm, in the study's order, with its difference to the first.

    Args:
        study: what was asked for.
        reports: of the finished runs.
        number: which one of the reports is compared, as :meth:`~mmcl.evaluation.reporting.saved.SavedReport.number`
            finds it; the one that the runs are judged by where it is empty. Reports in which it is null are left out.

    Raises:
        UserError: a report has no such number.
    """
    values = {run: report.number(number or report.main) for run, report in reports.items()}
    known = {run: Judged(reports[run], value, not number) for run, value in values.items() if value is not None}
    better: Better = meaning_of(number).better if number else "more"
    return [replace(_row(study, arm, known), better=better) for arm in study.arms]


def _row(study: Study, arm: str, values: Values) -> Row:
    own = {run: judged for run, judged in values.items() if run.arm == arm}
    if not own:
        return Row(arm, 0, None if study.draws is None else 0, (0, 0), None, None, None, None, None)
    counts = [len(judged.report.ids) for judged in own.values()]
    drawn, by_draw = study.draws is not None, value_by_draw(own)
    spread = list(by_draw.values()) if drawn else [judged.value for judged in own.values()]
    difference, low, high, compared = None, None, None, 0
    paired: tuple[float, ...] = ()
    base = {run: judged for run, judged in values.items() if run.arm == study.baseline}
    matched = not drawn and arm != study.baseline and study.seeds_pair(arm)
    if base and arm != study.baseline:
        over = over_draws if drawn else over_seeds if matched else over_clips
        difference, low, high = over(own, base)
        paired = () if drawn else seed_differences(own, base)
        compared = len(by_draw.keys() & value_by_draw(base)) if drawn else len(paired)
        compared = compared if drawn or matched else min(len(own), len(base))
    return Row(
        arm, len({run.seed for run in own}), len(by_draw) if drawn else None, (min(counts), max(counts)),
        float(np.mean(spread)), float(np.std(spread, ddof=1)) if len(spread) > 1 else None, difference, low, high,
        paired, matched, compared,
    )  # fmt: skip
