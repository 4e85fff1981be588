"""The linear probe: how well classes can be told apart by planes in the space of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.readouts import Sides, floors, probe_sides, readouts, rows_of
from mmcl.models.model import Model
from mmcl.tasks.stages import ScheduleOptions, schedule_factor

NORM_EPS = 1e-6  # of the batch norm, as in MAMP's and MAE's probes


@dataclass(frozen=True)
class LinearOptions:
    """Options of :class:`Linear`; the defaults are MAMP's and STARS' schedule.

    Attributes:
        epochs: passes over the training rows.
        rate: peak learning rate, which falls to 0 along a cosine.
        momentum: of SGD, which has no weight decay here.
        batch: rows of a step.
        seed: of the first weights, the order of rows, and the random encoder.
    """

    epochs: int = 100
    rate: float = 0.1
    momentum: float = 0.9
    batch: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (("epochs", self.epochs >= 1, "at least 1"), ("rate", self.rate > 0, "positive"),
                  ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
                  ("batch", self.batch >= 2, "at least 2"))  # fmt: skip
        for key, good, wanted in checks:
            if not good:
                raise UserError(f"linear.{key} is {getattr(self, key)}: it must be {wanted}")


class Linear(Evaluation):
    """A batch norm without scale and shift, then a linear layer, on rows that stay as they are.

    Rows are computed once, without augmentation; MAMP crops and turns clips anew in every epoch.
    """

    options_type: ClassVar[type] = LinearOptions
    learns: ClassVar[bool] = True

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """``linear_top1`` of the features; all readouts and floors under ``top1_by_readout``."""
        options, sides = self.options, probe_sides(data)
        if len(sides.bank) < 2:
            raise UserError(f"a linear probe takes two training clips or more: {data.protocol} has one here")
        table: dict[str, float] = {}
        answers: dict[str, np.ndarray] = {}
        for name, bank, queries in rows_of({**readouts(model), **floors(model, options.seed)}, sides, apply):
            scores = probe(bank, queries, sides, options, model.device)
            answers[name] = scores.argmax(axis=1)
            table[name] = float((answers[name] == sides.labels).mean())
        correct = answers["features"] == sides.labels
        facts = {"kind": f"linear probe: batch norm and linear layer, SGD, {options.epochs} epochs at {options.rate:g} "
                 f"falling to 0, batches of {options.batch}, on {len(sides.bank)} training clips"}  # fmt: skip
        metrics: dict[str, Any] = {"linear_top1": float(correct.mean()), "n": len(correct), "top1_by_readout": table}
        arrays = {"labels": sides.labels, "predicted": answers["features"]}
        return Verdict(metrics, "linear_top1", data.ids(sides.queries), correct, arrays, facts)


def probe(
    bank: np.ndarray, queries: np.ndarray, sides: Sides, options: LinearOptions, device: torch.device
) -> np.ndarray:
    """Train a probe on rows of the bank, and score the queries: (n, K)."""
    rows, labels = torch.from_numpy(bank).to(device), torch.from_numpy(sides.bank_labels).to(device)
    head = train_probe(rows, labels, len(sides.names), options)
    with torch.no_grad():
        scores: np.ndarray = head.eval()(torch.from_numpy(queries).to(device)).cpu().numpy()
    return scores


def train_probe(rows: Tensor, labels: Tensor, classes: int, options: LinearOptions) -> nn.Sequential:
    """Fit a batch norm and a linear layer to rows (n, D) and labels (n,); n is at least 2."""
    draws = torch.Generator().manual_seed(options.seed)
    linear = nn.Linear(rows.shape[1], classes)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(linear.weight.shape, generator=draws) * 0.01)
        linear.bias.zero_()
    head = nn.Sequential(nn.BatchNorm1d(rows.shape[1], eps=NORM_EPS, affine=False), linear).to(rows.device)
    optimiser = torch.optim.SGD(head.parameters(), options.rate, options.momentum)
    size = min(options.batch, len(rows))
    steps = len(rows) // size
    factor = schedule_factor(ScheduleOptions("cosine", options.epochs, warmup_epochs=0), steps)
    for epoch in range(options.epochs):
        order = torch.randperm(len(rows), generator=draws).to(rows.device)
        for number, part in enumerate(order[: steps * size].split(size)):
            optimiser.param_groups[0]["lr"] = options.rate * factor(epoch * steps + number)
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(head(rows[part]), labels[part]).backward()
            optimiser.step()
    return head
