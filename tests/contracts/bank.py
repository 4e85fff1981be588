"""A throw-away task with two stages, a queue and a bank: what a stranger would write, one file and one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.common.distributed import gather_rows
from mmcl.common.precision import widen
from mmcl.tasks.base import Apply, Task
from mmcl.tasks.context import Context
from mmcl.tasks.stages import ParameterGroup, ScheduleOptions, Stage, Update


@dataclass(frozen=True)
class BankOptions:
    """Options of :class:`Bank`.

    Attributes:
        queue: rows that are remembered.
        clip: largest norm of the gradient of each of the encoder's later tensors; 0 does not clip.
    """

    queue: int = 16
    clip: float = 0.5


class Bank(Task):
    """Two stages: contrast with a queue, filled after each step; then the head alone, with a bank of class means.

    The bank is filled anew at the end of each stage. The second stage begins by adding noise to it: done twice, that
    would show.
    """

    options = BankOptions
    queue: Tensor
    place: Tensor
    bank: Tensor

    def __init__(self, context: Context, options: BankOptions) -> None:
        super().__init__(context)
        self.settings = options
        width = self.encoder.feature_width
        self.project = nn.Sequential(nn.Linear(width, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
        self.clips, self.labels = context.training_clips, context.store.labels
        self.register_buffer("queue", torch.randn(options.queue, 8, generator=self.generator("queue")))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))
        self.register_buffer("bank", torch.zeros(len(context.classes), width))

    def stages(self) -> list[Stage]:
        quick = ScheduleOptions("cosine", epochs=2, warmup_epochs=0)
        first = self.clips[: 2 * len(self.clips) // 3]
        return [
            Stage("contrast", clips=first, train=("late", "project")),
            Stage("probe", epochs=2, train=("head",), rate=0.5, schedule=quick, augment=False),
        ]

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        named = list(self.encoder.named_parameters())
        head = [parameter for name, parameter in named if self.encoder.in_head(name)]
        early = {id(parameter) for part in self.encoder.depth()[0] for parameter in _parameters(part)}
        rest = [parameter for name, parameter in named if not self.encoder.in_head(name)]
        return [
            ParameterGroup("early", [parameter for parameter in rest if id(parameter) in early]),
            ParameterGroup("late", [p for p in rest if id(p) not in early], scale=0.5, clip=self.settings.clip),
            ParameterGroup("head", head),
            ParameterGroup("project", list(self.project.parameters()), Update("adamw", 1e-3)),
        ]

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        features = self.encoder.features(self.augmented(batch))
        if batch["stage"] == "contrast":
            rows = F.normalize(widen(self.project(features)), dim=1)
            similar = rows @ torch.cat([gather_rows(rows), self.queue.to(rows)]).T
            loss = torch.logsumexp(similar / 0.2, dim=1).mean()
            return {"loss": loss, "loss_contrast": loss.detach(), "rows": rows.detach()}
        scores = widen(self.encoder.head(features)) + features.detach() @ self.bank.to(features).T
        loss = F.cross_entropy(scores, batch["labels"])
        return {"loss": loss, "scores": scores}

    def begin(self, stage: Stage, apply: Apply) -> None:
        if stage.name == "probe":
            self.bank.add_(0.01 * torch.randn(self.bank.shape, generator=self.generator("bank")).to(self.bank))

    def after_step(
        self, stage: Stage, batches: list[dict[str, Any]], outputs: list[dict[str, Tensor]]
    ) -> None:  # fmt: skip
        if stage.name != "contrast":
            return
        rows = torch.cat([gather_rows(output["rows"]) for output in outputs])
        places = (self.place + torch.arange(len(rows), device=rows.device)) % len(self.queue)
        self.queue[places] = rows.to(self.queue)
        self.place.copy_((self.place + len(rows)) % len(self.queue))

    def end(self, stage: Stage, apply: Apply) -> None:
        found = apply(lambda joints, lengths: self.encoder.features(self.preprocess(joints, lengths)), self.clips)
        rows, labels = torch.from_numpy(found).to(self.bank), torch.from_numpy(self.labels[self.clips])
        for label in labels.unique().tolist():
            self.bank[label] = rows[labels == label].mean(dim=0)


def _parameters(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())
