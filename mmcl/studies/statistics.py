"""What the runs of a study say about its arms: means, deviations, and intervals of the difference to the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.evaluation.compare import corrected_interval, paired_bootstrap
from mmcl.evaluation.directions import Better, meaning_of
from mmcl.evaluation.reporting.saved import SavedReport, check_same_clips, read_report
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


def judge_alike(reports: Iterable[SavedReport]) -> bool:
    """Whether all of them judge the same clips. If those of all draws do, only what is learned from was drawn."""
    first, *others = reports
    return all(report.ids == first.ids for report in others)


@dataclass(frozen=True)
class Judged:
    """A report and the number of it that is compared.

    Attributes:
        report: of a run.
        value: the number.
        by_clip: whether it is the share of clips that were answered right.
    """

    report: SavedReport
    value: float
    by_clip: bool

    @property
    def correct(self) -> np.ndarray | None:
        """(n,) bool, where the number is their mean."""
        return self.report.answers if self.by_clip else None


Values = Mapping[Run, Judged]


def _row(study: Study, arm: str, values: Values) -> Row:
    own = {run: judged for run, judged in values.items() if run.arm == arm}
    if not own:
        return Row(arm, 0, None if study.draws is None else 0, (0, 0), None, None, None, None, None)
    counts = [len(judged.report.ids) for judged in own.values()]
    drawn, by_draw = study.draws is not None, _value_by_draw(own)
    spread = list(by_draw.values()) if drawn else [judged.value for judged in own.values()]
    difference = low = high = None
    paired: tuple[float, ...] = ()
    base = {run: judged for run, judged in values.items() if run.arm == study.baseline}
    matched = not drawn and arm != study.baseline and study.seeds_pair(arm)
    if base and arm != study.baseline:
        over = _over_draws if drawn else _over_seeds if matched else _over_clips
        difference, low, high = over(own, base)
        paired = () if drawn else _paired(own, base)
    return Row(
        arm, len({run.seed for run in own}), len(by_draw) if drawn else None, (min(counts), max(counts)),
        float(np.mean(spread)), float(np.std(spread, ddof=1)) if len(spread) > 1 else None, difference, low, high,
        paired, matched,
    )  # fmt: skip


def _paired(own: Values, base: Values) -> tuple[float, ...]:
    """Differences of the seeds that both arms were finished with, by seed."""
    sides = [{run.seed: judged.value for run, judged in side.items()} for side in (own, base)]
    return tuple(sides[0][seed] - sides[1][seed] for seed in sorted(sides[0].keys() & sides[1].keys()))


def _value_by_draw(values: Values) -> dict[int | None, float]:
    """Draw -> value, the mean over its seeds."""
    draws = sorted({run.draw for run in values}, key=lambda draw: draw or 0)
    return {
        draw: float(np.mean([judged.value for run, judged in values.items() if run.draw == draw])) for draw in draws
    }


def _over_clips(own: Values, base: Values) -> tuple[float, float | None, float | None]:
    """Difference and interval on a fixed test set.

    A paired bootstrap over clips and seeds where every clip is right or wrong; else Welch's interval over seeds alone.
    """
    sides = [[judged.correct for judged in side.values() if judged.correct is not None] for side in (own, base)]
    if len(sides[0]) == len(own) and len(sides[1]) == len(base):
        return paired_bootstrap(np.stack(sides[0]), np.stack(sides[1]))
    return seeds_interval(*(np.array([judged.value for judged in side.values()]) for side in (own, base)))


def _over_seeds(own: Values, base: Values) -> tuple[float | None, float | None, float | None]:
    """Difference and interval over the seeds that both arms have, where runs of one seed share clips or a beginning.

    A bootstrap over clips and seeds, both arms of a seed together, so that what they share cancels; or, where no clip
    is right or wrong, a paired t interval over seeds.
    """
    sides = [{run.seed: judged for run, judged in side.items()} for side in (own, base)]
    pairs = [(sides[0][seed], sides[1][seed]) for seed in sorted(sides[0].keys() & sides[1].keys())]
    if not pairs:
        return None, None, None
    correct = [(one.correct, other.correct) for one, other in pairs]
    known = [(one, other) for one, other in correct if one is not None and other is not None]
    if len(known) < len(pairs):
        return corrected_interval(np.array([one.value - other.value for one, other in pairs]), 0.0)
    return paired_bootstrap(np.stack([one for one, _ in known]), np.stack([other for _, other in known]), matched=True)


def seeds_interval(own: np.ndarray, base: np.ndarray) -> tuple[float, float | None, float | None]:
    """Difference of two means over seeds with a 95 % interval (Welch's t); none where a side has a single seed."""
    difference = float(own.mean() - base.mean())
    if min(len(own), len(base)) < 2:
        return difference, None, None
    from scipy.stats import ttest_ind

    low, high = ttest_ind(own, base, equal_var=False).confidence_interval()
    return difference, float(low), float(high)


def _over_draws(own: Values, base: Values) -> tuple[float | None, float | None, float | None]:
    """Difference and interval over the draws that both arms have; no interval from a single one.

    Draws that judge the same clips are compared on them: by a bootstrap over clips and draws, both arms of a draw
    together, or, where no clip is right or wrong, by a paired t interval over draws.
    """
    sides = _value_by_draw(own), _value_by_draw(base)
    shared = [draw for draw in sides[0] if draw in sides[1]]
    if not shared:
        return None, None, None
    differences = np.array([sides[0][draw] - sides[1][draw] for draw in shared])
    both = [*own.values(), *base.values()]
    if len(shared) > 1 and judge_alike(judged.report for judged in both):
        if any(judged.correct is None for judged in both):
            return corrected_interval(differences, 0.0)
        return paired_bootstrap(_right_by_draw(own, shared), _right_by_draw(base, shared), matched=True)
    tested = np.mean([len(judged.report.ids) for judged in own.values()])
    return corrected_interval(differences, float(tested / np.mean([_trained(run) for run in own])))


def _trained(run: Run) -> int:
    """Clips of the training side of a run.

    Raises:
        UserError: its summary does not say.
    """
    file = run.folder / "summary.json"
    facts = read_json(file)
    clips = facts.get("clips") if isinstance(facts, dict) else None
    count = clips.get("training_side", clips.get("train")) if isinstance(clips, dict) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UserError(f"{file}: it does not say how many clips the run trained on; train it again")
    return count


def _right_by_draw(values: Values, draws: list[int | None]) -> np.ndarray:
    """(draws, n) in which share of a draw's seeds each clip was answered right."""
    rows = [[judged.correct for run, judged in values.items() if run.draw == draw] for draw in draws]
    return np.stack([np.mean(np.stack([one for one in row if one is not None]), axis=0) for row in rows])
