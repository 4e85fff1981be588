"""The graph convolution of SkeleT-GCN whose graphs are the same for all clips. Tensors are (B, C, T, V)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.encoders.skelet.mapping import (
    JointMap,
    Shift,
    accumulate,
    change_of,
    fused,
    per_group,
    rescale,
    scale_and_shift,
)


class StaticGraph(nn.Module):
    """``unit_gcn``: one graph for each group and subset.

    Args:
        channels_in: C_in, over all groups.
        channels_out: C_out, over all groups.
        groups: G.
        graph: (V, V) to start from, for all groups and subsets.
        subsets: K.
        kind: what is learned of the graph, as in :class:`JointMap`: "learned", "fixed", "offset" or "importance" of
            every edge (``adaptive`` in the release: "init", None, "offset", "importance").
        conv_pos: the convolution comes before the graphs ("pre"), or once behind all of them ("post").
    """

    adjacency: Tensor
    change: nn.Parameter | None

    def __init__(
        self, channels_in: int, channels_out: int, groups: int, graph: Tensor, subsets: int, kind: str = "learned",
        conv_pos: str = "pre",
    ) -> None:  # fmt: skip
        super().__init__()
        self.groups, self.subsets, self.kind, self.conv_pos = groups, subsets, kind, conv_pos
        graphs = graph.repeat(groups, subsets, 1, 1)
        if kind == "learned":
            self.adjacency = nn.Parameter(graphs)
        else:
            self.register_buffer("adjacency", graphs)
        change = change_of(kind, graphs)
        self.change = None if change is None else nn.Parameter(change)
        # Rows are (group, subset, channel) where the convolution comes first, else columns.
        before, after = (1, subsets) if conv_pos == "pre" else (subsets, 1)
        self.value: nn.Conv2d = nn.Conv2d(channels_in * before, channels_out * after, 1, groups=groups)
        self.bn: nn.Module = nn.BatchNorm2d(channels_out)

    def graphs(self) -> Tensor:
        """(G, K, V, V)."""
        if self.change is None:
            return self.adjacency
        return self.adjacency + self.change if self.kind == "offset" else self.adjacency * self.change

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, V)."""
        graphs = self.graphs()
        if self.conv_pos == "post":
            x = x.unflatten(1, (self.groups, -1))
            moved = torch.stack([per_group(x, graphs[:, k]) for k in range(self.subsets)], dim=2)
            return torch.relu_(self.bn(self.value(moved.flatten(1, 3))))
        values = self.value(x).unflatten(1, (self.groups, self.subsets, -1))
        return torch.relu_(self.bn(accumulate(values, graphs).flatten(1, 2)))

    def fold(self, joints: JointMap | None) -> bool:
        """Fold the batch norm, and importances of joints, for use only; returns whether ``joints`` is done with."""
        self.adjacency.data, self.change = self.graphs().detach(), None
        if self.conv_pos == "post":
            self.value, self.bn = fused(self.value, self.bn), nn.Identity()
        else:
            self._fold_behind()
        if joints is None or not joints.diagonal:
            return False
        self.adjacency.data = self.adjacency.data * joints.matrix()[:, None, :, None]
        return True

    def _fold_behind(self) -> None:
        """What a convolution's bias and the batch norm add behind graphs is a constant of channel and joint."""
        assert isinstance(self.bn, nn.BatchNorm2d) and self.value.bias is not None
        scale, shift = scale_and_shift(self.bn)
        by_subset = scale.view(self.groups, 1, -1).expand(-1, self.subsets, -1).flatten()
        rescale(self.value, by_subset)
        bias = self.value.bias.view(self.groups, self.subsets, -1, 1) * self.adjacency.sum(dim=2).unsqueeze(2)
        self.bn = Shift(bias.sum(dim=1).flatten(0, 1)[:, None] + shift.view(-1, 1, 1))
        self.value.bias = None
