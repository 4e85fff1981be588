"""A throw-away task with an adversary: what a stranger would write, one file and one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.common.precision import widen
from mmcl.tasks.base import Task
from mmcl.tasks.context import Context
from mmcl.tasks.stages import ParameterGroup, Stage, Update


@dataclass(frozen=True)
class AdversaryOptions:
    """Options of :class:`Adversary`.

    Attributes:
        every: steps between updates of the critic.
        weight: of the adversarial loss.
    """

    every: int = 3
    weight: float = 0.1


class Adversary(Task):
    """Features are noised and split in halves; a critic, due every third step, learns to tell true pairs from mixed."""

    options = AdversaryOptions
    own_rates = ("critic",)

    def __init__(self, context: Context, options: AdversaryOptions) -> None:
        super().__init__(context)
        self.settings = options
        width = self.encoder.feature_width
        self.critic = nn.Sequential(nn.Linear(width, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        features = self.encoder.features(self.augmented(batch))
        features = features + 0.1 * self.noise(batch, "features").normal(features.shape[1]).to(features)
        scores = widen(self.encoder.head(features))
        classes = F.cross_entropy(scores, batch["labels"])
        left, right = features.chunk(2, dim=1)
        fooled = self.fixed(self.critic, features).square().mean()
        loss = classes + self.settings.weight * fooled
        parts = {"loss_classes": classes.detach(), "loss_fooled": fooled.detach()}
        if "critic" in batch["due"]:
            order = self.dice(batch, "mixing").order(left.shape[1]).to(left.device)
            pairs = torch.cat([features, torch.cat([left, right[:, order]], dim=1)]).detach()
            truth = torch.cat([torch.ones(len(left)), torch.zeros(len(left))]).to(pairs)
            judged = F.binary_cross_entropy_with_logits(widen(self.critic(pairs))[:, 0], truth)
            loss, parts["loss_critic"] = loss + judged, judged.detach()
        else:
            loss = loss + self.idle(self.critic)
        return {"loss": loss, **parts, "scores": scores}

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        return [
            ParameterGroup("encoder", list(self.encoder.parameters())),
            ParameterGroup("critic", list(self.critic.parameters()), Update("adam", 1e-3), every=self.settings.every),
        ]
