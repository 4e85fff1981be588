"""Where the head and the hips of a body are whose joints have names that say nothing: from its tree and its bones.

A body has two pairs of limbs of equal bones, and one end more, the head. Arms hang on the trunk nearer to the head than
legs do, so the way up leads from where the legs meet to the head.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from mmcl.skeletons.layout import Layout

ALIKE = 0.25  # by which share of the longer one two limbs' bones may differ


@dataclass(frozen=True)
class Limb:
    """A way from an end of the tree to the joint where it branches.

    Attributes:
        joints: from the end on; the last is the joint where it branches.
        bones: median length of each bone.
    """

    joints: tuple[int, ...]
    bones: tuple[float, ...]


def ends(frames: np.ndarray, layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Joints in whose middle the head is, and joints in whose middle the hips are; None where the tree tells neither.

    Args:
        frames: (n, V, C), NaN where a joint is missing.
        layout: its tree is looked at, not its names.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nothing but NaN the median is NaN: that is meant
        pairs, single = _pairs(_limbs(frames, layout))
        middle = np.nanmedian(frames, axis=0)
    if not pairs or not single:
        return None
    # The arms' pair branches off nearest to the head; what is left of equal distance has the shorter bones.
    head = min(single, key=lambda limb: sum(limb.bones))
    away = [(_distance(middle, head.joints[-1], pair), sum(pair[0].bones), pair) for pair in pairs]
    legs = max(away, key=lambda entry: entry[:2])[2]
    return (head.joints[0],), (legs[0].joints[-1], legs[1].joints[-1])


def _limbs(frames: np.ndarray, layout: Layout) -> list[Limb]:
    near: list[list[int]] = [[] for _ in layout.joints]
    for child, parent in layout.edges:
        near[child].append(parent)
        near[parent].append(child)
    limbs = []
    for end in (joint for joint, others in enumerate(near) if len(others) == 1):
        path = [end]
        while len(near[path[-1]]) < 3:
            onward = [joint for joint in near[path[-1]] if len(path) < 2 or joint != path[-2]]
            if not onward:
                break
            path.append(onward[0])
        bones = frames[:, path[1:]] - frames[:, path[:-1]]
        length = np.nanmedian(np.sqrt((bones**2).sum(axis=-1)), axis=0)
        limbs.append(Limb(tuple(path), tuple(length.tolist())))
    return limbs


def _pairs(limbs: list[Limb]) -> tuple[list[tuple[Limb, Limb]], list[Limb]]:
    """Limbs that are alike, two by two, and those that are like no other."""
    pairs, single, left = [], [], sorted(limbs, key=lambda limb: -sum(limb.bones))
    while left:
        limb = left.pop(0)
        fitting = [other for other in left if len(other.bones) == len(limb.bones)]
        twin = min(fitting, key=lambda other: _unlikeness(limb, other), default=None)
        if twin is not None and _unlikeness(limb, twin) < ALIKE:
            left.remove(twin)
            pairs.append((limb, twin))
        else:
            single.append(limb)
    return pairs, single


def _unlikeness(one: Limb, other: Limb) -> float:
    a, b = np.array(one.bones), np.array(other.bones)
    return float(np.max(np.abs(a - b) / np.maximum(np.maximum(a, b), 1e-9)))


def _distance(middle: np.ndarray, joint: int, pair: tuple[Limb, Limb]) -> float:
    """Between a joint and where a pair of limbs branches off."""
    meets = (middle[pair[0].joints[-1]] + middle[pair[1].joints[-1]]) / 2
    return float(np.sqrt(((middle[joint] - meets) ** 2).sum()))
