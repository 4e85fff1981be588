"""Carries out jobs in a place: some at a time, none in another's way, and begun again where they were killed."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from mmcl.common.errors import UserError
from mmcl.common.interrupts import stop_requests
from mmcl.common.printing import one_line
from mmcl.places.base import Handle, Place
from mmcl.places.job import Failure, Job
from mmcl.places.worker import GRACE

SHOWN = 4  # names beside the progress bar
SECONDS, LOG_SECONDS = 1, 60  # from one state of the bar to the next, on a terminal and in a file


@dataclass
class Outcome:
    """What became of the jobs.

    Attributes:
        failed: names with the reason.
        stopped: whether it was asked to stop.
        going_on: names of jobs that go on without this process, with the names that their place has for them.
    """

    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    going_on: dict[str, str] = field(default_factory=dict)

    @property
    def farewell(self) -> str:
        """What to know once it was stopped."""
        if not self.going_on:
            return "stopped; the same command goes on from here"
        names = " ".join(self.going_on.values())
        return f"{len(self.going_on)} jobs go on; the same command takes them up, `scancel {names}` ends them"


def perform(jobs: Sequence[Job], place: Place, title: str = "study", unit: str = "run") -> Outcome:
    """Carry out what is still to be done of the jobs, and wait for it.

    A job that fails is kept in mind and does not stop the others. Ctrl-C or SIGTERM is passed on, so that trainings
    save a checkpoint; a second one kills them. Where the place keeps jobs, they go on, and this function returns.

    Args:
        jobs: in the order in which they shall begin.
        place: where.
        title: of the progress bar.
        unit: what its jobs are called.
    """
    queue = deque(job for job in jobs if job.commands)
    done = len(jobs) - len(queue)
    every = SECONDS if sys.stderr.isatty() else LOG_SECONDS
    # Without smoothing: the bar's own mean takes the time since it was drawn for the time that a job took.
    bar = tqdm(total=len(jobs), initial=done, desc=title, unit=unit, smoothing=0, miniters=0, mininterval=every)
    with stop_requests() as stops, bar:
        return _Performance(queue, place, bar).until_the_end(stops)


class _Performance:
    """The jobs while they are carried out."""

    def __init__(self, queue: deque[Job], place: Place, bar: tqdm) -> None:
        self.queue, self.place, self.bar = queue, place, bar
        self.handles: list[Handle] = []
        self.outcome, self.tries = Outcome(), Counter[str]()

    def until_the_end(self, stops: list[int]) -> Outcome:
        answered, room = 0, self.place.at_once or len(self.queue)
        try:
            while self.queue or self.handles:
                if len(stops) > answered:
                    answered = len(stops)
                    self._stop(force=answered > 1)
                while self.queue and len(self.handles) < room and len(stops) == answered:
                    self._begin(self.queue.popleft())
                self.handles = [handle for handle in self.handles if not self._ended(handle)]
                self._show()
                time.sleep(self.place.poll if self.handles else 0)
        finally:
            self._let_save()
        return self.outcome

    def _begin(self, job: Job) -> None:
        self.tries[job.name] += 1
        try:
            self.handles.append(self.place.begin(job))
        except (UserError, OSError) as error:
            self._failed(job, str(error))

    def _ended(self, handle: Handle) -> bool:
        """Whether there is nothing more to wait for; what becomes of the job is then settled."""
        try:
            if handle.working():
                return False
            failure = handle.failure()
        except OSError as error:  # a full disk, a folder that was deleted: no other job has to suffer from it
            failure = Failure(str(error))
        self._finish(handle.job, failure)
        return True

    def _finish(self, job: Job, failure: Failure | None) -> None:
        if failure is None:
            self.bar.update()
        elif self.outcome.stopped:  # asked to stop, it has not failed
            return
        elif self._may_try_again(job, failure):
            self.bar.write(one_line(f"{job.name}: {failure.reason}; it begins again where it was"), file=sys.stderr)
            self.queue.appendleft(job)
        else:
            self._failed(job, failure.reason)

    def _may_try_again(self, job: Job, failure: Failure) -> bool:
        return failure.ended_from_outside and self.tries[job.name] <= self.place.retries

    def _failed(self, job: Job, reason: str) -> None:
        self.outcome.failed[job.name] = reason
        self.bar.write(one_line(f"{job.name} failed: {reason}"), file=sys.stderr)

    def _stop(self, force: bool) -> None:
        self.outcome.stopped = True
        self.queue.clear()
        for handle in list(self.handles):
            if (name := handle.stop(force)) is not None:
                self.outcome.going_on[handle.job.name] = name
                self.handles.remove(handle)

    def _let_save(self) -> None:
        """Ask what is still at work to save, and wait for it; only where something unforeseen ended the loop."""
        waiting = [handle for handle in self.handles if handle.stop(force=False) is None]
        until = time.monotonic() + GRACE
        while waiting and time.monotonic() < until:
            waiting = [handle for handle in waiting if handle.working()]
            time.sleep(self.place.poll)
        for handle in waiting:
            handle.stop(force=True)

    def _show(self) -> None:
        names = [handle.job.name for handle in self.handles]
        more = f", … {len(names)} at once" if len(names) > SHOWN else ""
        self.bar.set_postfix_str(", ".join(names[:SHOWN]) + more, refresh=False)
        self.bar.update(0)  # the clock goes on while nothing ends
