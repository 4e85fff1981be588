"""The input of the released SkeleT-GCN, as its data pipeline makes it: pixels and scores in, clips for the network out.

Source: ``pyskl/datasets/pipelines/pose_related.py`` and ``sampling.py`` of YijieYang23/SkeleT-GCN. A score is a third
coordinate, of which bones and motion are differences, too. Frames are drawn from NumPy's old random state, whose
numbers no version changes. mmcl's own input is ``preprocess.py``; docs/methods/skelet.md says how the two differ.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout

IMAGE = (1080, 1920)  # height and width that the release divides by where a recording does not tell its own
UNSEEN = 0.01  # a point whose score is not above it lies at (0, 0), which is the picture's centre; its score stays
SMALLEST = 10  # pixels: "auto" leaves what is narrower or lower as it is
TEST_SEED = 289800
FEATURES = ("j", "b", "jm", "bm")


def normalise(
    points: np.ndarray, scores: np.ndarray, mode: Literal["fix", "auto"] = "fix", image: tuple[int, int] = IMAGE
) -> np.ndarray:
    """``PreNormalize2D``: the picture ("fix"), or the box around all seen points ("auto"), becomes -1 to 1.

    Args:
        points: (M, T, V, 2) pixels.
        scores: (M, T, V).
        mode: see above.
        image: height and width; only "fix" reads it.

    Returns:
        (M, T, V, 3) float32: x, y, score.
    """
    found = np.concatenate([points, scores[..., None]], axis=-1, dtype=np.float32)
    seen = found[..., 2] > UNSEEN
    if mode == "fix":
        half = np.array([image[1] / 2, image[0] / 2], dtype=np.float32)
        found[..., :2] = (found[..., :2] - half) / half
    elif seen.any():
        low, high = found[seen, :2].min(axis=0), found[seen, :2].max(axis=0)
        if (high - low > SMALLEST).all():
            found[..., :2] = (found[..., :2] - (high + low) / 2) / (high - low) * 2
    found[~seen, :2] = 0
    return found


def feature(joints: np.ndarray, names: str, layout: Layout) -> np.ndarray:
    """``GenSkeFeat`` for whole-body points, on all frames of a recording: before any are chosen.

    Args:
        joints: (M, T, V, C), as normalised.
        names: "j", "b", "jm" or "bm", or several joined by "+", whose coordinates follow one another.
        layout: says where bones begin, such as ``coco_wholebody_65``.

    Returns:
        (M, T, V, C), or as many times C as there are names. The last frame's motion is 0.

    Raises:
        UserError: a name is none of these.
    """
    bones = joints - joints[:, :, list(layout.bone_parents)]
    made = []
    for name in names.split("+"):
        if name not in FEATURES:
            raise UserError(f"the released SkeleT-GCN has the features {', '.join(FEATURES)}, not '{name}'")
        stream = joints if name.startswith("j") else bones
        if name.endswith("m"):
            stream = np.concatenate([np.diff(stream, axis=1), np.zeros_like(stream[:, :1])], axis=1)
        made.append(stream)
    return np.concatenate(made, axis=-1)


def frames_of(frames: int, window: int, clips: int = 1, draws: np.random.RandomState | None = None) -> np.ndarray:
    """``UniformSample``: one frame of each of ``window`` equal stretches; what is shorter begins again at its end.

    Args:
        frames: of the recording.
        window: frames of a clip.
        clips: how many are chosen.
        draws: of training. Without it, as released for tests, every recording's draws begin at the same seed, and
            short recordings are begun at places spread over them.

    Returns:
        (clips * window,) frame numbers.
    """
    test, draws = draws is None, np.random.RandomState(TEST_SEED) if draws is None else draws
    found = []
    for clip in range(clips):
        draws.rand()  # the release draws a share of the recording, which its configurations fix at all of it
        if frames < window:
            spread = clip if frames < clips else clip * frames // clips
            first = spread if test else draws.randint(0, frames)
            found.append(np.arange(first, first + window) % frames)
        elif frames < 2 * window:
            left_out = np.zeros(window + 1, dtype=np.int64)
            left_out[draws.choice(window + 1, frames - window, replace=False)] = 1
            found.append(np.arange(window) + np.cumsum(left_out)[:-1])
        else:
            edges = np.arange(window + 1) * frames // window
            found.append(edges[:-1] + draws.randint(np.diff(edges)))
    return np.concatenate(found)


def as_clips(features: np.ndarray, chosen: np.ndarray, clips: int, persons: int) -> np.ndarray:
    """``PoseDecode`` and ``FormatGCNInput``: (M, T, V, C) and frame numbers -> (clips, persons, window, V, C).

    The first persons are kept; where there are fewer, the others are zeros.
    """
    found = features[:persons, chosen].astype(np.float32)
    found = np.concatenate([found, np.zeros((persons - len(found), *found.shape[1:]), dtype=np.float32)])
    return np.ascontiguousarray(found.reshape(persons, clips, -1, *found.shape[2:]).swapaxes(0, 1))
