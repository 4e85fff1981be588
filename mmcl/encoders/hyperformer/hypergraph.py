"""What Hyperformer takes from a skeleton: distances between joints, and the parts that are its hyperedges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout

# The released configurations (config/*/joint.yaml of the official repository), by joint name. The one for NTU RGB+D is
# no anatomy: the paper learns the partition. A joint that is not named is in hyperedge 2, which holds most of them.
_NTU = {
    0: ("base_spine", "left_hand_tip", "right_hand_tip"),
    1: ("left_wrist", "left_hand", "right_wrist", "right_hand", "spine_shoulder", "left_thumb", "right_thumb"),
    3: ("left_knee", "left_ankle", "left_foot", "right_knee", "right_ankle", "right_foot"),
    4: ("mid_spine",),
}
_NTU_REST = 2
_UCLA_TRUNK = ("base_spine", "mid_spine", "spine_shoulder", "head")
_UCLA_LEGS = ("hip", "knee", "ankle", "foot")


def hop_distances(layout: Layout) -> np.ndarray:
    """(V, V) int64: how many bones lie between two joints along the layout's tree.

    Where a hand's tip hangs on the thumb, as in CTR-GCN's graph and in the layout kinect_v2_25, it counts as hanging on
    the hand: so it does in Hyperformer's graph of the same joints.
    """
    V = layout.joint_count
    distances = np.where(np.eye(V, dtype=bool), 0, V)
    for child, parent in layout.edges:
        if layout.joints[child].endswith("hand_tip") and layout.joints[parent].endswith("thumb"):
            parent = layout.parents[parent]
        distances[child, parent] = distances[parent, child] = 1
    for between in range(V):  # Floyd and Warshall
        distances = np.minimum(distances, distances[:, between, None] + distances[None, between])
    return distances


def joint_labels(layout: Layout, hyperedges: Sequence[int] = (), released: bool = False) -> tuple[int, ...]:
    """The hyperedge of each joint.

    Args:
        layout: V joints.
        hyperedges: V numbers, if they are to be taken as they are.
        released: those of the official configurations, which there are for the joints of Kinect v1 (NW-UCLA) and v2
            (NTU RGB+D), in whatever order the layout has them. Otherwise the layout's parts: a joint belongs to the
            first that lists it, and joints of no part form one more hyperedge.

    Returns:
        V numbers, 0 to P - 1, each of which occurs.

    Raises:
        UserError: nothing was released for these joints, or the numbers are not V or leave one out.
    """
    if not hyperedges:
        return _released_labels(layout) if released else _labels_of_parts(layout)
    if len(hyperedges) != layout.joint_count:
        raise UserError(
            f"hyperformer.hyperedges has {len(hyperedges)} numbers for the {layout.joint_count} joints of {layout.name}"
        )
    if set(hyperedges) != set(range(max(hyperedges) + 1)):
        raise UserError("hyperformer.hyperedges must be numbered 0, 1, 2, … without a gap")
    return tuple(hyperedges)


def membership(labels: Sequence[int]) -> Tensor:
    """(V, P) float32: 1 where a joint belongs to a hyperedge."""
    matrix = torch.zeros(len(labels), max(labels) + 1)
    matrix[torch.arange(len(labels)), torch.tensor(labels)] = 1.0
    return matrix


def _labels_of_parts(layout: Layout) -> tuple[int, ...]:
    found: dict[int, str] = {}
    for part, joints in layout.parts.items():
        for joint in joints:
            found.setdefault(joint, part)
    names = [found.get(joint, "") for joint in range(layout.joint_count)]
    order = [part for part in (*layout.parts, "") if part in names]
    return tuple(order.index(name) for name in names)


def _released_labels(layout: Layout) -> tuple[int, ...]:
    if layout.joint_count == 25 and all(name in layout.joints for names in _NTU.values() for name in names):
        label_of = {name: label for label, names in _NTU.items() for name in names}
        return tuple(label_of.get(name, _NTU_REST) for name in layout.joints)
    if layout.joint_count == 20 and all(name in layout.joints for name in _UCLA_TRUNK):
        return tuple(0 if name in _UCLA_TRUNK else 2 if name.endswith(_UCLA_LEGS) else 1 for name in layout.joints)
    raise UserError(
        f"hyperformer.released: nothing was released for the {layout.joint_count} joints of {layout.name}, only for "
        "those of kinect_v2_25 (NTU RGB+D) and kinect_v1_20 (NW-UCLA)"
    )
