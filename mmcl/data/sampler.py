"""Which clips make up which batch: a pure function of (seed, epoch), the same for any number of processes.

A *step* takes ``batch_size`` clips: every process draws its share of them, in ``accumulation`` micro-batches. So a run
on two processes sees, step by step, the same clips as a run on one, and a run that resumes in the middle of an epoch
goes on with the next step of the same order.

With ``sharded`` each process draws from a stretch of the store of its own instead, so that on several machines each
reads (and, of a store behind a URL, fetches) only its share of the parts. Then the order depends on how many processes
there are, and a step holds equally many clips of every stretch.
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
        batch: number of the micro-batch it is in, counted over the whole run, the same on all processes.
    """

    epoch: int
    clip: int
    batch: int = 0


@dataclass
class StepBatches:
    """Micro-batches of one process, epoch by epoch. ``epoch`` and ``first_step`` are set before each iteration.

    Args:
        clips: positions of the training clips in the store, ascending.
        batch_size: clips in one optimiser step, over all processes and micro-batches.
        seed: run seed.
        accumulation: micro-batches a step.
        rank: this process.
        processes: their number.
        sharded: draw only from this process's stretch of the clips.
    """

    clips: np.ndarray
    batch_size: int
    seed: int = 0
    accumulation: int = 1
    rank: int = 0
    processes: int = 1
    sharded: bool = False
    epoch: int = 0
    first_step: int = 0

    def __post_init__(self) -> None:
        if self.batch_size % (self.processes * self.accumulation):
            raise UserError(
                f"batch_size {self.batch_size} does not split over {self.processes} processes "
                f"x {self.accumulation} micro-batches"
            )
        if len(self.clips) < self.batch_size:
            raise UserError(
                f"batch_size {self.batch_size} is larger than the {len(self.clips)} training clips: give a smaller "
                "--data.batch_size"
            )

    @property
    def steps(self) -> int:
        """Optimiser steps an epoch, the same for all processes; clips left over sit it out (others do in the next)."""
        if self.sharded:  # as many as the shortest stretch has
            return len(self.clips) // self.processes // (self.batch_size // self.processes)
        return len(self.clips) // self.batch_size

    @property
    def stretches(self) -> int:
        """In how many stretches the clips are shared out; with another number a step means other clips."""
        return self.processes if self.sharded else 1

    @property
    def stretch(self) -> np.ndarray:
        """Clips that this process draws from: all of them, or a contiguous share if ``sharded``."""
        if not self.sharded:
            return self.clips
        first, last = (len(self.clips) * rank // self.processes for rank in (self.rank, self.rank + 1))
        return self.clips[first:last]

    @property
    def micro(self) -> int:
        """Clips in one micro-batch of one process."""
        return self.batch_size // (self.processes * self.accumulation)

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.accumulation

    def __iter__(self) -> Iterator[list[Key]]:
        number = (self.epoch * self.steps + self.first_step) * self.accumulation
        for part in self._order()[self.first_step :].reshape(-1, self.micro):
            yield [Key(self.epoch, int(clip), number) for clip in part]
            number += 1

    def _order(self) -> np.ndarray:
        """This process's clips of the epoch: (steps, accumulation, micro)."""
        entropy = (self.seed, self.epoch, self.rank) if self.sharded else (self.seed, self.epoch)
        order = np.random.default_rng(np.random.SeedSequence(entropy)).permutation(self.stretch)
        drawing = 1 if self.sharded else self.processes  # processes that share this order
        taken = order[: self.steps * self.accumulation * drawing * self.micro]
        # micro-batch a of all processes together is a slice of the step
        return taken.reshape(self.steps, self.accumulation, drawing, self.micro)[:, :, self.rank % drawing]
