"""What the network is stacked of: blocks, and the branch that reads one input."""

from __future__ import annotations

from torch import Tensor, nn

from mmcl.encoders.edge_gcn.attention import AttentionLayer
from mmcl.encoders.edge_gcn.graph import hop_graph
from mmcl.encoders.edge_gcn.layers import SpatialLayer, TemporalLayer
from mmcl.encoders.edge_gcn.options import EdgeGCNOptions, input_widths
from mmcl.skeletons.layout import Layout


class Block(nn.Module):
    """A spatial layer, temporal layers, attention."""

    def __init__(self, spatial: SpatialLayer, temporal: list[TemporalLayer], attention: AttentionLayer) -> None:
        super().__init__()
        self.spatial, self.temporal, self.attention = spatial, nn.Sequential(*temporal), attention

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T')."""
        return self.attention(self.temporal(self.spatial(x)))


class Branch(nn.Module):
    """What reads one input: batch norm, a spatial and a temporal layer, blocks."""

    def __init__(self, layout: Layout, options: EdgeGCNOptions) -> None:
        super().__init__()
        graph, act = hop_graph(layout, options.input_distance), options.activation
        self.norm = nn.BatchNorm2d(2 * options.channels)
        self.stem_spatial = SpatialLayer(2 * options.channels, options.width, graph, act)
        self.stem_temporal = TemporalLayer("basic", options.width, options.input_window, 1, act)
        self.blocks = nn.Sequential()
        last = options.width
        for width in input_widths(options):
            temporal = [
                TemporalLayer(
                    options.temporal, width, options.input_window, 1 if number else options.input_stride, act,
                    options.expand, options.reduce, options.released,
                )
                for number in range(options.input_depth)
            ]  # fmt: skip
            attention = AttentionLayer(options.attention, width, layout, options.reduce, act)
            self.blocks.append(Block(SpatialLayer(last, width, graph, act), temporal, attention))
            last = width

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2 C, V, T) -> (B, C', V, T')."""
        return self.blocks(self.stem_temporal(self.stem_spatial(self.norm(x))))
