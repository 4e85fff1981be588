"""Streams of a causal model: each step of frames is computed once, whatever was before it. Needs numpy alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.deploy.given_arrays import one_frame
from mmcl.deploy.stream import SLOTS, Prediction, Ranking, Stream

SHARED = ("phase", "origin")  # what is kept once a stream; all else has a row a body
State = dict[str, Any]


class Stepper(ABC):
    """What computes a causal model step by step, for any number of streams.

    Attributes:
        step: frames of a step.
        forget: frames without a body behind which nothing of it is left in what is kept.
        persons: bodies that the model takes.
        frame: (V, C) of a body's frame.
    """

    step: int
    forget: int
    persons: int
    frame: tuple[int, int]

    def __init__(self) -> None:
        nobody = np.zeros((1, self.step, *self.frame), dtype=np.float32)
        self._absent = self.run(nobody, self.zeros(1))[1]  # the rows of a body that has not come yet

    @abstractmethod
    def zeros(self, bodies: int) -> State:
        """What is kept before the first frame, for so many bodies."""

    @abstractmethod
    def run(self, joints: np.ndarray, state: State) -> tuple[Ranking, State]:
        """The next frames (B, step, V, C) -> what the model says now, and what is kept."""

    @abstractmethod
    def joined(self, rows: Sequence[Any]) -> Any:
        """Tensors one below the other."""

    def go(self, joints: np.ndarray, state: State | None) -> tuple[Ranking, State]:
        """Go on by the frames (B, step, V, C) of the slots 0, 1, …; B may change from step to step.

        Args:
            joints: missing ones zero or NaN.
            state: what was kept; None before the first frame.
        """
        bodies = len(joints)
        if state is None:
            return self.run(joints, self.zeros(bodies))
        fitting = {}
        for name, rows in state.items():
            new = bodies - len(rows)
            if name in SHARED or new == 0:
                fitting[name] = rows
            else:
                fitting[name] = rows[:bodies] if new < 0 else self.joined([rows, *[self._absent[name]] * new])
        return self.run(joints, fitting)


class ContinualStream:
    """Says every ``hop`` frames what a causal model makes of all frames so far, in memory that does not grow.

    A stream begins when somebody is seen, and what it says after a step of frames is exactly what the model says of the
    clip of these frames. There is one exception: frames before the first body's centre joint is seen have the mean of
    the first joints as their origin, where a clip has a later frame's. People keep the slot in which they came; a slot
    is free again when nothing of them is left in what the network keeps, and when all are free, the stream begins anew.

    Args:
        stepper: what computes.
        hop: frames from one prediction to the next.
        watch: (M, T, V, C) -> anything: is shown the frames, ``span`` at a time, and may warn of them.
        span: frames that ``watch`` gets.

    Raises:
        UserError: hop below 1.
    """

    def __init__(
        self, stepper: Stepper, hop: int, watch: Callable[[np.ndarray], Any] = lambda window: None, span: int = 64
    ) -> None:  # fmt: skip
        if hop < 1:
            raise UserError(f"a stream needs a --hop of one frame or more, not {hop}")
        self.stepper, self.hop, self.frames = stepper, hop, 0
        V, self._columns = stepper.frame

        def shown(window: np.ndarray) -> Ranking:
            watch(window)
            return Ranking()

        self._watched = Stream(shown, V, stepper.persons, span, span, self._columns)
        self._bodies = max(stepper.persons, SLOTS)
        self._begin()

    def push(self, frame: np.ndarray) -> Prediction | None:
        """Take one frame (M, V, 2 to 4), metres, missing joints zero or NaN; a prediction where one is due.

        Raises:
            UserError: it is no array of numbers, or has another shape.
            BadClip: it has infinite coordinates, or confidences that are none; it does not count.
        """
        frame = one_frame(frame, self.stepper.frame[0], self._columns)
        self._watched.push(frame)
        frame = frame[: self._bodies]
        self.frames += 1
        self._place(frame)
        return self._said() if self.frames % self.hop == 0 else None

    def finish(self) -> Prediction | None:
        """What is said at the end, with frames that did not fill a step; None where that is said already."""
        late = self._filled > 0
        while self._filled:
            self._place(np.zeros((0, *self.stepper.frame), dtype=np.float32))
        return self._said() if (late or self.frames % self.hop) and self._slots else None

    def _begin(self) -> None:
        self._state: State | None = None
        self._slots: dict[int, int] = {}  # body of a frame -> slot of the model
        self._unseen: dict[int, int] = {}  # the same bodies -> frames since they were seen
        self._ranking: Ranking | None = None
        self._group = np.zeros((self.stepper.persons, self.stepper.step, *self.stepper.frame), dtype=np.float32)
        self._filled = 0

    def _said(self) -> Prediction | None:
        if self._slots and self._ranking is None:
            return None  # the first step is not full
        return Prediction(self.frames, Ranking() if self._ranking is None else self._ranking)

    def _place(self, frame: np.ndarray) -> None:
        """Put a frame into the step that is being filled, and go on if it is full."""
        there = {int(body) for body in np.flatnonzero(frame[..., :3].any(axis=(1, 2)))}
        free = sorted(set(range(self.stepper.persons)) - set(self._slots.values()))
        for body, slot in zip(sorted(there - self._slots.keys()), free, strict=False):
            self._slots[body] = slot
        if not self._slots:
            return
        for body, slot in self._slots.items():
            self._unseen[body] = 0 if body in there else self._unseen.get(body, 0) + 1
            self._group[slot, self._filled] = frame[body] if body in there else 0
        self._filled += 1
        if self._filled == self.stepper.step:
            self._go()

    def _go(self) -> None:
        group = self._group[: max(self._slots.values()) + 1]
        self._ranking, self._state = self.stepper.go(group, self._state)
        self._group[:], self._filled = 0, 0
        for body in [body for body, unseen in self._unseen.items() if unseen >= self.stepper.forget]:
            del self._slots[body], self._unseen[body]
        if not self._slots:
            self._begin()
