"""What the progress bar of many jobs says, with a place whose jobs only wait."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmcl.places import performing
from mmcl.places.base import Handle, Place
from mmcl.places.job import Failure, Job

LOOKS, POLL = 8, 0.02  # looks at a job until it has ended, seconds between two looks


class Waiting(Job):
    """Something to do that no command does."""

    @property
    def commands(self) -> list[list[str]]:
        """One word."""
        return [["wait"]]


class Glance(Handle):
    """A job that has ended after some looks at it."""

    def __init__(self, job: Job) -> None:
        self.job, self.looks = job, 0

    def working(self) -> bool:
        """Counts the looks."""
        self.looks += 1
        return self.looks < LOOKS

    def failure(self) -> Failure | None:
        """None fails."""
        return None

    def stop(self, force: bool) -> str | None:
        """Ends it."""
        return None


class WaitingRoom(Place):
    """One job at a time."""

    def __init__(self) -> None:
        super().__init__(1, 0, POLL)

    def begin(self, job: Job) -> Handle:
        """Begins to wait."""
        return Glance(job)


def states(capfd: pytest.CaptureFixture[str], folder: Path) -> list[str]:
    performing.perform([Waiting(f"{n}", folder / f"{n}.log", ()) for n in range(4)], WaitingRoom())
    return [state for state in re.split(r"[\r\n]+", capfd.readouterr().err) if "study:" in state]


def test_the_bar_counts_on_the_time_that_jobs_take(tmp_path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(performing, "LOG_SECONDS", 0)
    shown = states(capfd, tmp_path)
    rates = [float(rate) for state in shown for rate in re.findall(r"([\d.]+)run/s", state)]
    assert len(shown) > LOOKS and max(rates, default=0) <= 1 / ((LOOKS - 1) * POLL)  # a job cannot end before


def test_a_log_gets_a_state_a_minute(tmp_path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(performing, "SECONDS", 0)  # a terminal would get every look
    assert len(states(capfd, tmp_path)) <= 2  # the first and the last
