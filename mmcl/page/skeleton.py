"""What the pages' ``skeleton.js`` draws of a clip: its bones and joint names, and its joints as text."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from mmcl.common.printing import one_line
from mmcl.skeletons.layout import Layout

MILLIMETRE = 1e-3
MOST, MISSING = 2**15 - 1, -(2**15)  # of 16 bits
WILD = 0.999  # share of the coordinates that set the unit: one wild joint does not take the others' millimetres


def skeleton_facts(layout: Layout) -> dict[str, Any]:
    """Bones and joint names of a layout."""
    bones = [list(pair) for pair in layout.edges + layout.links]
    return {"bones": bones, "names": [one_line(name) for name in layout.joints]}


def encode_joints(joints: np.ndarray) -> dict[str, Any]:
    """Joints (M, T, V, 3) as a page holds them.

    Coordinates are rounded to millimetres, or to coarser steps where a clip reaches further than 16 m, and written as
    little-endian numbers of 16 bits in base64. A joint that is missing (all zero, or not finite) is
    :data:`MISSING` three times.

    Args:
        joints: missing ones zero.

    Returns:
        ``persons``, ``frames``, ``unit`` (metres of a step) and ``joints``.
    """
    there = joints.any(axis=-1) & np.isfinite(joints).all(axis=-1)
    sizes = np.abs(joints[there])
    unit = max(MILLIMETRE, 2 * float(np.quantile(sizes, WILD, method="lower")) / MOST) if sizes.size else MILLIMETRE
    steps = np.clip(np.round(np.where(there[..., None], joints, 0) / unit), -MOST, MOST).astype("<i2")
    steps[there & ~steps.any(axis=-1), 0] = 1  # at the origin, and yet there
    steps[~there] = MISSING
    text = base64.b64encode(steps.tobytes()).decode()
    return {"persons": joints.shape[0], "frames": joints.shape[1], "unit": unit, "joints": text}
