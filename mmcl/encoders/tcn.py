"""Temporal convolutions over all joints of a frame at once, for sets of a few hundred clips.

All coordinates of all joints and bodies of a frame are the channels of a convolution along time, as in Res-TCN (Kim and
Reiter, CVPR workshops 2017, arXiv 1704.04516): a clip costs a small part of what it costs a graph network. Width,
pooling and the dropout of whole channels are nearer to DD-Net (Yang et al., ACM Multimedia Asia 2019, arXiv
1907.09658). It is neither of the two, and no published number is its own.

Several members that differ by nothing but their first weights, each trained on a loss of its own, are averaged in use
(deep ensembles, Lakshminarayanan et al., NeurIPS 2017): on small sets that is worth more than a wider network.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.common.errors import UserError
from mmcl.encoders.base import Encoder
from mmcl.skeletons.layout import Layout

STAGES = 3  # between which time is halved and width doubled


@dataclass(frozen=True)
class TCNOptions:
    """Options of :class:`TCN`.

    Attributes:
        width: channels of the first stage; twice and four times as many in the second and third.
        members: networks that are trained side by side and averaged in use.
        persons: M, bodies in every clip (absent ones are zeros). They are told apart by their order.
        channels: C, numbers of a joint.
        input_dropout: share of coordinates that training sets to zero for a whole clip.
        dropout: on the feature, before the classifiers.
    """

    width: int = 64
    members: int = 1
    persons: int = 2
    channels: int = 3
    input_dropout: float = 0.1
    dropout: float = 0.3

    def __post_init__(self) -> None:
        for name in ("width", "members", "persons", "channels"):
            if getattr(self, name) < 1:
                raise UserError(f"tcn.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("input_dropout", "dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"tcn.{name} must lie in [0, 1), not {getattr(self, name)}")


class MemberClassifiers(nn.ModuleList):
    """A classifier for each member's part of the features; the mean of their scores is the network's."""

    def each(self, features: Tensor) -> Tensor:
        """(N, D) -> (members, N, K)."""
        parts = features.chunk(len(self), dim=-1)
        return torch.stack([layer(part) for layer, part in zip(self, parts, strict=True)])

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K)."""
        return self.each(features).mean(dim=0)


class TCN(Encoder):
    """One or several small networks of temporal convolutions over any layout.

    Args:
        layout: joints; its tree is not looked at.
        classes: K.
        options: see :class:`TCNOptions`.
    """

    options_type: ClassVar[type] = TCNOptions
    head_parts: ClassVar[tuple[str, ...]] = ("dropout", "classifier")
    tiny = MappingProxyType({"width": 8, "members": 2, "input_dropout": 0.0, "dropout": 0.0})

    def __init__(self, layout: Layout, classes: int, options: TCNOptions | None = None) -> None:
        options = options or TCNOptions()
        super().__init__(layout, classes, options)
        numbers = options.persons * layout.joint_count * options.channels
        self.norm, self.input_dropout = nn.BatchNorm1d(numbers), nn.Dropout1d(options.input_dropout)
        self.members = nn.ModuleList(_stages(numbers, options.width) for _ in range(options.members))
        width = options.width * 2 ** (STAGES - 1)
        self.feature_width = width * options.members
        self.dropout = nn.Dropout(options.dropout)
        self.classifier: nn.Module = MemberClassifiers(nn.Linear(width, classes) for _ in range(options.members))

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D): of each member the mean over time, one behind the other.

        Raises:
            UserError: another number of persons, joints or channels than the encoder was built for.
        """
        self.check(x)
        frames = self.norm(x.permute(0, 1, 3, 4, 2).flatten(1, 3))
        return torch.cat([_run(stages, self.input_dropout(frames)) for stages in self.members], dim=1)

    def head(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K), the mean of the members' scores."""
        scores: Tensor = self.classifier(self.dropout(features))
        return scores

    def member_scores(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (members, N, K); (1, N, K) where something was put behind the classifiers."""
        if not isinstance(self.classifier, MemberClassifiers):
            return super().member_scores(x)
        return self.classifier.each(self.dropout(self.features(x)))

    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        """The batch norm of the input, then stage by stage, of all members together."""
        stages: list[list[nn.Module | nn.Parameter]] = [
            [member[number] for member in self.members]  # type: ignore[index]
            for number in range(STAGES)
        ]
        return [[self.norm], *stages]


def _stages(numbers: int, width: int) -> nn.ModuleList:
    """A member: stages of two convolutions each, the first of them on single frames."""
    widths = [width * 2**stage for stage in range(STAGES)]
    kernels = [1] + [3] * (STAGES - 1)
    inputs = [numbers, *widths[:-1]]
    return nn.ModuleList(
        nn.Sequential(*_convolution(c_in, c_out, kernel), *_convolution(c_out, c_out, 3))
        for c_in, c_out, kernel in zip(inputs, widths, kernels, strict=True)
    )


def _convolution(c_in: int, c_out: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv1d(c_in, c_out, kernel, padding=kernel // 2, bias=False), nn.BatchNorm1d(c_out), nn.ReLU()]


def _run(stages: nn.Module, x: Tensor) -> Tensor:
    """(N, M * V * C, T) -> (N, D) of one member."""
    for number, stage in enumerate(stages.children()):
        x = stage(F.max_pool1d(x, 2, ceil_mode=True) if number else x)
    return x.mean(dim=2)
