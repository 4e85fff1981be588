"""SkeleT-GCN's building block: joints are mapped and convolved over their graph, then frames, with residuals around."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.encoders.skelet.graphs import GRAPHS, GraphUnit
from mmcl.encoders.skelet.mapping import JointMap, Shortcut, fused
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.encoders.skelet.temporal import temporal_unit


class Lead(nn.Module):
    """A 1x1 convolution, batch norm and ReLU before channels part into groups: ``conv_pre`` of the release.

    Args:
        channels_in: C_in.
        channels: over all groups.
        repeat: all groups get the same channels ("conv+repeat"), else each its own ("conv+split").
        groups: G.
    """

    def __init__(self, channels_in: int, channels: int, repeat: bool, groups: int) -> None:
        super().__init__()
        self.copies = groups if repeat else 1
        self.conv = nn.Conv2d(channels_in, channels // self.copies, 1)
        self.bn: nn.Module = nn.BatchNorm2d(channels // self.copies)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C, T, V), C channels over all groups."""
        return torch.relu_(self.bn(self.conv(x))).repeat(1, self.copies, 1, 1)

    def fold(self) -> None:
        """Fold the batch norm, for use only."""
        self.conv, self.bn = fused(self.conv, self.bn), nn.Identity()


def lead_of(split_way: str, channels_in: int, groups: int) -> tuple[int, Lead | None]:
    """The channels that all groups of a released ``split_way`` get, and what makes them; one group needs nothing."""
    if split_way == "split" or groups == 1:
        return channels_in, None
    channels = channels_in // groups * groups
    return channels, Lead(channels_in, channels, split_way == "conv+repeat", groups)


class SpatialUnit(nn.Module):
    """The release's "grouped mapping framework": map, graph convolution, mixing of groups, residual.

    Args:
        channels_out: C_out.
        joints: the map of joints, or None.
        graph: a graph convolution of the names in ``GRAPHS``, on the joints behind the map.
        shortcut: from the input to the output.
        lead: what comes before groups, or None.
    """

    def __init__(
        self, channels_out: int, joints: JointMap | None, graph: GraphUnit, shortcut: Shortcut, lead: Lead | None = None
    ) -> None:
        super().__init__()
        self.lead, self.joints, self.graph, self.shortcut = lead, joints, graph, shortcut
        self.mix = nn.Conv2d(channels_out, channels_out, 1)
        self.bn: nn.Module = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, W)."""
        return torch.relu_(self.bn(self.mix(self.graph(self.mapped(x)))) + self.shortcut(x))

    def mapped(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C, T, W), what the groups' graphs get."""
        x = x if self.lead is None else self.lead(x)
        return x if self.joints is None else self.joints(x)

    def fold(self) -> None:
        """Fold the batch norms, for use only."""
        if self.lead is not None:
            self.lead.fold()
        if self.graph.fold(self.joints):
            self.joints = None
        self.shortcut.fold()
        self.mix, self.bn = fused(self.mix, self.bn), nn.Identity()


class Block(nn.Module):
    """A spatial unit, a temporal unit, and a residual around both.

    Args:
        options: say which units.
        channels: (C_in, C_out).
        groups: G.
        pool: (V, W) to the next level, or None.
        graph: (W, W) to start from.
        stride: along time, or None.
        first: the block that reads coordinates: no residual, and no importance of joints.
    """

    def __init__(
        self, options: SkeletOptions, channels: tuple[int, int], groups: int, pool: Tensor | None, graph: Tensor,
        stride: int | None, first: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        joints = None
        if pool is not None:
            joints = JointMap(pool, groups, options.mapping)
        elif options.equal_levels != "none" and not first:
            kind = "importance" if options.equal_levels == "importance" else options.mapping
            joints = JointMap(torch.eye(len(graph)), groups, kind)
        more: dict[str, object] = {"subset_wise": options.subset_wise} if options.gcn == "dggcn" else {}
        if options.gcn == "unit_gcn":
            more = {"kind": options.graphs, "conv_pos": options.conv_pos}
        inside, lead = lead_of(options.split_way, channels[0], groups)
        unit = GRAPHS[options.gcn](inside, channels[1], groups, graph, options.subsets, **more)
        self.spatial = SpatialUnit(channels[1], joints, unit, Shortcut(*channels, pool, options.mapping), lead)
        self.temporal = temporal_unit(options.tcn, channels[1], stride or 1, len(graph))
        self.shortcut = None if first else Shortcut(*channels, pool, options.mapping, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, ceil(T / stride), W)."""
        y = self.temporal(self.spatial(x))
        return torch.relu(y) if self.shortcut is None else torch.relu_(y + self.shortcut(x))

    def fold(self) -> None:
        """Fold the batch norms, for use only."""
        self.spatial.fold()
        self.temporal.fold()
        if self.shortcut is not None:
            self.shortcut.fold()
