"""A request to stop that cannot get lost: SIGTERM, a cluster's time limit, unwinds like Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_as_interrupt(again: float = 5.0) -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, so that workers are ended, files closed and half-written ones removed.

    Python drops an exception that a signal handler raises inside ``__del__`` or the callback of a weak reference, of
    which every import has some. So it is raised once more where the program has gone on regardless, and at the end.
    Whatever is already unwinding is left in peace. Other threads than the main one cannot handle signals: in them,
    nothing changes.

    Args:
        again: seconds until then.

    Raises:
        KeyboardInterrupt: SIGTERM came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left = threading.Event()
    reminders: list[threading.Thread] = []  # one, once SIGTERM has come

    def remind() -> None:
        while not left.wait(again):
            signal.raise_signal(signal.SIGTERM)

    def interrupt(*_: object) -> None:
        if not reminders:
            reminders.append(threading.Thread(target=remind, daemon=True))
            reminders[0].start()
        if not left.is_set() and not _is_unwinding(sys.exc_info()[1]):
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        left.set()
        for reminder in reminders:
            reminder.join()  # its signal would meet the former handler, which may end the process on the spot
        signal.signal(signal.SIGTERM, before)
    if reminders:
        raise KeyboardInterrupt


def _is_unwinding(handled: BaseException | None) -> bool:
    """Whether some caller is at its clean-up already, perhaps in the middle of an error that came up there."""
    while handled is not None and not isinstance(handled, KeyboardInterrupt):
        handled = handled.__context__
    return handled is not None
