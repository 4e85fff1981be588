"""The graph by hops: one matrix for each number of hops between joints, normalised together."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl.encoders.edge_gcn.options import HOPS
from mmcl.skeletons.layout import Layout


def hop_distances(layout: Layout) -> Tensor:
    """(V, V) hops along the layout's edges; ``HOPS + 1`` stands for more than ``HOPS``."""
    V = layout.joint_count
    step = torch.eye(V)
    for child, parent in layout.edges:
        step[child, parent] = step[parent, child] = 1.0
    distance = torch.full((V, V), HOPS + 1)
    reached = torch.eye(V)
    for hops in range(HOPS + 1):
        distance = torch.where((reached > 0) & (distance > hops), hops, distance)
        reached = reached @ step
    return distance


def hop_graph(layout: Layout, distance: int) -> Tensor:
    """(distance + 1, V, V) float32, matrix h at [v, w]: what joint w collects from a joint v that is h hops away.

    Columns are divided by the number of joints within ``HOPS`` hops, whatever the distance is, so that columns of what
    is used sum to less than 1 where it reaches less far; so it is released.
    """
    hops = hop_distances(layout)
    near = (hops <= HOPS).float()
    near = near / near.sum(dim=0)
    return torch.stack([torch.where(hops == h, near, torch.zeros(())) for h in range(distance + 1)])
