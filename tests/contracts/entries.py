"""Throw-away entries: what a stranger would write to add a task or an encoder, one file and one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mmcl.common.distributed import gather_rows
from mmcl.common.precision import widen
from mmcl.encoders.base import Encoder
from mmcl.skeletons.layout import Layout
from mmcl.tasks.base import Apply, Context, Task
from mmcl.tasks.stages import ParameterGroup, ScheduleOptions, Stage, Update


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with batch norm and ReLU between them."""
    layers: list[nn.Module] = []
    for inner, outer in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(inner, outer), nn.BatchNorm1d(outer), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


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
        self.critic = mlp(width, 16, 1)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        features = self.encoder.features(self.augmented(batch))
        features = features + 0.1 * self.noise(batch, "features").normal(features.shape[1]).to(features)
        scores = widen(self.encoder.head(features))
        classes = F.cross_entropy(scores, batch["labels"])
        left, right = features.chunk(2, dim=1)
        fixed = {name: tensor.detach() for name, tensor in self.critic.named_parameters()}
        fooled = functional_call(self.critic.eval(), fixed, (features,)).square().mean()
        self.critic.train()
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
        return {"loss": loss, **parts, "scores": scores.detach()}

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        return [
            ParameterGroup("encoder", list(self.encoder.parameters())),
            ParameterGroup("critic", list(self.critic.parameters()), Update("adam", 1e-3), every=self.settings.every),
        ]


@dataclass(frozen=True)
class BankOptions:
    """Options of :class:`Bank`.

    Attributes:
        queue: rows that are remembered.
    """

    queue: int = 16


class Bank(Task):
    """Two stages: contrast with a queue, filled after each step; then the head alone, with a bank of class means.

    The bank is refreshed at the end of each stage, and the second stage begins by looking at it.
    """

    options = BankOptions
    queue: Tensor
    place: Tensor
    bank: Tensor

    def __init__(self, context: Context, options: BankOptions) -> None:
        super().__init__(context)
        width = self.encoder.feature_width
        self.project = mlp(width, 16, 8)
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
            ParameterGroup("late", [p for p in rest if id(p) not in early], scale=0.5, clip=0.5),
            ParameterGroup("head", head),
            ParameterGroup("project", list(self.project.parameters()), Update("adamw", 1e-3)),
        ]

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        features = self.encoder.features(self.augmented(batch))
        if batch["stage"] == "contrast":
            rows = F.normalize(widen(self.project(features)), dim=1)
            similar = rows @ torch.cat([gather_rows(rows), self.queue.to(rows)]).T
            loss = torch.logsumexp(similar / 0.2, dim=1).mean() + 0 * self.idle(self.project)
            return {"loss": loss, "loss_contrast": loss.detach(), "rows": rows.detach()}
        scores = widen(self.encoder.head(features)) + features.detach() @ self.bank.to(features).T
        loss = F.cross_entropy(scores, batch["labels"])
        return {"loss": loss, "scores": scores.detach()}

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


@dataclass(frozen=True)
class TokenOptions:
    """Options of :class:`TokenEncoder`."""

    width: int = 8
    persons: int = 1
    channels: int = 3


class TokenEncoder(Encoder):
    """Joints are pooled as the layout says, embedded as tokens of time and place, mixed by attention, averaged."""

    options_type: ClassVar[type] = TokenOptions

    def __init__(self, layout: Layout, classes: int, options: TokenOptions | None = None) -> None:
        options = options or TokenOptions()
        super().__init__(layout, classes, options)
        width = self.feature_width = options.width
        self.embed = nn.Linear(options.channels, width)
        self.place = nn.Parameter(0.02 * torch.randn(layout.joint_count, width))
        self.norm = nn.BatchNorm1d(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.classifier = nn.Linear(width, classes)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Also ``tokens`` (N, T * V, D)."""
        tokens = self.tokens(x)
        features = tokens.mean(dim=1)
        return {"features": features, "scores": self.head(features), "tokens": tokens}

    def tokens(self, x: Tensor) -> Tensor:
        self.check(x)
        tokens = (self.embed(x.mean(dim=1)) + self.place).flatten(1, 2)
        tokens = self.norm(tokens.transpose(1, 2)).transpose(1, 2)
        return tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]

    def features(self, x: Tensor) -> Tensor:
        return self.tokens(x).mean(dim=1)

    def head(self, features: Tensor) -> Tensor:
        return self.classifier(features)

    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        return [[self.embed, self.place], [self.norm, self.attention]]
