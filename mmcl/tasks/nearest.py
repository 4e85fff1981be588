"""How good features are that were learned without labels: the class of the nearest training clip."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmcl.tasks.base import Apply, Task
from mmcl.tasks.context import Context

AT_ONCE = 1024  # rows that are compared at a time


class NearestClip:
    """The class of the nearest training clip by cosine, as validation of tasks that train no classifier.

    Args:
        context: of the task; its training clips and their labels are what is looked up.
    """

    def __init__(self, context: Context) -> None:
        self.store, self.clips, self.classes = context.store, context.training_clips, context.classes

    def top1(self, task: Task, apply: Apply, clips: np.ndarray, labels: np.ndarray) -> float:
        """Share of clips whose nearest training clip is of their class; arguments as of :meth:`Task.validation`."""
        bank, queries = apply(task.features, self.clips), apply(task.features, clips)
        found = nearest(torch.from_numpy(queries), torch.from_numpy(bank)).numpy()
        return float((self.store.labels[self.clips[found]] == self.classes[labels]).mean())


def nearest(queries: Tensor, bank: Tensor) -> Tensor:
    """(n, D), (Q, D) -> (n,) the row of the bank with the largest cosine to each query."""
    bank, queries = (torch.nn.functional.normalize(rows, dim=1) for rows in (bank, queries))
    return torch.cat([(part @ bank.T).argmax(dim=1) for part in queries.split(AT_ONCE)])
