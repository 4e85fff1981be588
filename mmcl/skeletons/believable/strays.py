"""Joints that hang on bones no body has, and bodies that leap: judged by the clip's own size."""

from __future__ import annotations

import warnings

import numpy as np

from mmcl.skeletons.believable.boxes import Boxes
from mmcl.skeletons.believable.posture import LOOKED_AT
from mmcl.skeletons.layout import Layout

INNER = 0.8  # share of a body's joints that tell how large it is, wherever the others are
LONGER = 3.0  # times its usual length, or its twin's, or THIN of the body: a bone with a stray joint
THIN = 0.1  # of a body: shorter bones are compared with that
# Of a body: by how much such a bone is longer in a frame, or in the median frame; its length where its twin is as long.
NOW, MOSTLY, ANYHOW = 0.5, 0.25, 1.0
LEAP = 1.0  # of a body, by which nobody moves from one frame to the next, even at three frames a second
AWAY, BACK = 0.7, 0.25  # of a body: how far one that leaps and is back soon goes, and how far from there it is then
SOON = 5  # frames


def stray_joints(joints: np.ndarray, there: np.ndarray, layout: Layout) -> tuple[np.ndarray, str] | None:
    """Joints at the end of bones that are far too long.

    Args:
        joints: (M, T, V, C).
        there: (M, T, V) bool.
        layout: its tree and its sides are gone by.

    Returns:
        (M, T, V) bool, and what to say; None where there are none.
    """
    if not layout.edges or not there.any():
        return None
    child, parent = ([edge[end] for edge in layout.edges] for end in (0, 1))
    bones = joints[:, :, child] - joints[:, :, parent]
    seen = there[:, :, child] & there[:, :, parent]
    with np.errstate(over="ignore"):
        lengths = np.where(seen, np.sqrt((bones * bones).sum(axis=-1)), np.nan)
    size = reach(joints, there)
    if not size or not np.nanmax(lengths, initial=0) > MOSTLY * size:
        return None
    if seen.all():
        usual = np.median(lengths, axis=1, keepdims=True)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a bone that is never seen
            usual = np.nanmedian(lengths, axis=1, keepdims=True)
    least = np.fmin(usual, usual[:, :, _twins(layout)])
    times = LONGER * np.maximum(least, THIN * size)
    long = (lengths > times) & (lengths - least > NOW * size)
    long |= ((usual > times) & (usual - least > MOSTLY * size)) & (lengths > times)
    long |= (usual > ANYHOW * size) & (lengths > ANYHOW * size)
    if not long.any():
        return None
    found = _ends(long, seen, child, parent, there.shape[2])
    count, furthest = int(found.sum()), float(np.nanmax(np.where(long, lengths, 0)))
    return (
        found,
        f"{count} joint{'s' * (count != 1)} far from the body, on bones of up to {furthest / size:.2g} times its size",
    )


def reach(joints: np.ndarray, there: np.ndarray) -> float:
    """How large the bodies of a clip are, in the median, whatever a fifth of their joints do; 0 where nobody is."""
    shown = there.sum(axis=2) > 2
    bodies, known = joints[shown], there[shown]
    if not len(bodies):
        return 0.0
    some = np.linspace(0, len(bodies) - 1, min(len(bodies), LOOKED_AT)).astype(int)
    bodies, known = bodies[some].astype(np.float64), known[some]
    away = np.sqrt(((bodies - _quantile(bodies, known, 0.5)[:, None]) ** 2).sum(axis=-1, keepdims=True))
    return 2 * float(np.median(_quantile(away, known, INNER)))


def leaps(joints: np.ndarray, there: np.ndarray, at: Boxes) -> str | None:
    """Bodies (M, T, V, C) that go further in one frame than people do, or away and back within a few; in words."""
    size = reach(joints, there)
    first, furthest = None, 0.0
    for body, known in enumerate(at.there):
        frames = np.flatnonzero(known)
        if len(frames) < 2 or not size:
            continue
        place = joints[body, frames].sum(axis=1) / there[body, frames].sum(axis=1)[:, None]
        next_to = np.diff(frames) == 1
        steps = np.where(next_to, _length(np.diff(place, axis=0)), 0)
        wild = steps > LEAP * size
        for gap in range(2, SOON + 1):  # away by the first step of so many, and back by the last
            if len(frames) > gap:
                back = _length(place[gap:] - place[:-gap]) < BACK * size
                out = np.minimum(steps[: len(steps) - gap + 1], steps[gap - 1 :]) > AWAY * size
                wild[: len(steps) - gap + 1] |= back & out
        if wild.any():
            frame = int(frames[wild.argmax() + 1])
            first = frame if first is None else min(first, frame)
            furthest = max(furthest, float(steps[wild].max()))
    return None if first is None else f"a body jumps by {furthest / size:.2g} times its size (frame {first})"


def _twins(layout: Layout) -> list[int]:
    """For each bone the one on the other side of the body, or itself."""
    sides = {one: other for pair in layout.left_right for one, other in (pair, pair[::-1])}
    places = {frozenset(edge): number for number, edge in enumerate(layout.edges)}
    others = [frozenset(sides.get(end, end) for end in edge) for edge in layout.edges]
    return [places.get(other, number) for number, other in enumerate(others)]


def _ends(long: np.ndarray, seen: np.ndarray, child: list[int], parent: list[int], count: int) -> np.ndarray:
    """Which joints (M, T, V) are astray, by bones (M, T, E): first those all of whose bones are too long."""
    all_of, long_of = (np.zeros((*long.shape[:2], count), dtype=int) for _ in range(2))
    for bone, ends in enumerate(zip(child, parent, strict=True)):
        for end in ends:
            all_of[:, :, end] += seen[:, :, bone]
            long_of[:, :, end] += long[:, :, bone]
    found = (long_of > 1) & (long_of == all_of)
    degrees = np.bincount([*child, *parent], minlength=count)
    for bone, (one, other) in enumerate(zip(child, parent, strict=True)):
        outer = one if degrees[one] <= degrees[other] else other
        found[:, :, outer] |= long[:, :, bone] & ~found[:, :, one] & ~found[:, :, other]
    return np.asarray(found)


def _quantile(values: np.ndarray, known: np.ndarray, share: float) -> np.ndarray:
    """(B, C) the quantile of (B, V, C) over what is known (B, V); NumPy's own loops over rows."""
    ordered = np.sort(np.where(known[..., None], values, np.inf), axis=1)
    place = share * (known.sum(axis=1) - 1)
    low, high = (
        np.take_along_axis(ordered, end(place).astype(int)[:, None, None], axis=1)[:, 0] for end in (np.floor, np.ceil)
    )
    return np.asarray(low + (high - low) * (place % 1)[:, None])


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((vectors * vectors).sum(axis=-1)))
