"""Follows people through the frames of a film, and makes one recording of what was found of each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.pose.path import places, smooth_path
from mmcl.pose.recording import Recording, Refinement, at_steady_rate, exchanged, smoothed, upright
from mmcl.pose.timing import fill_gaps
from mmcl.pose.tracking import Tracker
from mmcl.pose.worker import Glance
from mmcl.skeletons.layout import Layout

SHORTEST, FEWEST = 0.4, 0.05  # seconds, and share of the film, in which somebody must be seen to be more than a ghost


def gather(glances: Iterable[Glance], picture: tuple[int, int], layout: Layout, how: Refinement) -> Recording:
    """Follow people through the frames of a film, and refine what was found.

    Args:
        glances: the frames, in their order.
        picture: width and height of the film.
        layout: in which the estimator's joints come.
        how: what is made of them.

    Raises:
        BadClip: nobody is in any frame, or the frames lie too far apart.
    """
    found = _followed(glances, layout.joint_count, how.longest_gap)
    if found is None:
        raise BadClip("nobody was found in any frame")
    seconds, frames, pixels, confidence, space = found
    for person in range(len(pixels)):
        sure = confidence[person].copy()
        fill_gaps(pixels[person], confidence[person], seconds, how.longest_gap)
        if space is not None:
            fill_gaps(space[person], sure, seconds, how.longest_gap)
    joints = None if space is None else np.stack(
        [_in_room(*parts, seconds, picture, how) for parts in zip(space, pixels, confidence, strict=True)]
    )  # fmt: skip
    if how.mirrored:
        order = exchanged(layout)
        pixels, confidence = pixels[:, :, order], confidence[:, :, order]
    joints = None if joints is None else upright(joints, layout, how.mirrored)
    recording = Recording(pixels, confidence, joints, seconds, frames, picture, layout, how.mirrored)
    steady = at_steady_rate(recording, how.fps)
    there = steady.part(slice(None))  # who was seen in one frame alone may be between those of the steady rate
    if not len(there.pixels):
        raise BadClip("nobody was found in any frame")
    return smoothed(there, how.smooth)


Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, "np.ndarray | None"]


def _followed(glances: Iterable[Glance], joint_count: int, gap: float) -> Found | None:
    """Seconds and frame numbers (T,); pixels (M, T, V, 2), confidence (M, T, V) and space (M, T, V, 3) of each person.

    Nobody who is seen for a moment alone is among them, unless there is nobody else. None where nobody is.
    """
    tracker, seen = Tracker(gap), []
    for glance in glances:
        poses, numbers = tracker.follow(glance.seconds, glance.poses)
        seen.append((glance.frame, glance.seconds, poses, numbers))
    people = max((number for *_, numbers in seen for number in numbers), default=-1) + 1
    if not people:
        return None
    frames, seconds = np.array([row[0] for row in seen]), np.array([row[1] for row in seen])
    shape, depth = (people, len(seen), joint_count), any(poses.space is not None for _, _, poses, _ in seen)
    pixels, confidence = np.full((*shape, 2), np.nan), np.zeros(shape)
    space = np.full((*shape, 3), np.nan) if depth else None
    for row, (*_, poses, numbers) in enumerate(seen):
        pixels[numbers, row], confidence[numbers, row] = poses.pixels, poses.confidence
        if space is not None and poses.space is not None:
            space[numbers, row] = np.where(poses.confidence[..., None] > 0, poses.space, np.nan)
    kept = _people(confidence, pixels, seconds)
    return seconds, frames, pixels[kept], confidence[kept], None if space is None else space[kept]


def _people(confidence: np.ndarray, pixels: np.ndarray, seconds: np.ndarray) -> list[int]:
    """Who is no ghost; those first who are seen longest and largest."""
    there = np.asarray((confidence > 0).any(axis=2))
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    frames = there.sum(axis=1)
    least = max(SHORTEST / max(step, 1e-6), FEWEST * len(seconds))
    kept = np.flatnonzero(frames >= min(least, frames.max()))
    with np.errstate(invalid="ignore"):
        extent = np.nanmax(pixels[kept], axis=2, initial=-np.inf) - np.nanmin(pixels[kept], axis=2, initial=np.inf)
    tall = [float(np.median(extent[row, there[person], 1])) for row, person in enumerate(kept)]
    weight = frames[kept] * np.array(tall)
    return [int(kept[row]) for row in np.argsort(-weight, kind="stable")]


def _in_room(
    space: np.ndarray, pixels: np.ndarray, confidence: np.ndarray, seconds: np.ndarray, picture: tuple[int, int],
    how: Refinement,
) -> np.ndarray:  # fmt: skip
    """One person's (T, V, 3) joints where they stand in the room, on the picture's axes."""
    if not how.path:
        return space
    path = smooth_path(places(space, pixels, confidence, picture, how.angle), seconds)
    return space if np.isnan(path).any() else np.asarray(space + path[:, None])
