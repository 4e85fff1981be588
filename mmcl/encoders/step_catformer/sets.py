"""The two sets of joints that each part module compares, the parts that texts describe, and bones as a matrix.

The released lists are for the 25 joints of NTU RGB+D. They follow from the layout's parts, so that any layout that has
arms and legs gives its own: arms are parts whose name ends in "arm" or "hand", legs those that end in "leg" or "foot",
and the rest is the trunk, whose lower joints are those that are nearer to a leg than to an arm, or, if there are such,
as near.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.encoders.hyperformer.hypergraph import hop_distances
from mmcl.skeletons.layout import Layout

PART_MODULES = ("hand", "leg", "hand_leg", "up_down")
TEXT_PARTS = ("head", "hand", "hip", "foot")  # in the order of the released outputs
NTU_JOINTS = 25

# Where the released lists do not follow from the parts (model/ctrgcn.py): the order of the upper half, the neck among
# the hips, and in the bone model the top of the spine in place of the tip of the left hand.
_RELEASED_UPPER = (
    "neck", "head", "right_wrist", "right_hand", "left_wrist", "left_hand", "right_shoulder", "right_elbow",
    "left_shoulder", "left_elbow", "spine_shoulder", "left_hand_tip", "left_thumb", "right_hand_tip", "right_thumb",
)  # fmt: skip


@dataclass(frozen=True)
class Body:
    """Joints of a layout by what they belong to, each in the order in which the released lists have them."""

    arms: tuple[int, ...]
    legs: tuple[int, ...]
    upper: tuple[int, ...]
    lower: tuple[int, ...]
    hips: tuple[int, ...]
    base: tuple[int, ...]


def body_of(layout: Layout) -> Body:
    """Find arms, legs and both ends of the trunk.

    Raises:
        UserError: the layout's parts name no arms or no legs.
    """
    arms = sorted({joint for name, part in layout.parts.items() if name.endswith(("arm", "hand")) for joint in part})
    leg_parts = [part for name, part in layout.parts.items() if name.endswith(("leg", "foot"))]
    legs = list(dict.fromkeys(joint for part in reversed(leg_parts) for joint in part if joint not in arms))
    if not arms or not legs:
        raise UserError(
            f"step_catformer compares arms and legs, but the parts of {layout.name} are "
            f"{', '.join(layout.parts) or 'none'}: name parts 'left_arm', 'right_arm', 'left_leg' and 'right_leg'"
        )
    hops = hop_distances(layout)
    trunk = [joint for joint in range(layout.joint_count) if joint not in arms and joint not in legs]
    gaps = {joint: hops[joint, legs].min() - hops[joint, arms].min() for joint in trunk}
    has_end = any(gap < 0 for gap in gaps.values())
    lower = [joint for joint, gap in gaps.items() if gap < 0 or (gap == 0 and has_end)]
    others = [joint for joint in range(layout.joint_count) if joint not in legs]
    return Body(
        arms=tuple(arms), legs=tuple(legs), lower=tuple(lower),
        upper=tuple(joint for joint in trunk if joint not in lower),
        hips=tuple(joint for joint in sorted(legs) if hops[joint, others].min() == 1),
        base=tuple(joint for joint in trunk if hops[joint, legs].min() == 1),
    )  # fmt: skip


def part_sets(layout: Layout, released: bool = False) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Of each part module the narrow set (arms, upper half) and the wide one (legs, lower half).

    Together they are all joints. The first joint of a set speaks for it: it carries the class token.

    Args:
        layout: with arms and legs among its parts.
        released: have the upper half of NTU's joints in the released order.
    """
    body = body_of(layout)
    trunk = tuple(sorted(body.upper + body.lower))
    upper = body.upper + body.arms
    if released and _is_ntu(layout):
        upper = tuple(layout.joints.index(name) for name in _RELEASED_UPPER)
    above = tuple(joint for joint in trunk if joint not in body.base)
    halves = (upper, body.legs + body.lower)
    return {
        "hand": (body.arms, body.legs + trunk), "leg": (body.arms + above, body.legs + body.base),
        "hand_leg": halves, "up_down": halves,
    }  # fmt: skip


def text_parts(layout: Layout, released: bool = False, bones: bool = False) -> dict[str, tuple[int, ...]]:
    """The joints of each of ``TEXT_PARTS``.

    Args:
        layout: with arms and legs among its parts.
        released: with what the released lists for NTU's joints add or take.
        bones: the lists of the released bone model instead of those of its joint model.
    """
    body = body_of(layout)
    parts = {
        "head": body.upper or body.lower or body.arms, "hand": body.arms, "hip": body.lower + body.hips,
        "foot": tuple(sorted(body.legs)),
    }  # fmt: skip
    if released and _is_ntu(layout):
        neck, top, tip = (layout.joints.index(name) for name in ("neck", "spine_shoulder", "left_hand_tip"))
        if bones:
            parts["head"] = tuple(joint for joint in parts["head"] if joint != top)
            parts["hand"] = tuple(sorted({*parts["hand"], top} - {tip}))
        else:
            parts["hip"] = tuple(sorted({*parts["hip"], neck}))
    return parts


def bone_matrix(layout: Layout, power: int, released: bool = False) -> Tensor:
    """(V, V): I - A^power, which takes from each joint the one that lies ``power`` bones towards the root.

    A joint for which there is none stays as it is. With power 0 each is taken from itself, so that all entries are 0.

    Args:
        layout: whose bones are those of its bone stream.
        power: k.
        released: let NTU's bones begin in the middle of the spine instead of at its top, as in the released graph.
    """
    parents = list(layout.bone_parents)
    if released and _is_ntu(layout):
        middle, top = layout.joints.index("mid_spine"), layout.joints.index("spine_shoulder")
        parents[middle], parents[top] = middle, middle
    matrix = torch.eye(layout.joint_count)
    for joint in range(layout.joint_count):
        ancestor = joint
        for _ in range(power):
            if parents[ancestor] == ancestor:
                break
            ancestor = parents[ancestor]
        else:
            matrix[joint, ancestor] -= 1.0
    return matrix


def inverse_order(order: Sequence[int]) -> list[int]:
    """Where each of 0, 1, 2, … stands in ``order``."""
    return [list(order).index(place) for place in range(len(order))]


def _is_ntu(layout: Layout) -> bool:
    return layout.joint_count == NTU_JOINTS and all(name in layout.joints for name in (*_RELEASED_UPPER, "mid_spine"))
