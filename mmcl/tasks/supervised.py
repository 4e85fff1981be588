"""Skeletons alone: the encoder and cross-entropy. The baseline that co-learning must beat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.tasks.adversarial import AdversarialOptions, attacked, build_adversary
from mmcl.tasks.base import Task
from mmcl.tasks.context import Context
from mmcl.tasks.levels import head_parameters, level_groups, without_decay_of_rows
from mmcl.tasks.stages import ParameterGroup, Stage


@dataclass(frozen=True)
class SupervisedOptions:
    """Options of skeleton-only training.

    Attributes:
        label_smoothing: share of the target spread over all classes.
        layer_decay: factor on the learning rate from one level of the encoder to the one before, for fine-tuning
            (MAMP: 0.8); 1 trains all of it at one rate.
        adversarial: attacks on some clips of every batch, as a defence.
        released: as MAMP's released fine-tuning: biases, norms and other tensors of one dimension have no weight decay.
    """

    label_smoothing: float = 0.0
    layer_decay: float = 1.0
    adversarial: AdversarialOptions = field(default_factory=AdversarialOptions)
    released: bool = False


def check_smoothing(value: float) -> float:
    """Return the value if it is a share.

    Raises:
        UserError: it is not in [0, 1).
    """
    if not 0.0 <= value < 1.0:
        raise UserError(f"task.label_smoothing is {value}: it must be in [0, 1)")
    return value


class Supervised(Task):
    """Cross-entropy on the encoder's scores; where it has members, the mean over the scores of each."""

    options = SupervisedOptions

    def __init__(self, context: Context, options: SupervisedOptions) -> None:
        super().__init__(context)
        self.label_smoothing = check_smoothing(options.label_smoothing)
        if not 0.0 < options.layer_decay <= 1.0:
            raise UserError(f"task.layer_decay is {options.layer_decay}: it must be in (0, 1]")
        self.layer_decay, self.released = options.layer_decay, options.released
        self.adversary, self.attacked_share = build_adversary(options.adversarial), options.adversarial.share

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``loss``, ``loss_classes`` and ``scores`` (N, K)."""
        if self.adversary is not None and self.training:
            batch = attacked(self, self.adversary, self.attacked_share, batch)
        scores = self.encoder.member_scores(self.augmented(batch))
        labels = batch["labels"].repeat(len(scores))
        loss = F.cross_entropy(widen(scores.flatten(0, 1)), labels, label_smoothing=self.label_smoothing)
        return {"loss": loss, "loss_classes": loss.detach(), "scores": scores.mean(dim=0)}

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        """One group, the encoder; or its levels and the classifier, each level at its own rate."""
        groups = [ParameterGroup("encoder", list(self.encoder.parameters()))]
        if self.layer_decay != 1.0:
            levels = level_groups(self.encoder, self.layer_decay)
            groups = [*levels, ParameterGroup("classifier", head_parameters(self.encoder))]
        return without_decay_of_rows(groups) if self.released else groups
