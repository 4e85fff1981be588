"""Hyperformer: attention over joints that knows their hyperedges, and convolutions over time.

Zhou, Li, Cheng, Geng, Xie, Keuper, "Hypergraph Transformer for Skeleton-based Action Recognition", 2022
(arXiv 2211.09590), parameter for parameter as in the official ``model/Hyperformer.py``: 2,729,194 for 60 classes,
25 joints and 2 persons. The attention is in ``attention.py``; the temporal unit is CTR-GCN's.

The released code computes what the paper says. Its hyperedges for the joints of NTU RGB+D are learnt ones; they, and
those for NW-UCLA, are had with ``released: true``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.encoders.bodies import EMPTY_BODIES
from mmcl.encoders.body_encoder import BodyEncoder
from mmcl.encoders.ctrgcn.blocks import conv_bn
from mmcl.encoders.ctrgcn.lean_units import LeanUnit
from mmcl.encoders.ctrgcn.temporal import BRANCHES, TemporalUnit
from mmcl.encoders.hyperformer.attention import SpatialAttention
from mmcl.encoders.hyperformer.hypergraph import hop_distances, joint_labels
from mmcl.encoders.hyperformer.lean import LeanAttention
from mmcl.encoders.lean import LeanBodies
from mmcl.skeletons.layout import Layout

STAGES = 3  # the first unit of the second and third halves the frames


@dataclass(frozen=True)
class HyperformerOptions:
    """Options of :class:`Hyperformer`; the defaults are the published network, but for the hyperedges.

    Attributes:
        heads: of the attention; the width of every unit is heads * head_width.
        head_width: d, channels of a head.
        groups: of the projection behind the attention; it divides the width, as 4 does.
        depth: units in all, at least 3. The three stages share them evenly, earlier stages first: 10 is 4 + 3 + 3.
        hyperedges: the number of its hyperedge for each joint; by default the layout's parts are the hyperedges.
        released: take the hyperedges of the official configurations, for the joints of NTU RGB+D or NW-UCLA.
        persons: M, bodies in every clip (absent ones are zeros).
        channels: C, coordinates of a joint.
        dropout: on the feature, before the classifier.
        empty_bodies: "once" computes the empty bodies of a batch once a slot, "each" one by one, as published; see
            ``bodies.py``. Only batch-norm statistics in training depend on it.
    """

    heads: int = 9
    head_width: int = 24
    groups: int = 6
    depth: int = 10
    hyperedges: tuple[int, ...] = ()
    released: bool = False
    persons: int = 2
    channels: int = 3
    dropout: float = 0.0
    empty_bodies: str = "once"

    def __post_init__(self) -> None:
        for name in ("heads", "head_width", "groups", "persons", "channels"):
            if getattr(self, name) < 1:
                raise UserError(f"hyperformer.{name} must be at least 1, not {getattr(self, name)}")
        if self.width % self.groups or self.width % BRANCHES:
            raise UserError(
                f"hyperformer's width, heads * head_width, must be a multiple of {BRANCHES} and of its groups "
                f"({self.groups}), not {self.width}"
            )
        if self.depth < STAGES:
            raise UserError(f"hyperformer.depth must be at least {STAGES}, one unit a stage, not {self.depth}")
        if self.hyperedges and (self.released or min(self.hyperedges) < 0):
            raise UserError("hyperformer.hyperedges must be 0 or more, one for each joint, and without 'released'")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"hyperformer.dropout must lie in [0, 1), not {self.dropout}")
        if self.empty_bodies not in EMPTY_BODIES:
            choices = " or ".join(EMPTY_BODIES)
            raise UserError(f"hyperformer.empty_bodies must be {choices}, not {self.empty_bodies!r}")

    @property
    def width(self) -> int:
        """D, channels of every unit."""
        return self.heads * self.head_width

    @property
    def strides(self) -> list[int]:
        """Stride along time of each unit."""
        counts = [self.depth // STAGES + (stage < self.depth % STAGES) for stage in range(STAGES)]
        return [2 if stage and not position else 1 for stage, count in enumerate(counts) for position in range(count)]


class Unit(nn.Module):
    """Attention over joints, a temporal unit, and a residual around both.

    Args:
        channels_in: C_in.
        stride: along time.
        options: of the network.
        hops: (V, V) distances of joints.
        labels: the hyperedge of each joint.
    """

    def __init__(
        self, channels_in: int, stride: int, options: HyperformerOptions, hops: np.ndarray, labels: tuple[int, ...]
    ) -> None:
        super().__init__()
        width = options.width
        self.attention = SpatialAttention(channels_in, width, options.heads, options.groups, hops, labels)
        self.temporal = TemporalUnit(width, stride)
        same = channels_in == width and stride == 1
        self.residual = nn.Identity() if same else conv_bn(channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, D, V, ceil(T / stride))."""
        y = self.temporal(self.attention(x))
        y += self.residual(x)
        return torch.relu_(y)


class Hyperformer(BodyEncoder):
    """Hyperformer over any layout. Absent bodies are treated as CTR-GCN treats them.

    Args:
        layout: joints, bones for distances, parts for hyperedges.
        classes: K.
        options: see :class:`HyperformerOptions`.

    Raises:
        UserError: hyperedges that do not fit the layout.
    """

    options_type: ClassVar[type] = HyperformerOptions
    tiny = MappingProxyType({"heads": 2, "head_width": 4, "groups": 2, "depth": 3})
    fused = MappingProxyType({"*.key_value": 2, "*.reduce": BRANCHES})

    def __init__(self, layout: Layout, classes: int, options: HyperformerOptions | None = None) -> None:
        options = options or HyperformerOptions()
        super().__init__(layout, classes, options)
        hops, labels = hop_distances(layout), joint_labels(layout, options.hyperedges, options.released)
        self.units = nn.ModuleList(
            Unit(options.width if number else options.channels, stride, options, hops, labels)
            for number, stride in enumerate(options.strides)
        )
        self.add_classifier(options.width)

    def lean(self, frames: int | None = None) -> LeanBodies:
        """The same function for use only, with all constants folded and empty bodies free: see ``lean.py``."""
        units = [
            LeanUnit(LeanAttention(unit.attention), unit.temporal, unit.residual)
            for unit in cast("list[Unit]", self.units)
        ]
        return LeanBodies(self.options.persons, self.layout.joint_count, self.data_bn, units, self.classifier, frames)
