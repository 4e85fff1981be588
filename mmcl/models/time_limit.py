"""A limit on the time of runs of onnxruntime that hardly costs them anything: one thread looks after all of them.

A timer for each run would be a thread for each, which takes a tenth of a millisecond. A small graph takes half of one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxruntime import RunOptions

EVERY = 0.5  # seconds between two looks, by which a run may be ended too late
_runs: dict[int, tuple[float, RunOptions]] = {}  # when each has to be over; no lock, since a fork could keep it
_watcher = threading.Thread()


@contextmanager
def ended_after(seconds: float, options: RunOptions) -> Iterator[None]:
    """Set ``options.terminate`` if the body is not done by then; onnxruntime hears of it between two nodes."""
    global _watcher
    _runs[id(options)] = time.monotonic() + seconds, options
    if not _watcher.is_alive():  # the first run of this process, which may have been forked
        _watcher = threading.Thread(target=_watch, name="time limit of graphs", daemon=True)
        _watcher.start()
    try:
        yield
    finally:
        del _runs[id(options)]


def _watch() -> None:
    while True:
        time.sleep(EVERY)
        for end, options in _runs.copy().values():
            if time.monotonic() > end:
                options.terminate = True
