"""The skeleton as a graph: matrices that graph convolutions start from, and those that pool joints."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mmcl.skeletons.layout import Layout

SUBSETS = 3  # a joint itself, the edges towards the centre, the edges away from it


def edge_matrix(edges: Iterable[tuple[int, int]], joints: int) -> Tensor:
    """(V, V) float32 matrix that is 1 at [j, i] for each edge (i, j): row j collects from joint i."""
    matrix = torch.zeros(joints, joints)
    for i, j in edges:
        matrix[j, i] = 1.0
    return matrix


def normalise_columns(matrix: Tensor) -> Tensor:
    """Divide each column of (V, V) by its sum; an empty column stays empty."""
    sums = matrix.sum(dim=0)
    return matrix / torch.where(sums > 0, sums, torch.ones_like(sums))


def spatial_graph(layout: Layout) -> Tensor:
    """Adjacency of the three subsets of a layout, as in ST-GCN's lineage and CTR-GCN's ``graph/tools.py``.

    Args:
        layout: its edges point from child to parent, towards the root.

    Returns:
        (3, V, V) float32: identity, inward (child to parent), outward (parent to child), the last two with columns that
        sum to 1 or are empty.
    """
    joints = layout.joint_count
    inward = layout.edges
    outward = [(parent, child) for child, parent in inward]
    return torch.stack(
        [
            torch.eye(joints),
            normalise_columns(edge_matrix(inward, joints)),
            normalise_columns(edge_matrix(outward, joints)),
        ]
    )


def undirected_graph(layout: Layout) -> Tensor:
    """(V, V) float32: 1 for a joint with itself and for both directions of every edge of the tree and every link."""
    there = [*layout.edges, *layout.links]
    back = [(b, a) for a, b in there]
    return torch.eye(layout.joint_count) + edge_matrix([*there, *back], layout.joint_count)


def pool_matrices(layout: Layout) -> list[Tensor]:
    """(V_below, V_level) float32 for each level of a layout's pools, from the joints up; columns sum to 1."""
    matrices, below = [], list(layout.joints)
    for level in layout.pools.values():
        matrix = torch.zeros(len(below), len(level))
        for column, weights in enumerate(level.values()):
            for joint, weight in weights.items():
                matrix[below.index(joint), column] = weight
        matrices.append(matrix)
        below = list(level)
    return matrices


def pooled_graph(graph: Tensor, pool: Tensor) -> Tensor:
    """The graph of a level of pools: pinv(M) G M, as in SkeleT-GCN.

    Args:
        graph: (V, V) between joints.
        pool: (V, V_level) from joints to the level.

    Returns:
        (V_level, V_level).
    """
    return torch.linalg.pinv(pool.double()).to(graph) @ graph @ pool
