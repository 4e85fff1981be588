"""Single joints far from their body, and bodies that are somewhere else for a few frames."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmcl.skeletons.believable.boxes import Boxes

STRETCHED = 2.2  # times the usual extent of the clip's bodies that a body with a lost joint has
JUMP = 2.0  # times that extent by which nobody moves from one frame to the next
MANY = 0.2  # share of a clip above which it is not mended


class Stray(NamedTuple):
    """What is not where it should be.

    Attributes:
        where: joints (M, T, V) or bodies (M, T), bool.
        what: the same in words.
        few: so few of them that they are surely wrong, and not the others.
    """

    where: np.ndarray
    what: str
    few: bool


def lost_joints(joints: np.ndarray, there: np.ndarray, at: Boxes) -> Stray | None:
    """Joints far from their body.

    Args:
        joints: (M, T, V, C).
        there: (M, T, V) bool.
        at: boxes of these joints.

    Returns:
        None where there are none.
    """
    stretched = at.extent > STRETCHED * at.size
    if not stretched.any():
        return None
    bodies = np.where(there[stretched][..., None], joints[stretched], np.nan)
    away = np.sqrt(((bodies - np.nanmedian(bodies, axis=1, keepdims=True)) ** 2).sum(axis=-1))
    far = np.nan_to_num(away) > STRETCHED * at.size / 2
    found = np.zeros_like(there)
    found[stretched] = far & (far.sum(axis=1, keepdims=True) <= there.shape[2] / 3)
    count, total = int(found.sum()), int(there.sum())
    if not count:
        return None
    what = f"{count} joint{'s' * (count != 1)} far from the body, by up to {np.nanmax(away):.3g} metres"
    return Stray(found, what, count <= MANY * total)


def elsewhere(at: Boxes) -> Stray | None:
    """Frames in which a body is somewhere else; None where there are none.

    A body that goes back after a few frames was there the whole time. One that stays may be two people in one slot.
    """
    found, stays, furthest = np.zeros_like(at.there), False, 0.0
    for body, there in enumerate(at.there):
        frames = np.flatnonzero(there)
        if len(frames) < 2:
            continue
        with np.errstate(over="ignore"):
            steps = np.sqrt((np.diff(at.middle[body, frames], axis=0) ** 2).sum(axis=-1))
        jumps = np.flatnonzero(steps > JUMP * at.size)
        if not len(jumps):
            continue
        furthest = max(furthest, float(steps.max()))
        parts = np.split(frames, jumps + 1)
        main = max(parts, key=len)
        place = np.median(at.middle[body, main], axis=0)
        for part in parts:
            off = np.sqrt(((np.median(at.middle[body, part], axis=0) - place) ** 2).sum())
            if off > JUMP / 2 * at.size:
                found[body, part] = True
        stays |= bool(found[body].sum() > MANY * len(frames))
    if not found.any():
        return None
    frames = np.flatnonzero(found.any(axis=0))
    what = f"a body jumps by {furthest:.3g} metres (frame {frames[0]}{' and others' if len(frames) > 1 else ''})"
    return Stray(found, what, not stays)
