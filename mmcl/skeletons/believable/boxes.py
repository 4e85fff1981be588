"""Where each body of a clip is and how large, frame by frame: what the quick looks at a clip go by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Boxes:
    """Boxes around bodies.

    Attributes:
        there: (M, T) bool, in which frames a body is there.
        middle: (M, T, C) middle of its box; not a number where it is not there.
        sides: (C, M, T) sides of its box; not to be used where it is not there.
        extent: (M, T) longest side; 0 where it is not there.
        size: median extent; 0 where nobody is there.
    """

    there: np.ndarray
    middle: np.ndarray
    sides: np.ndarray
    extent: np.ndarray
    size: float


def present(joints: np.ndarray) -> np.ndarray:
    """(…, C) -> (…) bool: joints that are there, which those of zeros alone are not."""
    found = np.asarray(joints[..., 0] != 0)
    for axis in range(1, joints.shape[-1]):
        found |= joints[..., axis] != 0
    return found


def boxes(joints: np.ndarray, there: np.ndarray) -> Boxes:
    """Boxes of joints (M, T, V, C), of which ``there`` (M, T, V) are not missing."""
    axes = np.ascontiguousarray(joints.transpose(3, 0, 1, 2))  # NumPy is slow along short last axes
    bodies = np.asarray(there.any(axis=2))
    if there.all():
        low, high = axes.min(axis=3), axes.max(axis=3)
    else:
        low, high = (np.where(there, axes, end) for end in (np.inf, -np.inf))
        low, high = low.min(axis=3), high.max(axis=3)
    with np.errstate(invalid="ignore", over="ignore"):
        sides = high - low
        extent = np.where(bodies, sides.max(axis=0), 0)
        middle = ((low + high) / 2).transpose(1, 2, 0)
    seen = np.sort(extent[bodies])
    size = float(seen[(len(seen) - 1) // 2] + seen[len(seen) // 2]) / 2 if len(seen) else 0.0
    return Boxes(bodies, middle, sides, extent, size)
