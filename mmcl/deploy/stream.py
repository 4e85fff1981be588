"""Prediction while frames arrive: a ring buffer of the last ones, and a label every so many. Needs numpy alone.

Which kind of stream a model gets is decided in :mod:`mmcl.deploy.streams`, which opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from mmcl.common.errors import UserError
from mmcl.deploy.files import Reading
from mmcl.deploy.given_arrays import one_frame
from mmcl.deploy.looking import Looker
from mmcl.skeletons.layout import Layout


class Ranking(list[tuple[int, str, float]]):
    """(label, name, probability) of classes, most probable first; empty where nobody is there.

    Attributes:
        familiarity: how much the clip looks like what was learned from (:mod:`mmcl.models.familiarity`); None where the
            model does not say.
    """

    def __init__(self, rows: Iterable[tuple[int, str, float]] = (), familiarity: float | None = None) -> None:
        super().__init__(rows)
        self.familiarity = familiarity


SLOTS = 6  # as many as a Kinect v2 tracks


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

    A prediction is exactly the one that the window would get as a clip of its own: what was before it plays no part,
    and persons who are in none of its frames leave no gap. Of an empty window nothing is said.

    Args:
        classify: (M, T, V, C) -> ranking; that of a predictor, such as ``OnnxPredictor(…).rank``.
        joint_count: V.
        persons: M that the model takes. So many bodies of a frame are kept, or six if that is more: which of them are
            in a window is known only when it is whole.
        span: frames of a window. The first prediction comes when so many have come.
        hop: frames from one prediction to the next.
        columns: C that is kept, 3 or 4: coordinates, and the confidence.

    Raises:
        UserError: span or hop below 1, or a span that does not fit into memory.
    """

    def __init__(
        self, classify: Callable[[np.ndarray], Ranking], joint_count: int, persons: int, span: int, hop: int,
        columns: int = 3,
    ) -> None:  # fmt: skip
        if span < 1 or hop < 1:
            raise UserError(f"a stream needs --span and --hop of one frame or more, not {span} and {hop}")
        self.classify, self.span, self.hop, self.frames = classify, span, hop, 0
        try:
            self._ring = np.zeros((max(persons, SLOTS), span, joint_count, columns), dtype=np.float32)
        except (MemoryError, ValueError) as error:
            raise UserError(f"--span {span}: so many frames do not fit into memory") from error

    def push(self, frame: np.ndarray) -> Prediction | None:
        """Take one frame (M, V, 2 to 4), metres, missing joints zero or NaN; a prediction where one is due.

        Raises:
            UserError: it is no array of numbers, or has another shape.
            BadClip: it has infinite coordinates, or confidences that are none; it does not count.
        """
        persons, _, joints, columns = self._ring.shape
        frame, place = one_frame(frame, joints, columns), self.frames % self.span
        self._ring[:, place] = 0
        self._ring[: len(frame), place] = frame[:persons]
        self.frames += 1
        due = self.frames >= self.span and (self.frames - self.span) % self.hop == 0
        return self._predict(self.window()) if due else None

    def finish(self) -> Prediction | None:
        """The prediction of a stream that ended before its first window was full; None if it has given one."""
        return self._predict(self.window()) if 0 < self.frames < self.span else None

    def window(self) -> np.ndarray:
        """The last frames in their order, (M, T, V, C): T is the span, or less at the beginning."""
        if self.frames < self.span:
            return self._ring[:, : self.frames].copy()
        return np.roll(self._ring, -(self.frames % self.span), axis=1)

    def _predict(self, window: np.ndarray) -> Prediction:
        there = np.flatnonzero(window.any(axis=(1, 2, 3)))
        ranking = self.classify(np.ascontiguousarray(window[there])) if len(there) else Ranking()
        return Prediction(self.frames, ranking)


class Watched:
    """A predictor's ``classify`` that looks at each window as `mmcl predict` does at a file, and warns once of a kind.

    Args:
        classify: (M, T, V, C) -> ranking.
        layout: of the joints.
        reading: whether to refuse what is hard to believe.
    """

    def __init__(self, classify: Callable[[np.ndarray], Ranking], layout: Layout, reading: Reading) -> None:
        self.classify, self.layout, self.looker = classify, layout, Looker(reading, notes=False)

    def __call__(self, window: np.ndarray) -> Ranking:
        """Rank the classes of a window; nothing where nobody is left in it.

        Raises:
            UserError: it is hard to believe, and to be refused then.
        """
        joints = self.look(window)
        return self.classify(joints) if joints.any() else Ranking()

    def look(self, window: np.ndarray) -> np.ndarray:
        """The window as `mmcl predict` mends it; what is hard to believe is said.

        Raises:
            UserError: it is hard to believe, and to be refused then.
        """
        return self.looker(window, self.layout, "stream")[0]
