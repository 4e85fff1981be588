"""What the runs of a study say about its arms: means, deviations, and intervals of the difference to the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mmcl.common.documents import read_json
from mmcl.evaluation.compare import corrected_interval, paired_bootstrap
from mmcl.evaluation.reporting.saved import SavedReport, check_same_clips, read_report
from mmcl.studies.grid import Run, Study

Reports = Mapping[Run, SavedReport]


@dataclass(frozen=True)
class Row:
    """One arm. Values, differences and deviations are fractions of 1; None where there is nothing to know.

    Attributes:
        arm: its name.
        seeds: how many it was finished with.
        draws: of the protocol, at least one seed finished; None where the protocol is not random.
        n: clips judged by one run, the fewest and the most.
        value: mean of the number that the runs are judged by, of which more is better.
        deviation: over draws (of their means over seeds) where there are some, else over seeds; n - 1 below.
        difference: to the baseline arm.
        low, high: its 95 % interval.
        paired: the difference of each seed that both arms were finished with; empty where the protocol is random.
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

    @property
    def verdict(self) -> str:
        """better, worse, or no difference shown; empty where nothing was compared."""
        if self.low is None or self.high is None:
            return ""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference shown"


def read_reports(runs: Iterable[Run]) -> dict[Run, SavedReport]:
    """Reports of the runs that are finished.

    Raises:
        UserError: a report is damaged, or runs of one draw did not judge the same clips of the same data.
    """
    found = {run: read_report(run.report) for run in runs if not run.commands}
    for draw in {run.draw for run in found}:
        check_same_clips([report for run, report in found.items() if run.draw == draw])
    return found


def compare_arms(study: Study, reports: Reports) -> list[Row]:
    """One row an arm, in the study's order, with its difference to the first."""
    return [_row(study, arm, reports) for arm in study.arms]


def _row(study: Study, arm: str, reports: Reports) -> Row:
    own = {run: report for run, report in reports.items() if run.arm == arm}
    if not own:
        return Row(arm, 0, None if study.draws is None else 0, (0, 0), None, None, None, None, None)
    counts = [len(report.ids) for report in own.values()]
    drawn, values = study.draws is not None, [report.value for report in own.values()]
    by_draw = _value_by_draw(own)
    spread = list(by_draw.values()) if drawn else values
    difference = low = high = None
    paired: tuple[float, ...] = ()
    base = {run: report for run, report in reports.items() if run.arm == study.baseline}
    if base and arm != study.baseline:
        difference, low, high = (_over_draws if drawn else _over_clips)(own, base)
        paired = () if drawn else _paired(own, base)
    return Row(
        arm, len({run.seed for run in own}), len(by_draw) if drawn else None, (min(counts), max(counts)),
        float(np.mean(spread)), float(np.std(spread, ddof=1)) if len(spread) > 1 else None, difference, low, high,
        paired,
    )  # fmt: skip


def _paired(own: Reports, base: Reports) -> tuple[float, ...]:
    """Differences of the seeds that both arms were finished with, by seed."""
    sides = [{run.seed: report.value for run, report in side.items()} for side in (own, base)]
    return tuple(sides[0][seed] - sides[1][seed] for seed in sorted(sides[0].keys() & sides[1].keys()))


def _value_by_draw(reports: Reports) -> dict[int | None, float]:
    """Draw -> value, the mean over its seeds."""
    draws = sorted({run.draw for run in reports}, key=lambda draw: draw or 0)
    return {
        draw: float(np.mean([report.value for run, report in reports.items() if run.draw == draw])) for draw in draws
    }


def _over_clips(own: Reports, base: Reports) -> tuple[float, float | None, float | None]:
    """Difference and interval on a fixed test set.

    A paired bootstrap over clips and seeds where every clip is right or wrong; else Welch's interval over seeds alone.
    """
    sides = [[report.correct for report in side.values() if report.correct is not None] for side in (own, base)]
    if len(sides[0]) == len(own) and len(sides[1]) == len(base):
        return paired_bootstrap(np.stack(sides[0]), np.stack(sides[1]))
    return seeds_interval(*(np.array([report.value for report in side.values()]) for side in (own, base)))


def seeds_interval(own: np.ndarray, base: np.ndarray) -> tuple[float, float | None, float | None]:
    """Difference of two means over seeds with a 95 % interval (Welch's t); none where a side has a single seed."""
    difference = float(own.mean() - base.mean())
    if min(len(own), len(base)) < 2:
        return difference, None, None
    from scipy.stats import ttest_ind

    low, high = ttest_ind(own, base, equal_var=False).confidence_interval()
    return difference, float(low), float(high)


def _over_draws(own: Reports, base: Reports) -> tuple[float | None, float | None, float | None]:
    """Difference and interval over the draws that both arms have; no interval from a single one."""
    sides = _value_by_draw(own), _value_by_draw(base)
    shared = [draw for draw in sides[0] if draw in sides[1]]
    if not shared:
        return None, None, None
    differences = np.array([sides[0][draw] - sides[1][draw] for draw in shared])
    judged = np.mean([len(report.ids) for report in own.values()])
    clips = [read_json(run.folder / "summary.json")["clips"] for run in own]
    trained = np.mean([counts.get("training_side", counts["train"]) for counts in clips])
    return corrected_interval(differences, float(judged / trained))
