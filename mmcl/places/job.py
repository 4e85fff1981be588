"""A job: commands of mmcl that are processes of their own, one after the other, with one log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        words: after ``mmcl``.
        proof: file that is there once it has succeeded; None where it is to be asked each time.
    """

    words: tuple[str, ...]
    proof: Path | None = None

    @property
    def done(self) -> bool:
        """Whether it need not be done (again)."""
        return self.proof is not None and self.proof.is_file()


@dataclass(frozen=True)
class Job:
    """What is handed to a place.

    Attributes:
        name: for messages.
        log: what its commands print; locked while one of them runs.
        steps: in order.
    """

    name: str
    log: Path
    steps: tuple[Step, ...]

    @property
    def commands(self) -> list[list[str]]:
        """Words after ``mmcl`` of what is still to be done; empty when finished.

        A step that is done stands for those before it, too.
        """
        done = [number for number, step in enumerate(self.steps, 1) if step.done]
        return [list(step.words) for step in self.steps[max(done, default=0) :]]


@dataclass(frozen=True)
class Failure:
    """Why a job did not succeed.

    Attributes:
        reason: in words.
        ended_from_outside: its process or machine was killed, so that it may succeed when it is begun again.
    """

    reason: str
    ended_from_outside: bool = False
