"""The difference of two arms of a study with its interval: over clips, over seeds that they share, or over draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.evaluation.compare import ROUNDING, corrected_interval, paired_bootstrap
from mmcl.evaluation.reporting.saved import SavedReport
from mmcl.studies.run import Run


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


def judge_alike(reports: Iterable[SavedReport]) -> bool:
    """Whether all of them judge the same clips. If those of all draws do, only what is learned from was drawn."""
    first, *others = reports
    return all(report.ids == first.ids for report in others)


def seed_differences(own: Values, base: Values) -> tuple[float, ...]:
    """Differences of the seeds that both arms were finished with, by seed."""
    sides = [{run.seed: judged.value for run, judged in side.items()} for side in (own, base)]
    return tuple(sides[0][seed] - sides[1][seed] for seed in sorted(sides[0].keys() & sides[1].keys()))


def value_by_draw(values: Values) -> dict[int | None, float]:
    """Draw -> value, the mean over its seeds."""
    draws = sorted({run.draw for run in values}, key=lambda draw: draw or 0)
    return {
        draw: float(np.mean([judged.value for run, judged in values.items() if run.draw == draw])) for draw in draws
    }


def over_clips(own: Values, base: Values) -> tuple[float, float | None, float | None]:
    """Difference and interval on a fixed test set.

    A paired bootstrap over clips and seeds where every clip is right or wrong; else Welch's interval over seeds alone.
    """
    sides = [[judged.correct for judged in side.values() if judged.correct is not None] for side in (own, base)]
    if len(sides[0]) == len(own) and len(sides[1]) == len(base):
        return paired_bootstrap(np.stack(sides[0]), np.stack(sides[1]))
    return seeds_interval(*(np.array([judged.value for judged in side.values()]) for side in (own, base)))


def over_seeds(own: Values, base: Values) -> tuple[float | None, float | None, float | None]:
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
    """Difference of two means over seeds with a 95 % interval (Welch's t).

    There is none where a side has a single seed, nor where the seeds of both sides give the same: that tells nothing of
    how much seeds matter.
    """
    difference, sides = float(own.mean() - base.mean()), (own, base)
    if min(map(len, sides)) < 2 or max(side.std(ddof=1) for side in sides) < ROUNDING:
        return difference, None, None
    from scipy.stats import t

    parts = [float(side.var(ddof=1)) / len(side) for side in sides]  # of the variance of the difference
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
    half = float(t.ppf(0.975, freedom)) * sum(parts) ** 0.5
    return difference, difference - half, difference + half


def over_draws(own: Values, base: Values) -> tuple[float | None, float | None, float | None]:
    """Difference and interval over the draws that both arms have; no interval from a single one.

    Draws that judge the same clips are compared on them: by a bootstrap over clips and draws, both arms of a draw
    together, or, where no clip is right or wrong, by a paired t interval over draws.
    """
    sides = value_by_draw(own), value_by_draw(base)
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
