"""Worker processes that can be killed: clips in, rows out, in order, with a wall-clock limit for each."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

from mmcl.common.errors import UserError
from mmcl.data.clip import ClipSource
from mmcl.data.preparation import worker

AHEAD = 64  # clips that may wait for a slow one before them, or two a worker: bounds the memory of finished rows
CLIPS_PER_WORKER = 2000  # then a fresh process takes over: native video libraries leak a little
# How the reason of a clip begins that was lost with its worker; the list of skipped clips keeps reasons as text.
TIMED_OUT, DIED = "took longer than", "its worker process died"
GONE = "has gone"  # how it ends where a file was listed and could not be found when its turn came


def default_workers() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_clips(
    sources: Iterable[ClipSource], job: worker.Job, workers: int
) -> Generator[tuple[ClipSource, dict[str, Any] | str], None, None]:
    """Run :func:`mmcl.data.preparation.worker.process` over clips; results come in the order of ``sources``.

    A clip that exceeds ``job.timeout`` has its worker killed: SIGTERM, which native code that holds the interpreter
    never gets to see, and SIGKILL three seconds later. A crash of a worker costs the clip it worked on. Where that
    clip has a video it gets a second chance without decord, which may have been what hung or crashed.

    Yields:
        The clip, and its row or the reason why there is none.
    """
    from pebble import ProcessPool

    # Workers are never forked from this process: its threads (pyarrow, progress bar) would not survive that.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    pool = ProcessPool(workers, CLIPS_PER_WORKER, worker.start, [job], context)
    rest, waiting, ahead = iter(sources), deque[tuple[ClipSource, Any]](), max(AHEAD, 2 * workers)
    try:
        while True:
            while len(waiting) < ahead and (source := next(rest, None)) is not None:
                waiting.append((source, pool.schedule(worker.process, args=[source], timeout=job.timeout)))
            if not waiting:
                return
            source, future = waiting.popleft()
            outcome, lost = _outcome(future, job.timeout)
            if lost and source.video is not None:
                again = pool.schedule(worker.process, args=[source, False], timeout=job.timeout)
                outcome, lost = _outcome(again, job.timeout)
                if lost and job.layout is None:
                    outcome = _without_pictures(pool.schedule(worker.process, args=[replace(source, video=None)],
                                                              timeout=job.timeout), job.timeout, outcome)  # fmt: skip
            yield source, outcome
    finally:
        pool.stop()
        pool.join()


def _without_pictures(future: Any, timeout: float, reason: dict[str, Any] | str) -> dict[str, Any] | str:
    """The row of a clip whose video cost its worker twice, without the video."""
    row, _ = _outcome(future, timeout)
    if not isinstance(row, str):
        row["remarks"].append((worker.NO_PICTURES, str(reason)))
    return row


def _outcome(future: Any, timeout: float) -> tuple[dict[str, Any] | str, bool]:
    """Row or reason, and whether the worker was lost over it."""
    from pebble import ProcessExpired

    try:
        return future.result(), False
    except (FutureTimeoutError, TimeoutError):
        return f"{TIMED_OUT} {timeout:g} s and was ended", True
    except ProcessExpired as error:
        return f"{DIED} ({_exit_reason(error.exitcode)})", True
    except BrokenProcessPool as error:
        raise UserError(
            "worker processes cannot start; a script that calls prepare() must do so under `if __name__ == '__main__':`"
        ) from error


def worth_another_try(reason: str, timeout: float, strict: bool, file: str) -> bool:
    """Whether a clip that an earlier call skipped may turn out well this time, though its files are the same.

    Args:
        reason: why it was skipped.
        timeout: seconds that a clip may take now.
        strict: whether a bad clip is an error now.
        file: that holds the clip's joints.
    """
    if reason.endswith(GONE):
        return os.path.exists(file)
    if strict:
        return reason.startswith((TIMED_OUT, DIED))
    return reason.startswith(TIMED_OUT) and not reason.startswith(f"{TIMED_OUT} {timeout:g} s ")


def _exit_reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
