"""What the people in a video do: a label for each of them and each window of time, joined into segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.readers.joints import as_taken, clip_in_plane
from mmcl.deploy.segments import TOGETHER, Segment, WindowLabel, join, windows
from mmcl.deploy.stream import Ranking
from mmcl.pose.recording import Recording

HERE = 0.5  # share of a window's frames in which somebody must be there to get a label


@dataclass(frozen=True)
class FilmLabels:
    """A video and what a model says of it.

    Attributes:
        path: of the video.
        recording: the people in it.
        labels: of windows, person by person.
        segments: the same joined, in the order of time.
    """

    path: Path
    recording: Recording
    labels: list[WindowLabel]
    segments: list[Segment]


def clips_of(recording: Recording, planar: bool) -> np.ndarray:
    """(M, T, V, 4) float32: joints in metres, or in halves of the picture's height with a z of 0; and the confidence.

    Joints that are not there are zero, as in a file that ``mmcl pose`` writes: a model is shown the same either way.

    Raises:
        UserError: the model takes joints in space, and the estimator knows no depth.
    """
    if planar:
        pixels = np.where(recording.confidence[..., None] > 0, recording.flat, np.nan)
        flat = clip_in_plane(pixels, recording.picture, recording.confidence)
        assert flat.confidence is not None, "the recording has confidences"
        return np.concatenate([as_taken(flat.joints, 3), flat.confidence[..., None]], axis=-1)
    if recording.joints is None:
        raise UserError(
            "the model takes joints in space, and this estimator finds them in the picture alone: use one with depth "
            "(--estimator mediapipe), or train with `dimensions: 2`"
        )
    return recording.columns()


def judge(
    path: Path, recording: Recording, classify: Callable[[np.ndarray], Ranking], planar: bool, span: int, hop: int,
    together: bool = False, rejected: Callable[[Ranking], bool] = lambda ranking: False,
) -> FilmLabels:  # fmt: skip
    """Label the people of a recording.

    Args:
        path: of its video.
        recording: the people.
        classify: (M, T, V, C) -> ranking of all classes; empty where nobody is left.
        planar: whether the model takes joints in a plane.
        span: frames of a window.
        hop: frames from one window to the next.
        together: one label for all people of a window, instead of one each.
        rejected: whether a ranking is to be taken for none of the classes.

    Raises:
        UserError: joints that the model cannot take.
    """
    clips, there = clips_of(recording, planar), recording.there
    step = float(np.median(np.diff(recording.seconds))) if len(recording.seconds) > 1 else 1 / 30
    labels: list[WindowLabel] = []
    segments: list[Segment] = []
    groups = [(TOGETHER, list(range(len(clips))))] if together else [(who + 1, [who]) for who in range(len(clips))]
    for person, members in groups:
        anybody = np.asarray(there[members].any(axis=0))
        found = list(label_windows(person, clips[members], anybody, classify, span, hop, rejected))
        labels += found
        segments += join(found, anybody, 1 / step, float(recording.seconds[0]))
    return FilmLabels(path, recording, labels, sorted(segments, key=lambda each: (each.begin, each.person)))


def label_windows(
    person: int, clips: np.ndarray, there: np.ndarray, classify: Callable[[np.ndarray], Ranking], span: int, hop: int,
    rejected: Callable[[Ranking], bool],
) -> Iterator[WindowLabel]:  # fmt: skip
    """Labels of the windows in which somebody is there for at least half of the time.

    Args:
        person: whom they are about.
        clips: (M, T, V, C) joints of that person, or of all who are judged together.
        there: (T,) in which frames there is somebody.
        classify: (M, T, V, C) -> ranking of all classes.
        span: frames of a window.
        hop: frames from one window to the next.
        rejected: whether a ranking is to be taken for none of the classes.
    """
    for window in windows(len(there), span, hop):
        if there[window].mean() < HERE and not there[window].all():
            continue
        part = clips[:, window]
        part = np.ascontiguousarray(part[part.any(axis=(1, 2, 3))])
        ranking = classify(part) if len(part) else Ranking()
        if ranking:
            yield WindowLabel(person, window.start, window.stop, ranking, rejected(ranking))
