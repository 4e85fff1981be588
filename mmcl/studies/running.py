"""Carries out the runs of a study: each command a process of its own, some at a time, none in another's way."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO

from tqdm import tqdm

from mmcl.common.errors import UserError
from mmcl.engine.processes import stop_requests
from mmcl.studies.grid import Run

POLL = 0.1  # seconds between two looks at the processes
TAIL = 4096  # bytes of a log in which its last line is looked for


@dataclass
class Outcome:
    """What became of the runs: names of failed ones with the reason, and whether the study was asked to stop."""

    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


class Worker:
    """One run at work.

    Its log is locked for as long as a process writes to it, children included: even when a study was killed and its
    training goes on by itself, no second one is started in the same folder.

    Raises:
        UserError: another process is at this run.
    """

    def __init__(self, run: Run, environment: dict[str, str]) -> None:
        self.run, self.environment, self.commands = run, environment, deque(run.commands)
        run.log.parent.mkdir(parents=True, exist_ok=True)
        self.log: IO[bytes] = run.log.open("ab")
        # flock, not filelock: the lock must live on in a child that writes to the log after this process was killed
        try:
            fcntl.flock(self.log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.log.close()
            raise UserError("another process is at this run; start the study again when it has ended") from None
        self.process = self._next()

    def _next(self) -> subprocess.Popen[bytes]:
        words = self.commands.popleft()
        self.log.write(f"$ mmcl {shlex.join(words)}\n".encode())
        self.log.flush()
        return subprocess.Popen(
            [sys.executable, "-m", "mmcl", *words], env=self.environment, stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def working(self) -> bool:
        """Whether there is more to wait for; goes on to the next command when one has succeeded."""
        status = self.process.poll()
        if status == 0 and self.commands:
            self.process = self._next()
            return True
        if status is not None:
            self.log.close()
        return status is None

    def failure(self) -> str | None:
        """Why it failed, once it has ended; None where it did not."""
        status = self.process.returncode
        if status == 0:
            return None
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return f"{how}: {last_line(self.run)} (log: {self.run.log})"


def last_line(run: Run) -> str:
    """The last thing that a run's commands said; of a progress bar, its last state."""
    with run.log.open("rb") as file:
        file.seek(max(0, run.log.stat().st_size - TAIL))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def perform(runs: Sequence[Run], jobs: int) -> Outcome:
    """Carry out what is still to be done of the runs, and wait for it.

    A run that fails is kept in mind and does not stop the others. Ctrl-C or SIGTERM is passed on, so that trainings
    save a checkpoint; a second one kills them.

    Args:
        runs: in the order in which they shall begin.
        jobs: runs at the same time.
    """
    queue, outcome = deque(run for run in runs if run.commands), Outcome()
    workers: list[Worker] = []
    # Else each of several trainings would start as many threads as there are cores.
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    done = len(runs) - len(queue)
    bar = tqdm(total=len(runs), initial=done, desc="study", unit="run", miniters=0, mininterval=1)
    answered = 0
    with stop_requests() as stops, bar:
        try:
            while queue or workers:
                if len(stops) > answered:
                    answered, outcome.stopped = len(stops), True
                    queue.clear()
                    for worker in workers:
                        worker.commands.clear()
                    _signal(workers, signal.SIGTERM if answered == 1 else signal.SIGKILL)
                while queue and len(workers) < jobs:
                    _begin(queue.popleft(), environment, workers, outcome, bar)
                for worker in [worker for worker in workers if not worker.working()]:
                    workers.remove(worker)
                    _finish(worker, outcome, bar)
                bar.set_postfix_str(", ".join(worker.run.name for worker in workers), refresh=False)
                bar.update(0)  # the clock goes on while nothing ends
                time.sleep(POLL)
        finally:
            _signal(workers, signal.SIGKILL)  # only where something unforeseen ended the loop
    return outcome


def _begin(run: Run, environment: dict[str, str], workers: list[Worker], outcome: Outcome, bar: tqdm) -> None:
    try:
        workers.append(Worker(run, environment))
    except UserError as error:
        outcome.failed[run.name] = str(error)
        bar.write(f"{run.name}: {error}", file=sys.stderr)


def _finish(worker: Worker, outcome: Outcome, bar: tqdm) -> None:
    failure = worker.failure()
    if failure is None:
        bar.update()
    elif not outcome.stopped:  # asked to stop, it has not failed
        outcome.failed[worker.run.name] = failure
        bar.write(f"{worker.run.name} failed: {failure}", file=sys.stderr)


def _signal(workers: Sequence[Worker], number: int) -> None:
    for worker in workers:
        worker.process.send_signal(number)
