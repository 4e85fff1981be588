"""What a place gives: jobs begin there, are looked at, and are stopped."""

from __future__ import annotations

from abc import ABC, abstractmethod

from mmcl.places.job import Failure, Job


class Handle(ABC):
    """A job that was begun."""

    job: Job

    @abstractmethod
    def working(self) -> bool:
        """Whether there is more to wait for; must not block."""

    @abstractmethod
    def failure(self) -> Failure | None:
        """Why it failed, once it has ended; None where it did not."""

    @abstractmethod
    def stop(self, force: bool) -> str | None:
        """Ask the job to save and end; with ``force``, end it.

        Returns:
            None where it will end; else under which name it goes on without this process.
        """


class Place(ABC):
    """Where jobs are done.

    Attributes:
        at_once: jobs that are begun before others have ended; None: all, since the place has a queue of its own.
        retries: how often a job begins again whose process or machine was killed.
        poll: seconds between two looks at a job.
    """

    def __init__(self, at_once: int | None, retries: int, poll: float) -> None:
        self.at_once, self.retries, self.poll = at_once, retries, poll

    @abstractmethod
    def begin(self, job: Job) -> Handle:
        """Begin a job.

        Raises:
            UserError: it cannot begin, which does not keep others from it.
        """

    def close(self) -> None:  # noqa: B027  (most places have nothing to close)
        """Give back what was taken; jobs that still run are ended, unless ``Handle.stop`` said otherwise."""
