"""Skeletons alone: the encoder and cross-entropy. The baseline that co-learning must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.tasks.base import Context, Task
from mmcl.tasks.stages import ParameterGroup, Stage


@dataclass(frozen=True)
class SupervisedOptions:
    """Options of skeleton-only training.

    Attributes:
        label_smoothing: share of the target spread over all classes.
    """

    label_smoothing: float = 0.0


def check_smoothing(value: float) -> float:
    """Return the value if it is a share.

    Raises:
        UserError: it is not in [0, 1).
    """
    if not 0.0 <= value < 1.0:
        raise UserError(f"task.label_smoothing is {value}: it must be in [0, 1)")
    return value


class Supervised(Task):
    """Cross-entropy on the encoder's scores."""

    options = SupervisedOptions

    def __init__(self, context: Context, options: SupervisedOptions) -> None:
        super().__init__(context)
        self.label_smoothing = check_smoothing(options.label_smoothing)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``loss``, ``loss_classes`` and ``scores`` (N, K)."""
        scores = self.encoder(self.augmented(batch))
        loss = F.cross_entropy(widen(scores), batch["labels"], label_smoothing=self.label_smoothing)
        return {"loss": loss, "loss_classes": loss.detach(), "scores": scores.detach()}

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        """One group: the encoder."""
        return [ParameterGroup("encoder", list(self.encoder.parameters()))]
