"""A throw-away encoder with token outputs and pools of joints: what a stranger would write, one file and one line.

A bundle imports it where nothing of training is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.encoders.base import Encoder
from mmcl.skeletons.layout import Layout


@dataclass(frozen=True)
class TokenOptions:
    """Options of :class:`TokenEncoder`."""

    width: int = 8
    persons: int = 1
    channels: int = 3

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2 or self.persons < 1:
            raise UserError(f"token: width must be even and persons at least 1, not {self.width} and {self.persons}")


class TokenEncoder(Encoder):
    """Joints are pooled as the layout says, embedded as tokens of time and place, mixed by attention, averaged."""

    pool: Tensor

    options_type: ClassVar[type] = TokenOptions

    def __init__(self, layout: Layout, classes: int, options: TokenOptions | None = None) -> None:
        options = options or TokenOptions()
        super().__init__(layout, classes, options)
        width = self.feature_width = options.width
        self.register_buffer("pool", _pool(layout), persistent=False)
        self.embed = nn.Linear(options.channels, width)
        self.place = nn.Parameter(0.02 * torch.randn(len(self.pool), width))
        self.norm = nn.BatchNorm1d(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.classifier = nn.Linear(width, classes)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Also ``tokens`` (N, T * P, D), and ``parts`` (N, P, D) of the P pooled joints."""
        tokens = self.tokens(x)
        features, parts = tokens.mean(dim=1), tokens.unflatten(1, (-1, len(self.pool))).mean(dim=1)
        return {"features": features, "scores": self.head(features), "tokens": tokens, "parts": parts}

    def tokens(self, x: Tensor) -> Tensor:
        self.check(x)
        tokens = (self.embed(self.pool @ x.mean(dim=1)) + self.place).flatten(1, 2)
        tokens = self.norm(tokens.transpose(1, 2)).transpose(1, 2)
        return tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]

    def features(self, x: Tensor) -> Tensor:
        return self.tokens(x).mean(dim=1)

    def head(self, features: Tensor) -> Tensor:
        return self.classifier(features)

    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        return [[self.embed, self.place], [self.norm, self.attention]]


def _pool(layout: Layout) -> Tensor:
    """(P, V) weights of the layout's joints in those of its first level; each joint itself where it has no pools."""
    if not layout.pools:
        return torch.eye(layout.joint_count)
    level = next(iter(layout.pools.values()))
    return torch.tensor([[weights.get(joint, 0.0) for joint in layout.joints] for weights in level.values()])
