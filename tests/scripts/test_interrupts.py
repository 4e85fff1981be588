"""SIGTERM stops what runs, also where Python drops the exception that it raised."""

from __future__ import annotations

import os
import signal
import time

import pytest

from mmcl.common.interrupts import stop_as_interrupt


class Dropping:
    """Is asked to stop where no exception gets out."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # the handler runs here


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("rest", [0.0, 30.0])
def test_a_request_that_was_dropped_is_repeated_and_at_the_end_kept_in_mind(rest) -> None:
    before, began, reached = signal.getsignal(signal.SIGTERM), time.monotonic(), False
    with pytest.raises(KeyboardInterrupt), stop_as_interrupt(again=0.1):
        Dropping()
        reached = True
        end = began + rest
        while time.monotonic() < end:
            time.sleep(0.01)
    assert reached and time.monotonic() - began < 20
    assert signal.getsignal(signal.SIGTERM) is before


def test_cleaning_up_is_left_in_peace() -> None:
    cleaned = []
    with pytest.raises(KeyboardInterrupt), stop_as_interrupt(again=0.05):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            try:
                raise OSError
            except OSError:
                time.sleep(0.3)
            cleaned.append(True)
    assert cleaned


def test_without_a_request_nothing_happens() -> None:
    with stop_as_interrupt(again=0.01):
        time.sleep(0.05)
