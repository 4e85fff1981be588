"""CTR-GCN's spatial unit: channel-wise topology refinement over the three subsets of a skeleton's graph.

The published unit runs each subset on its own and projects queries and keys on every frame before it averages them.
Here the subsets run as one, by algebra that changes the order of sums and nothing else:

* a mean over time commutes with a 1x1 convolution, so queries and keys are projected once a clip, for all subsets;
* ``alpha * conv4(d) + A`` is one matrix product: alpha goes into the weights, A and the bias are two more rows;
* the sum over subsets is absorbed by one product whose inner axis is (subset, joint).

Time is the innermost axis, (B, C, V, T) with B = N * M, so that this last product reads the values where the
convolution left them. Checkpoints of the published unit convert without loss (``official.py``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.encoders.ctrgcn.blocks import conv_bn, init_conv
from mmcl.encoders.graph import SUBSETS

RAW_RELATION = 8  # width of queries and keys on raw coordinates; an eighth of the channels everywhere else


class SpatialUnit(nn.Module):
    """Graph convolution whose topology every channel refines for itself, from pairwise differences of joints.

    Args:
        channels_in: C_in.
        channels_out: C_out.
        relation: r, width of queries and keys.
        graph: (3, V, V) adjacency to start from; row u says what joint u collects.
        adaptive: learn the adjacency, as published; otherwise it is a constant.
    """

    def __init__(self, channels_in: int, channels_out: int, relation: int, graph: Tensor, adaptive: bool) -> None:
        super().__init__()
        self.joints = graph.shape[-1]
        self.channels = channels_out
        self.relation = relation
        if adaptive:
            self.adjacency = nn.Parameter(graph.clone())
        else:
            self.register_buffer("adjacency", graph.clone())
        self.strength = nn.Parameter(torch.zeros(1))  # the paper's alpha: at first the topology is the adjacency
        self.relate = nn.Conv1d(channels_in, 2 * SUBSETS * relation, 1)  # rows: (query or key, subset, r)
        self.value = nn.Conv2d(channels_in, channels_out * SUBSETS, 1)  # rows: (channel, subset)
        self.expand_weight = nn.Parameter(torch.empty(SUBSETS, channels_out, relation))
        self.expand_bias = nn.Parameter(torch.zeros(SUBSETS, channels_out))
        self.bn = nn.BatchNorm2d(channels_out)
        self.down: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.down = conv_bn(channels_in, channels_out)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Published initialisation: Kaiming by fan-out of each unstacked convolution; the sum starts near zero."""
        init_conv(self.relate, self.relation)
        init_conv(self.value, self.channels)
        nn.init.normal_(self.expand_weight, 0.0, (2.0 / self.channels) ** 0.5)
        nn.init.zeros_(self.expand_bias)
        nn.init.constant_(self.bn.weight, 1e-6)

    def topology(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, 3, C_out, V, V), entry [v, u] being what joint u collects from joint v."""
        return self.refined(x.mean(dim=3))

    def refined(self, pooled: Tensor) -> Tensor:
        """The topology that a mean over time asks for: (B, C_in, V) -> (B, 3, C_out, V, V)."""
        V = self.joints
        query, key = self.relate(pooled).unflatten(1, (2, SUBSETS, self.relation)).unbind(1)
        difference = torch.tanh(query.unsqueeze(-2) - key.unsqueeze(-1)).flatten(3)  # (B, 3, r, V * V)
        graph = self.adjacency.transpose(1, 2).reshape(1, SUBSETS, 1, V * V).expand(pooled.shape[0], -1, -1, -1)
        rows = torch.cat([difference, graph, torch.ones_like(graph)], dim=2)
        bias = self.expand_bias.unsqueeze(-1)
        weight = torch.cat([self.strength * self.expand_weight, torch.ones_like(bias), self.strength * bias], dim=2)
        return torch.matmul(weight, rows).unflatten(3, (V, V))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T)."""
        V = self.joints
        # (channel, subset) outermost and (subset, joint) as rows: whole V x V blocks move, never single numbers.
        topology = self.topology(x).transpose(1, 2).reshape(-1, SUBSETS * V, V)
        values = self.value(x).reshape(-1, SUBSETS * V, x.shape[3])
        y = torch.bmm(topology.transpose(1, 2), values).reshape(-1, self.channels, V, x.shape[3])
        y = self.bn(y)
        y += self.down(x)
        return torch.relu_(y)
