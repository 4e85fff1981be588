"""Numbers that a tracker writes where it saw no joint: -1, -9999, a million, a depth of exactly zero.

A placeholder is the same number again and again, in different joints or frames. Either all coordinates of a joint are
that number, which no joint's are by chance; or the number is the largest or smallest of its axis and lies far from the
body; or the very same point is taken by different joints at different times.
"""

from __future__ import annotations

import numpy as np

FAR = 1.6  # times the distance of a body's outermost joint from its middle
COARSE = 0.25  # as many different numbers for each number that there is
ROUNDS = 6  # different placeholders that are looked for


def placeholders(joints: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, list[str]] | None:
    """Find them.

    Args:
        joints: (M, T, V, C), finite.
        there: (M, T, V) bool, which joints are there.

    Returns:
        (M, T, V) bool, joints that are placeholders, and the placeholders in words; None where there are none.
    """
    found, words = np.zeros_like(there), []
    equal = joints[..., 0] == joints[..., 1]
    if joints.shape[-1] == 3:
        equal &= joints[..., 1] == joints[..., 2]
    equal &= there
    if np.count_nonzero(equal) > 1:
        values, counts = np.unique(joints[..., 0][equal], return_counts=True)
        for value in values[counts > 1]:
            same = equal & (joints[..., 0] == value)
            if _far(joints, there & ~same, same, slice(None), float(value), 1.0):
                found |= same
                words.append(f"{value:g} in all coordinates")
    for _ in range(ROUNDS):
        left = there & ~found if words else there
        again = _outermost(joints, left)
        if again is None:
            break
        where, axis, value = again
        for other in (axis, *(each for each in range(joints.shape[-1]) if each != axis)):
            if other != axis:  # a tracker that writes a number for one coordinate writes it for the others, too
                where = _as_well(joints[..., other], left, value)
            if where.any():
                found |= where
                words.append(f"{'xyz'[other]} = {value:g}")
    return (found, words) if words else None


def _outermost(joints: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, int, float] | None:
    """Joints that have the largest or smallest number of an axis in common, where that is a placeholder; both, too."""
    for axis in range(joints.shape[-1]):
        values = joints[..., axis]
        for end, identity in ((np.min, np.inf), (np.max, -np.inf)):
            value = end(values, initial=identity, where=there)
            same = (values == value) & there
            count = np.count_nonzero(same)
            if count < 2 or count == np.count_nonzero(there):
                continue
            far = _far(joints, there & ~same, same, slice(axis, axis + 1), float(value), FAR)
            if far or _one_place(joints, same, there):
                return same, axis, float(value)
    return None


def _as_well(values: np.ndarray, there: np.ndarray, value: float) -> np.ndarray:
    """Where one coordinate (M, T, V) has a placeholder of another, if that is there far more often than any number."""
    same = (values == value) & there
    count = np.count_nonzero(same)
    rest = there & ~same
    if value == 0 or count < 2 or not rest.any() or count < 2 * np.unique(values[rest], return_counts=True)[1].max():
        return np.zeros_like(there)
    return same


def _far(joints: np.ndarray, others: np.ndarray, same: np.ndarray, axes: slice, value: float, far: float) -> bool:
    """Whether a value of some axes lies outside of the bodies that show it."""
    bodies = np.where(others[..., None], joints, np.nan)[same.any(axis=-1) & (others.sum(axis=-1) > 2)]
    if not len(bodies):  # nothing else is there to compare with
        return axes == slice(None)
    middle = np.nanmedian(bodies, axis=1)
    with np.errstate(over="ignore"):  # a placeholder may be the largest number that there is
        reach = np.nanmax(np.sqrt(((bodies - middle[:, None]) ** 2).sum(axis=-1)), axis=1)
        away = np.sqrt(((middle[:, axes] - value) ** 2).sum(axis=-1))
    return bool(np.median(away) > far * np.median(reach))


def _one_place(joints: np.ndarray, same: np.ndarray, there: np.ndarray) -> bool:
    """Whether the most frequent point of some joints is taken by different joints at different times."""
    _, frames, which = np.nonzero(same)
    _, inverse, counts = np.unique(joints[same], axis=0, return_inverse=True, return_counts=True)
    if counts.max() < 3:
        return False
    often = inverse.reshape(-1) == counts.argmax()
    apart = len(np.unique(frames[often])) > 1 and len(np.unique(which[often])) > 1
    return apart and not _coarse(joints[there])


def _coarse(points: np.ndarray) -> bool:
    """Whether points (n, C) are rounded so much that many of them have a number in common by chance."""
    return len(np.unique(points[:, 0])) < COARSE * len(points)
