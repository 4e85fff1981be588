"""Few labels: fine-tuning on a part of the training clips, several draws of it, against training from scratch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.compare import corrected_interval
from mmcl.evaluation.finetune import ARMS, Amount, FinetuneOptions, gain, raw_floors, tune
from mmcl.evaluation.readouts import probe_sides
from mmcl.models.model import Model


@dataclass(frozen=True)
class SemiOptions:
    """Options of :class:`Semi`; the defaults are MAMP's and STARS' protocol.

    Attributes:
        shares: of the training clips that have labels, whatever their classes; one result each.
        shots: in place of shares, clips of each class that have labels.
        repeats: draws of these clips, each trained with a seed of its own.
        training: as in ``finetune``; its seed is that of the first draw.
    """

    shares: tuple[float, ...] = (0.01, 0.1)
    shots: tuple[int, ...] = ()
    repeats: int = 5
    training: FinetuneOptions = field(default_factory=FinetuneOptions)

    def __post_init__(self) -> None:
        if not all(0 < share <= 1 for share in self.shares) or not (self.shares or self.shots):
            raise UserError(f"semi.shares is {list(self.shares)}: they must be in (0, 1]")
        if not all(shots >= 1 for shots in self.shots):
            raise UserError(f"semi.shots is {list(self.shots)}: they must be at least 1")
        if self.repeats < 1:
            raise UserError(f"semi.repeats is {self.repeats}: it must be at least 1")

    @property
    def amounts(self) -> list[list[Amount]]:
        """For every result, the clips of its repeats."""
        seeds = range(self.training.seed, self.training.seed + self.repeats)
        if self.shots:
            return [[Amount(shots=shots, seed=seed) for seed in seeds] for shots in self.shots]
        return [[Amount(share=share, seed=seed) for seed in seeds] for share in self.shares]


class Semi(Evaluation):
    """Means over draws, and the gain over training from scratch on the same clips.

    The gain has two 95 % intervals. ``gain``: by a bootstrap over test clips and over the runs of either side, so that
    it covers the choice of test clips, and errs on the wide side. ``gain, draws paired``: of the differences of single
    draws, both sides of which had the same labelled clips and the same seed, so that which clips these were cancels.
    """

    options_type: ClassVar[type] = SemiOptions
    learns: ClassVar[bool] = True

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """``semi_top1``, the mean of the first amount; all amounts under ``top1_by_readout``.

        Raises:
            UserError: as of :class:`~mmcl.evaluation.finetune.Finetune`.
        """
        sides, options = probe_sides(data), self.options
        table = {amounts[0].words: self._amount(model, data, apply, amounts) for amounts in options.amounts}
        first = next(iter(table.values()))
        metrics: dict[str, Any] = {
            "semi_top1": first[ARMS[0]], "deviation": first["deviation"], "n": len(sides.queries),
            "top1_by_readout": table,
        }  # fmt: skip
        facts = {"kind": f"fine-tuning on a part of {len(sides.bank)} training clips, {options.repeats} draws, whose "
                 "mean and deviation are given"}  # fmt: skip
        return Verdict(metrics, "semi_top1", data.ids(sides.queries), None, {"labels": sides.labels}, facts)

    def _amount(self, model: Model, data: Selection, apply: Apply, amounts: list[Amount]) -> dict[str, Any]:
        runs = [
            tune(model, data, apply, replace(self.options.training, seed=amount.seed), amount) for amount in amounts
        ]
        raw = [raw_floors(model, probe_sides(amount.subset(data)), apply) for amount in amounts]
        found: dict[str, Any] = {arm: float(np.mean([run[arm] for run in runs])) for arm in runs[0]}
        tuned = [float(run[ARMS[0]].mean()) for run in runs]
        found["deviation"] = float(np.std(tuned, ddof=1)) if len(tuned) > 1 else None
        if ARMS[1] in runs[0]:
            own, base = (np.stack([run[arm] for run in runs]) for arm in ARMS)
            found["gain"] = gain(own, base)
            found["gain, draws paired"] = gain_by_draw(own.mean(axis=1) - base.mean(axis=1))
        return found | {name: float(np.mean([each[name] for each in raw])) for name in raw[0]}


def gain_by_draw(differences: np.ndarray) -> dict[str, Any]:
    """Mean of the differences (runs,) of draws, its paired t interval where there are several, and each of them."""
    mean, low, high = corrected_interval(differences, 0.0)
    ends = {} if low is None else {"low": low, "high": high}
    return {"difference": mean, **ends, "by_draw": [float(each) for each in differences]}
