"""Which clips make up which batch: a pure function of (seed, epoch), the same for any number of processes.

A *step* takes ``batch_size`` clips: every process draws its share of them, in ``accumulation`` micro-batches. So a run
on two processes sees, step by step, the same clips as a run on one, and a run that resumes in the middle of an epoch
goes on with the next step of the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmcl.errors import UserError

Key = tuple[int, int]  # (epoch, clip position): all that a loader worker needs to draw the clip's augmentation


@dataclass
class StepBatches:
    """Micro-batches of one process, epoch by epoch. ``epoch`` and ``first_step`` are set before each iteration.

    Args:
        clips: positions of the training clips in the store.
        batch_size: clips in one optimiser step, over all processes and micro-batches.
        seed: run seed.
        accumulation: micro-batches a step.
        rank: this process.
        processes: their number.
    """

    clips: np.ndarray
    batch_size: int
    seed: int = 0
    accumulation: int = 1
    rank: int = 0
    processes: int = 1
    epoch: int = 0
    first_step: int = 0

    def __post_init__(self) -> None:
        if self.batch_size % (self.processes * self.accumulation):
            raise UserError(
                f"batch_size {self.batch_size} does not split over {self.processes} processes "
                f"x {self.accumulation} micro-batches"
            )
        if len(self.clips) < self.batch_size:
            raise UserError(f"batch_size {self.batch_size} is larger than the {len(self.clips)} training clips")

    @property
    def steps(self) -> int:
        """Optimiser steps an epoch; clips left over sit this epoch out (others do in the next)."""
        return len(self.clips) // self.batch_size

    @property
    def micro(self) -> int:
        """Clips in one micro-batch of one process."""
        return self.batch_size // (self.processes * self.accumulation)

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.accumulation

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.default_rng(np.random.SeedSequence((self.seed, self.epoch))).permutation(self.clips)
        for step in range(self.first_step, self.steps):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            # (accumulation, processes, micro): micro-batch a of all processes together is a slice of the step
            for part in batch.reshape(self.accumulation, self.processes, self.micro):
                yield [(self.epoch, int(clip)) for clip in part[self.rank]]
