"""The task of a run while it stands still: in evaluation mode, with the same network on every process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from mmcl.common.distributed import share_statistics
from mmcl.engine.config import DataOptions
from mmcl.engine.scoring import score_together
from mmcl.engine.setup import Experiment
from mmcl.tasks.base import Task


class Evaluator:
    """Applies functions to clips for a task's events and its validation; collective.

    Args:
        accelerator: the processes.
        data: store and split.
        task: what is trained.
        options: how many clips are scored at once, and how they are loaded.
    """

    def __init__(self, accelerator: Accelerator, data: Experiment, task: Task, options: DataOptions) -> None:
        self.accelerator, self.data, self.task, self.options = accelerator, data, task, options

    def stand_still(self) -> None:
        """Evaluation mode, in which all processes have one network: that of the first, which is what is saved."""
        self.task.eval()
        share_statistics(self.task)

    def apply(self, function: Callable[[Tensor, Tensor], Tensor], clips: Sequence[int] | np.ndarray) -> np.ndarray:
        """What a function of raw joints and lengths gives for clips, outside autocast; shared by all processes.

        Args:
            function: (joints (n, M, T, V, C), lengths (n,)) -> (n, ...).
            clips: positions in the store, at least one.

        Returns:
            (clips, ...), the same on all processes.
        """
        score = partial(self._scored, function)
        return score_together(score, self.data.store, np.asarray(clips), self.accelerator, self.options)

    def validation(self) -> dict[str, float]:
        """What the task measures on the clips held out of the training side, by name; the first counts."""
        self.stand_still()
        clips = self.data.split.validation
        with torch.no_grad():
            return self.task.validation(self.apply, clips, self.data.split.targets(self.data.store.labels[clips]))

    def _scored(self, function: Callable[[Tensor, Tensor], Tensor], joints: Tensor, lengths: Tensor) -> Tensor:
        result: Tensor = self.task.applied(function, joints.to(self.task.preprocess.dtype), lengths)
        return result
