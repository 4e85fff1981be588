"""One clip at a time on as many threads as are quickest, and many clips side by side, each on one thread.

A small network gains little from several threads, or loses: each of its products is cut up, and the threads wait for
each other after every one. How much depends on the network, the machine, and who else computes on it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmcl.common.errors import UserError

if TYPE_CHECKING:
    from mmcl.deploy.stream import Ranking

TRIED = 4  # calls on each number of threads that are timed
AHEAD = 2  # clips a thread that are read before their turn comes

T = TypeVar("T")
Session = TypeVar("Session")


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Quickest:
    """Calls something on one thread or on several, and stays with what was quicker.

    The first call is on one thread, so that whoever makes a single one opens nothing else. The next ones take turns,
    one that does not count and then :data:`TRIED` on each number.

    Args:
        open_on: opens what is called, for a number of threads.
        threads: the larger number; with 1 there is nothing to choose.
        clock: seconds.

    Attributes:
        chosen: the number of threads that was quicker; None until that is known.
    """

    def __init__(
        self, open_on: Callable[[int], Session], threads: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._open, self._clock = open_on, clock
        self._opened: dict[int, Any] = {}
        self._times: dict[int, list[float]] = {number: [] for number in sorted({1, threads})}
        self.chosen = 1 if threads == 1 else None

    def on(self, threads: int) -> Any:
        """What is called on so many threads; opened when first asked for."""
        if threads not in self._opened:
            self._opened[threads] = self._open(threads)
        return self._opened[threads]

    def __call__(self, call: Callable[[Any], T]) -> T:
        """Call, on the number of threads whose turn it is."""
        if self.chosen is not None:
            return call(self.on(self.chosen))
        turn = min(self._times, key=lambda number: (len(self._times[number]), number))
        opened, began = self.on(turn), self._clock()
        found = call(opened)
        self._times[turn].append(self._clock() - began)
        if min(map(len, self._times.values())) > TRIED:
            self.chosen = min(self._times, key=lambda number: sorted(self._times[number][1:])[TRIED // 2])
            self._opened = {number: each for number, each in self._opened.items() if number in (1, self.chosen)}
        return found


def classify_files(predictor: Any, paths: Sequence[Path]) -> Iterator[Ranking | UserError]:
    """Rankings of the classes of skeleton files, in their order, or what is wrong with a file.

    Several files are computed at once, each on one thread. They are read one by one before that, so that what there is
    to say about them is said in their order, though before the answers to the files in front of them.

    Args:
        predictor: an :class:`~mmcl.deploy.onnx_predictor.OnnxPredictor`, or a
            :class:`~mmcl.deploy.predictor.Predictor`.
        paths: the files.
    """
    pool = predictor.pool() if len(paths) > 1 else None
    waiting: deque[Future[Ranking] | UserError] = deque()
    for path in paths:
        try:
            if pool is None:
                yield predictor.classify_file(path)
                continue
            waiting.append(pool.submit(predictor.rank_beside, *predictor.read(path)))
        except UserError as error:  # a bad clip does not end the job
            if pool is None:
                yield error
                continue
            waiting.append(error)
        if len(waiting) > AHEAD * predictor.threads:
            yield _outcome(waiting.popleft())
    while waiting:
        yield _outcome(waiting.popleft())


def _outcome(job: Future[Ranking] | UserError) -> Ranking | UserError:
    if isinstance(job, UserError):
        return job
    try:
        return job.result()
    except UserError as error:
        return error
