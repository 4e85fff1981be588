"""Recordings that stand still, exactly or but for a jitter that no person keeps to, and frames that are copies."""

from __future__ import annotations

import numpy as np

from mmcl.skeletons.believable.boxes import Boxes
from mmcl.skeletons.believable.remarks import KINDS, Remark

STUCK, COPIES = 1 / 3, (0.3, 0.7)  # shares of a clip's frames that are like the one before
FEW = 5  # frames: a clip must have more of them to be called stuck
EQUAL = 1e-5  # of a body's extent: copies that were moved, scaled or rounded since
# Of a body's extent, 3 mm of a standing one's: within so little all joints stay throughout a stuck recording. In the
# calmest third of any real clip of four data sets, some joint goes ten times as far.
REST, LONG = 0.002, 15  # over so many frames: in fewer, somebody may hold as still


def stillness(joints: np.ndarray, there: np.ndarray, at: Boxes) -> list[Remark]:
    """Look for both.

    Args:
        joints: (M, T, V, C).
        there: (M, T, V) bool, which joints are there.
        at: boxes of these joints.
    """
    seen = np.asarray(at.there.any(axis=0))
    if len(seen) <= FEW:
        return []
    both = there[:, 1:] & there[:, :-1]
    with np.errstate(over="ignore"):
        steps = np.abs(joints[:, 1:] - joints[:, :-1]).max(axis=-1)
    steps = np.where(both, steps, 0).max(axis=(0, 2))
    known = seen[1:] & (there[:, 1:].any(axis=2) == there[:, :-1].any(axis=2)).all(axis=0)  # nobody comes or goes
    least = max(FEW, int(STUCK * len(seen)) + 1)  # steps from frame to frame that a stuck recording has
    most = at.size * (REST if least >= LONG else EQUAL)
    if (stuck := _stuck(joints, there, known & (steps <= most), most, least)) is not None:
        what = f"nothing moves from frame {stuck[0]} to {stuck[1]}, of {len(seen)}"
        return [Remark("still", what, KINDS["still"].advice)]
    copies = float((known & (steps <= EQUAL * at.size)).mean())
    if COPIES[0] < copies < COPIES[1]:
        what = f"{copies:.0%} of the frames are copies of the one before"
        return [Remark("repeated", what, KINDS["repeated"].advice)]
    return []


def _stuck(
    joints: np.ndarray, there: np.ndarray, calm: np.ndarray, most: float, least: int
) -> tuple[int, int] | None:  # fmt: skip
    """The first and the last frame of a stretch in which no joint leaves a box with sides of ``most``.

    Args:
        joints: (M, T, V, C).
        there: (M, T, V) bool.
        calm: (T - 1,) bool, after which frames no joint goes further than that.
        most: the sides.
        least: frames that follow the first one, at least.

    Returns:
        None where there is none.
    """
    places = np.flatnonzero(np.concatenate([[True], ~calm, [True]]))
    for start, length in zip(places[:-1], np.diff(places) - 1, strict=True):
        if length < least:
            continue
        part = slice(int(start), int(start + length) + 1)
        known = there[:, part, :, None]
        low, high = (np.where(known, joints[:, part], end) for end in (np.inf, -np.inf))
        within = _in_a_row(high, np.maximum, least + 1) - _in_a_row(low, np.minimum, least + 1) <= most
        if not (found := np.flatnonzero(within.all(axis=(0, 2, 3)))).size:
            continue
        first = int(found[0])
        spread = np.maximum.accumulate(high[:, first:], axis=1) - np.minimum.accumulate(low[:, first:], axis=1)
        inside = np.asarray((spread <= most).all(axis=(0, 2, 3)))
        last = first + (len(inside) if inside.all() else int(inside.argmin())) - 1
        return part.start + first, part.start + last
    return None


def _in_a_row(values: np.ndarray, end: np.ufunc, count: int) -> np.ndarray:
    """The largest or smallest of so many frames in a row, of (M, T, V, C), from each frame on that has as many."""
    done = 1
    while done < count:
        step = min(done, count - done)
        values = end(values[:, :-step], values[:, step:])
        done += step
    return values
