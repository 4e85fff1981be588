"""Which clips make up which batch: a pure function of (seed, epoch), the same for any number of processes.

A *step* takes ``batch_size`` clips: every process draws its share of them, in ``accumulation`` micro-batches. So a run
on two processes sees, step by step, the same clips as a run on one, and a run that resumes in the middle of an epoch
goes on with the next step of the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmcl.common.errors import UserError


class Key(NamedTuple):
    """All that a loader worker is told of a clip; epoch and clip determine its augmentation.

    Attributes:
        epoch: of the run.
        clip: position in the store.
        step: the optimiser step that it is for, counted from 0 within the stage, the same on all processes.
    """

    epoch: int
    clip: int
    step: int = 0


@dataclass
class StepBatches:
    """Micro-batches of one process, epoch by epoch.

    ``clips`` is set before each stage, ``epoch``, ``first_step`` and ``steps_before`` before each iteration. All are
    changed in place: a loader's workers outlive the stages.

    Args:
        clips: positions of the training clips in the store, ascending.
        batch_size: clips in one optimiser step, over all processes and micro-batches.
        seed: run seed.
        accumulation: micro-batches a step.
        rank: this process.
        processes: their number.

    Attributes:
        epoch: of the run, which the order depends on.
        first_step: of the epoch that is taken.
        steps_before: steps of the stage that its earlier epochs had.
    """

    clips: np.ndarray
    batch_size: int
    seed: int = 0
    accumulation: int = 1
    rank: int = 0
    processes: int = 1
    epoch: int = 0
    first_step: int = 0
    steps_before: int = 0

    def __post_init__(self) -> None:
        if self.batch_size % (self.processes * self.accumulation):
            raise UserError(
                f"batch_size {self.batch_size} does not split over {self.processes} processes "
                f"x {self.accumulation} micro-batches"
            )
        self.check(self.clips)

    def check(self, clips: np.ndarray, where: str = "") -> None:
        """Whether there are enough clips for a step.

        Raises:
            UserError: there are not.
        """
        if len(clips) < self.batch_size:
            raise UserError(
                f"batch_size {self.batch_size} is larger than the {len(clips)} training clips{where}: give a smaller "
                "--data.batch_size"
            )

    @property
    def steps(self) -> int:
        """Optimiser steps an epoch, the same for all processes; clips left over sit it out (others do in the next)."""
        return len(self.clips) // self.batch_size

    @property
    def micro(self) -> int:
        """Clips in one micro-batch of one process."""
        return self.batch_size // (self.processes * self.accumulation)

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.accumulation

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, first, before = self.epoch, self.first_step, self.steps_before
        for number, step in enumerate(self._order()[first:], start=before + first):
            for part in step:
                yield [Key(epoch, int(clip), number) for clip in part]

    def _order(self) -> np.ndarray:
        """This process's clips of the epoch: (steps, accumulation, micro)."""
        order = np.random.default_rng(np.random.SeedSequence((self.seed, self.epoch))).permutation(self.clips)
        taken = order[: self.steps * self.batch_size]
        # micro-batch a of all processes together is a slice of the step
        return taken.reshape(self.steps, self.accumulation, self.processes, self.micro)[:, :, self.rank]
