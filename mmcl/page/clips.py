"""Clips of a store as the player shows them: joints, pictures where they are asked for, and what a model says."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmcl.common.printing import one_line
from mmcl.data.inspection.animation import caption
from mmcl.data.inspection.contact_sheet import crop_pictures
from mmcl.data.store import ClipStore
from mmcl.deploy.films import label_windows
from mmcl.deploy.segments import TOGETHER, WindowLabel
from mmcl.deploy.stream import Ranking
from mmcl.page.skeleton import encode_joints

PICTURE, QUALITY = 256, 80  # pixels and JPEG quality of the video's frames
FEWEST_LINES, MOST_LINES = 5, 24  # classes whose scores are drawn
MOST_WINDOWS = 600
DIGITS = 4  # of probabilities


def shown_clip(store: ClipStore, index: int, title: str | None = None, pictures: bool = False) -> dict[str, Any]:
    """A clip with its joints.

    Args:
        store: where it is.
        index: its position there.
        title: what stands above it; None takes its class.
        pictures: take the stored crops of its video along, where it has some.

    Raises:
        DamagedClip: its joints, or its pictures, are not what was prepared.
    """
    joints = store.joints_in_space(index)
    words = store.class_names[store.labels[index]] if title is None else title
    clip = {"title": one_line(words), "about": one_line(caption(store, index)), "fps": store.fps}
    clip |= {"flip": as_in_pictures(store, index), **encode_joints(joints)}
    return clip | ({"pictures": _pictures(store, index)} if pictures and store.video_frames[index] else {})


def as_in_pictures(store: ClipStore, index: int) -> int:
    """Whether x goes to the right in a clip's pictures (1) or to the left (-1).

    In space, x goes to the left of who looks along z; pictures of a Kinect are mirror images. Where nothing is known of
    its pictures, a clip is shown as if they were a Kinect's.
    """
    pixels = store.pixels(index)[..., 0]  # (m, M, V)
    joints = store.joints_in_space(index)[:, store.frame_indices(index)].swapaxes(0, 1)
    if pixels.shape != joints.shape[:3] or not pixels.size:
        return 1
    known = np.isfinite(pixels) & joints.any(axis=-1)
    right, across = pixels[known].astype(float), joints[..., 0][known].astype(float)
    return -1 if len(right) > 1 and float(((right - right.mean()) * (across - across.mean())).sum()) < 0 else 1


def _pictures(store: ClipStore, index: int) -> dict[str, Any]:
    """The stored crops of a clip, with the skeleton over them, and the frames that they are of."""
    jpegs = []
    for picture in crop_pictures(store, index, PICTURE):
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=QUALITY)
        jpegs.append(f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}")
    return {"frames": store.frame_indices(index).tolist(), "jpegs": jpegs}


def scores_over_time(
    joints: np.ndarray, classify: Callable[[np.ndarray], Ranking], span: int, hop: int,
    rejected: Callable[[Ranking], bool], threshold: float | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """What a model says of the windows of a clip, for the player's lines; None where nobody is in any window.

    Args:
        joints: (M, T, V, C) of all people, who get one label together.
        classify: (M, T, V, C) -> ranking of all classes.
        span: frames of a window.
        hop: frames from one window to the next; more, where there would be more than 600 windows.
        rejected: whether a ranking is to be taken for none of the classes.
        threshold: probability below which it is, where there is one.
    """
    hop = max(hop, -(-joints.shape[1] // MOST_WINDOWS))
    there = np.asarray(joints.any(axis=(0, 2, 3)))
    labels = list(label_windows(TOGETHER, joints, there, classify, span, hop, rejected))
    if not labels:
        return None
    shown = _shown(labels)
    rows = [{label: probability for label, _, probability in each.ranking} for each in labels]
    names = {label: name for label, name, _ in labels[0].ranking}
    return {
        "names": [one_line(names[label]) for label in shown],
        "windows": [[each.begin, each.end] for each in labels],
        "shares": [[round(row[label], DIGITS) for label in shown] for row in rows],
        "rejected": [each.rejected for each in labels],
        "threshold": threshold,
    }


def _shown(labels: Sequence[WindowLabel]) -> list[int]:
    """Classes whose scores are drawn: those that are first in a window, and others that come near."""
    highest: dict[int, float] = {}
    for each in labels:
        for label, _, probability in each.ranking:
            highest[label] = max(highest.get(label, 0.0), probability)
    first = {each.ranking[0][0] for each in labels}
    ranked = sorted(highest, key=lambda label: (label not in first, -highest[label]))
    return ranked[: min(max(FEWEST_LINES, len(first)), MOST_LINES)]


def answered_clip(store: ClipStore, index: int, title: str, answers: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """A clip with what a model says of the whole of it: names and probabilities, the most probable first."""
    rows = [[one_line(name), round(share, DIGITS)] for name, share in answers]
    return shown_clip(store, index, title) | {"answers": rows}
