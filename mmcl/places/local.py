"""Jobs as processes of this machine."""

from __future__ import annotations

import os

from mmcl.places.base import Place
from mmcl.places.job import Job
from mmcl.places.worker import PATIENCE, POLL, Worker


class Local(Place):
    """This machine.

    Args:
        at_once: jobs at the same time.
        retries: see :class:`Place`.
    """

    def __init__(self, at_once: int = 1, retries: int = 0) -> None:
        super().__init__(at_once, retries, POLL)
        # Else each of several trainings would start as many threads as there are cores.
        threads = max(1, (os.cpu_count() or 1) // at_once)
        self.environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self.begun: set[str] = set()

    def begin(self, job: Job) -> Worker:
        """Start its first process; of a job that was killed, once its loader workers have let go of its log."""
        patience = PATIENCE if job.name in self.begun else 0.0
        self.begun.add(job.name)
        return Worker(job, self.environment, patience=patience)
