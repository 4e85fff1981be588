"""What the progress bar of many jobs says, with a place whose jobs only wait."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

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


class Deleted(Glance):
    """A job whose folder was deleted while it was at work."""

    def failure(self) -> Failure | None:
        """Nothing can be read of it."""
        raise FileNotFoundError(2, "No such file or directory", "0.log")


class Crowded(WaitingRoom):
    """Two at a time, of which one loses its folder, one cannot begin, and the others are left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = 2

    def begin(self, job: Job) -> Handle:
        """By the job's name."""
        if job.name == "full":
            raise OSError(28, "No space left on device")
        return Deleted(job) if job.name == "gone" else Glance(job)


def test_what_the_machine_refuses_one_job_is_no_other_jobs_matter(tmp_path) -> None:
    names = ("gone", "full", "one", "two")
    outcome = performing.perform([Waiting(name, tmp_path / name, ()) for name in names], Crowded())
    assert {*outcome.failed} == {"gone", "full"} and not outcome.stopped
    assert "0.log" in outcome.failed["gone"] and "No space left" in outcome.failed["full"]


class Talkative(Glance):
    """A job whose reason goes on for many lines."""

    def failure(self) -> Failure | None:
        """What a command printed."""
        return Failure("exit status 2: error: no protocol, choose one of " + "brl/ntu\n" * 100 + "or give a file")


class Loud(WaitingRoom):
    """All its jobs fail."""

    def begin(self, job: Job) -> Handle:
        """One of many words."""
        return Talkative(job)


def test_a_reason_is_shown_in_one_line_and_kept_whole(tmp_path, capfd) -> None:
    outcome = performing.perform([Waiting("a", tmp_path / "a", ())], Loud())
    (line,) = (line for line in re.split(r"[\r\n]+", capfd.readouterr().err) if "failed" in line)
    assert len(line) <= 300 and line.endswith("or give a file") and len(outcome.failed["a"]) > 800


class Asked(Glance):
    """A job that saves and ends when it is asked to, some looks later."""

    stops: ClassVar[list[bool]] = []

    def working(self) -> bool:
        """Until it was asked, and a little longer."""
        self.looks += bool(self.stops)
        return self.looks < LOOKS

    def stop(self, force: bool) -> str | None:
        """Notes how it was asked."""
        self.stops.append(force)
        return None


class Torn(WaitingRoom):
    """Its second job ends everything by a fault of the program."""

    def begin(self, job: Job) -> Handle:
        """As the name says."""
        if job.name == "1":
            raise ZeroDivisionError
        return Asked(job)


def test_where_a_fault_ends_everything_what_is_at_work_saves_first(tmp_path) -> None:
    place = Torn()
    place.at_once = 2
    with pytest.raises(ZeroDivisionError):
        performing.perform([Waiting(name, tmp_path / name, ()) for name in ("0", "1")], place)
    assert Asked.stops == [False]  # and nothing was killed


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
