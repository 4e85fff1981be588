"""A request to stop that cannot get lost: SIGTERM (a cluster's time limit) and SIGHUP unwind like Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def stopping_signals() -> list[signal.Signals]:
    """Signals that ask a process to end, Ctrl-C aside; SIGHUP not where it is ignored, as ``nohup`` has it."""
    signals = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals


@contextmanager
def stop_as_interrupt(again: float = 5.0) -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, so that workers end and what is half-written is removed.

    Python drops an exception that a signal handler raises inside ``__del__`` or the callback of a weak reference, of
    which every import has some. So it is raised once more where the program has gone on regardless, and at the end.
    Whatever is already unwinding is left in peace. Other threads than the main one cannot handle signals: in them,
    nothing changes.

    Args:
        again: seconds until then.

    Raises:
        KeyboardInterrupt: one of them came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left = threading.Event()
    reminders: list[threading.Thread] = []  # one, once a signal has come

    def remind() -> None:
        while not left.wait(again):
            signal.raise_signal(signal.SIGTERM)

    def interrupt(*_: object) -> None:
        if not reminders:
            reminders.append(threading.Thread(target=remind, daemon=True))
            reminders[0].start()
        if not left.is_set() and not _is_unwinding(sys.exc_info()[1]):
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in stopping_signals()}
    try:
        yield
    finally:
        left.set()
        for reminder in reminders:
            reminder.join()  # its signal would meet the former handler, which may end the process on the spot
        for number, handler in before.items():
            signal.signal(number, handler)
    if reminders:
        raise KeyboardInterrupt


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect Ctrl-C, SIGTERM and SIGHUP instead of dying of them; the loop looks at the list between steps."""
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *stopping_signals())}
    for number in handlers:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _is_unwinding(handled: BaseException | None) -> bool:
    """Whether some caller is at its clean-up already, perhaps in the middle of an error that came up there."""
    while handled is not None and not isinstance(handled, KeyboardInterrupt):
        handled = handled.__context__
    return handled is not None
