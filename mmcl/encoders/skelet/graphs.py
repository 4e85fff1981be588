"""Graph convolutions of SkeleT-GCN, in three flavours. Each group of channels has its own.

All groups run as one: their convolutions are one grouped convolution, their batch norms one batch norm. Graphs take
from joint v (row) to joint w (column); tensors are (B, C, T, V).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmcl.encoders.ctrgcn.blocks import init_conv
from mmcl.encoders.skelet.mapping import JointMap, Shift, accumulate, fused, rescale, scale_and_shift
from mmcl.encoders.skelet.static_graph import StaticGraph

RAW_RELATION = 8  # width of queries and keys where a group has at most 16 channels; an eighth of them elsewhere


class DynamicGraph(nn.Module):
    """``dggcn``: to the learned graph of each subset a clip adds tanh of differences and a softmax of products.

    alpha and beta, the strengths of both, start at zero.

    Args:
        channels_in: C_in, over all groups.
        channels_out: C_out, over all groups.
        groups: G.
        graph: (V, V) to start from.
        subsets: K.
        subset_wise: a strength for each subset; otherwise the first is that of all, and the others are idle, as
            released.
    """

    def __init__(
        self, channels_in: int, channels_out: int, groups: int, graph: Tensor, subsets: int, subset_wise: bool = False
    ) -> None:
        super().__init__()
        middle = channels_out // groups // subsets * subsets * groups
        self.groups, self.subsets, self.subset_wise = groups, subsets, subset_wise
        self.adjacency = nn.Parameter(graph.repeat(groups, subsets, 1, 1))
        self.alpha = nn.Parameter(torch.zeros(groups, subsets))
        self.beta = nn.Parameter(torch.zeros(groups, subsets))
        self.value = nn.Conv2d(channels_in, middle, 1, groups=groups)  # rows (group, subset, channel)
        self.value_bn: nn.Module = nn.BatchNorm2d(middle)
        self.relate = nn.Conv1d(channels_in, 2 * middle, 1, groups=groups)  # (group, query or key, subset, channel)
        self.mix = nn.Conv2d(middle, channels_out, 1, groups=groups)
        self.bn: nn.Module = nn.BatchNorm2d(channels_out)

    def topology(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, G, K, C', V, V), C' channels of a subset; the softmax is over source joints."""
        related = self.relate(x.mean(dim=2)).unflatten(1, (self.groups, 2, self.subsets, -1))
        query, key = related.unbind(2)
        alpha, beta = (strength if self.subset_wise else strength[:, :1] for strength in (self.alpha, self.beta))
        difference = torch.tanh(query.unsqueeze(-1) - key.unsqueeze(-2))
        product = torch.softmax(query.transpose(-1, -2) @ key, dim=-2)
        own = self.adjacency + beta[..., None, None] * product
        return own.unsqueeze(3) + alpha[..., None, None, None] * difference

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, V)."""
        values = torch.relu_(self.value_bn(self.value(x))).unflatten(1, (self.groups, self.subsets, -1))
        y = values @ self.topology(x)
        return torch.relu_(self.bn(self.mix(y.flatten(1, 3))))

    def fold(self, joints: JointMap | None) -> bool:
        """Fold the batch norms, for use only; ``joints`` stays."""
        self.value, self.value_bn = fused(self.value, self.value_bn), nn.Identity()
        self.mix, self.bn = fused(self.mix, self.bn), nn.Identity()
        return False


class RefinedGraph(nn.Module):
    """``unit_ctrgcn``: every channel refines the graph of its subset by differences of joints, as in CTR-GCN.

    It has a residual of its own within each group. alpha, the strength of the refinement, starts at zero.

    Args:
        channels_in: C_in, over all groups.
        channels_out: C_out, over all groups.
        groups: G.
        graph: (V, V) to start from.
        subsets: K.
    """

    def __init__(self, channels_in: int, channels_out: int, groups: int, graph: Tensor, subsets: int) -> None:
        super().__init__()
        inside, outside = channels_in // groups, channels_out // groups
        relation = RAW_RELATION if inside <= 16 else inside // 8
        parts = groups * subsets
        self.groups, self.subsets = groups, subsets
        self.adjacency = nn.Parameter(graph.repeat(groups, subsets, 1, 1))
        self.alpha = nn.Parameter(torch.zeros(groups, 1))
        self.relate = nn.Conv1d(channels_in, 2 * parts * relation, 1, groups=groups)  # (group, query or key, subset, r)
        self.expand = nn.Conv1d(parts * relation, parts * outside, 1, groups=parts)  # rows (group, subset, channel)
        self.value = nn.Conv2d(channels_in, parts * outside, 1, groups=groups)  # rows (group, subset, channel)
        self.bn: nn.Module = nn.BatchNorm2d(channels_out)
        self.down: nn.Module = nn.Identity()
        self.down_bn: nn.Module = nn.Identity()
        if inside != outside:
            self.down = nn.Conv2d(channels_in, channels_out, 1, groups=groups)
            self.down_bn = nn.BatchNorm2d(channels_out)
        for conv, fan_out in ((self.relate, relation), (self.expand, outside), (self.value, outside)):
            init_conv(conv, fan_out)

    def topology(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, G, K, C', V, V), C' channels of a group."""
        query, key = self.relate(x.mean(dim=2)).unflatten(1, (self.groups, 2, -1)).unbind(2)
        difference = torch.tanh(query.unsqueeze(-1) - key.unsqueeze(-2))  # (B, G, K * r, V, V)
        refined = self.expand(difference.flatten(1, 2).flatten(2)).unflatten(1, (self.groups, self.subsets, -1))
        refined = refined.unflatten(4, difference.shape[3:])
        return self.alpha[..., None, None, None] * refined + self.adjacency.unsqueeze(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, V)."""
        values = self.value(x).unflatten(1, (self.groups, self.subsets, -1))
        y = self.bn(accumulate(values, self.topology(x)).flatten(1, 2))
        return torch.relu_(y + self.down_bn(self.down(x)))

    def fold(self, joints: JointMap | None) -> bool:
        """Fold the batch norms, for use only; ``joints`` stays."""
        assert isinstance(self.bn, nn.BatchNorm2d)
        scale, shift = scale_and_shift(self.bn)
        rescale(self.value, scale.view(self.groups, 1, -1).expand(-1, self.subsets, -1).flatten())
        self.bn = Shift(shift.view(-1, 1, 1))
        if isinstance(self.down, nn.Conv2d):
            self.down, self.down_bn = fused(self.down, self.down_bn), nn.Identity()
        return False


GraphUnit = StaticGraph | DynamicGraph | RefinedGraph
GRAPHS: dict[str, Callable[..., GraphUnit]] = {
    "unit_gcn": StaticGraph,
    "dggcn": DynamicGraph,
    "unit_ctrgcn": RefinedGraph,
}
