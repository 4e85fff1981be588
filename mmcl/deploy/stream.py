"""Prediction while frames arrive: a ring buffer of the last ones, and a label every so many. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmcl.errors import UserError

Ranking = list[tuple[int, str, float]]


@dataclass(frozen=True)
class Prediction:
    """What a stream says after a frame.

    Attributes:
        frame: number of frames that have come, this one included.
        ranking: (label, name, probability) of the classes, most probable first; empty where nobody was seen.
    """

    frame: int
    ranking: Ranking


class Stream:
    """Classifies the last ``span`` frames, every ``hop`` frames, in memory that does not grow.

    A prediction is exactly the one that the window would get as a clip of its own: what was before it plays no part.

    Args:
        classify: (M, T, V, 3) -> ranking; that of a predictor, such as ``OnnxPredictor(…).classify``.
        joint_count: V.
        persons: M at most; more bodies of a frame are left out.
        span: frames of a window. The first prediction comes when so many have come.
        hop: frames from one prediction to the next.

    Raises:
        UserError: span or hop below 1.
    """

    def __init__(
        self, classify: Callable[[np.ndarray], Ranking], joint_count: int, persons: int, span: int, hop: int
    ) -> None:
        if span < 1 or hop < 1:
            raise UserError(f"a stream needs --span and --hop of one frame or more, not {span} and {hop}")
        self.classify, self.span, self.hop, self.frames = classify, span, hop, 0
        self._ring = np.zeros((persons, span, joint_count, 3), dtype=np.float32)

    def push(self, frame: np.ndarray) -> Prediction | None:
        """Take one frame (M, V, 3), metres, missing joints zero; a prediction where one is due.

        Raises:
            UserError: the frame has another shape.
        """
        persons, _, joints, _ = self._ring.shape
        if frame.ndim != 3 or frame.shape[1:] != (joints, 3):
            raise UserError(f"a frame must be (persons, {joints} joints, 3), not {frame.shape}")
        place = self.frames % self.span
        self._ring[:, place] = 0
        self._ring[: len(frame), place] = frame[:persons]
        self.frames += 1
        due = self.frames >= self.span and (self.frames - self.span) % self.hop == 0
        return self._predict(self.window()) if due else None

    def finish(self) -> Prediction | None:
        """The prediction of a stream that ended before its first window was full; None if it has given one."""
        return self._predict(self.window()) if 0 < self.frames < self.span else None

    def window(self) -> np.ndarray:
        """The last frames in their order, (M, T, V, 3): T is the span, or less at the beginning."""
        if self.frames < self.span:
            return self._ring[:, : self.frames].copy()
        return np.roll(self._ring, -(self.frames % self.span), axis=1)

    def _predict(self, window: np.ndarray) -> Prediction:
        there = window.any(axis=(1, 2, 3))  # bodies that are not there at all leave no gap, as in a file
        ranking = self.classify(np.ascontiguousarray(window[there])) if there.any() else []
        return Prediction(self.frames, ranking)
