"""CTR-GCN's building block: a spatial unit, a temporal unit and a residual around both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.encoders.ctrgcn.blocks import conv_bn
from mmcl.encoders.ctrgcn.spatial import RAW_RELATION, SpatialUnit
from mmcl.encoders.ctrgcn.temporal import TemporalUnit


class Unit(nn.Module):
    """A spatial unit, a temporal unit, and a residual around both.

    Args:
        channels_in: C_in.
        channels_out: C_out.
        stride: along time.
        graph: (3, V, V) adjacency to start from.
        adaptive: learn the adjacency.
        first: the unit that reads raw coordinates; it has no residual.
    """

    spatial_type, temporal_type = SpatialUnit, TemporalUnit

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, graph: Tensor, adaptive: bool, first: bool
    ) -> None:
        super().__init__()
        relation = RAW_RELATION if first else channels_in // 8
        self.spatial = self.spatial_type(channels_in, channels_out, relation, graph, adaptive)
        self.temporal = self.temporal_type(channels_out, stride)
        self.residual: nn.Module | None = None
        if not first:
            same = channels_in == channels_out and stride == 1
            self.residual = nn.Identity() if same else conv_bn(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, ceil(T / stride))."""
        y = self.temporal(self.spatial(x))
        if self.residual is not None:
            y += self.residual(x)  # in place, here and below: a batch norm's backward pass needs its input only
        return torch.relu_(y)
