"""Does the commands of one job on the machine it runs on, whoever has chosen that machine."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from mmcl.common.errors import UserError
from mmcl.places.base import Handle
from mmcl.places.job import Failure, Job

BEGINS = "$ mmcl "  # what a command's part of a log begins with
POLL = 0.1  # seconds between two looks at the process
TAIL = 16384  # bytes of a log in which its last lines are looked for
PATIENCE = 60.0  # seconds in which the processes of a killed worker, elsewhere, save what they have
GRACE = 60.0  # seconds in which a process that is asked to end saves what it has


class Worker(Handle):
    """One job at work.

    Its log is locked for as long as a process writes to it, children included: even when a study was killed and its
    training goes on by itself, no second one is started in the same folder.

    Args:
        job: to be done.
        environment: of its processes.
        processes: of a training, one for each GPU that it has.
        patience: seconds to wait for another process that is at this job.
        leash: whether the processes end with this one.

    Raises:
        UserError: another process is at this job.
    """

    def __init__(
        self, job: Job, environment: dict[str, str], processes: int = 1, patience: float = 0.0, leash: bool = False
    ) -> None:
        self.job, self.environment, self.processes, self.leash = job, environment, processes, leash
        self.log = _locked(job.log, patience)
        self.commands = deque(job.commands)  # now, since another process may have been at it until the lock was free
        self.process = self._next() if self.commands else None

    def _next(self) -> subprocess.Popen[bytes]:
        words = self.commands.popleft()
        self.log.write(f"{BEGINS}{shlex.join(words)}\n".encode())
        self.log.flush()
        command = command_of(words, self.processes)
        if self.leash:
            command = [sys.executable, "-S", str(Path(__file__).with_name("leash.py")), str(os.getpid()), *command]
        return subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT
        )

    def working(self) -> bool:
        """Whether there is more to wait for; goes on to the next command when one has succeeded."""
        status = 0 if self.process is None else self.process.poll()
        if status == 0 and self.commands:
            self.process = self._next()
            return True
        if status is not None:
            self.log.close()
        return status is None

    def failure(self) -> Failure | None:
        """Why it failed, once it has ended; None where it did not."""
        status = 0 if self.process is None else self.process.returncode
        if status == 0:
            return None
        said = last_lines(self.job.log)
        if self.processes > 1 and (by := launched(said)) is not None:
            status, said = by, told(said)
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        last = said[-1] if said else "it said nothing"
        return Failure(f"{how}: {last} (log: {self.job.log})", ended_from_outside=status < 0)

    def stop(self, force: bool) -> None:
        """Let the process save and end, or end it."""
        self.commands.clear()
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL if force else signal.SIGTERM)

    def end(self) -> None:
        """Stop, and wait until the process has saved; it has a minute for that."""
        self.stop(force=False)
        if self.process is not None:
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def command_of(words: list[str], processes: int = 1) -> list[str]:
    """The command line of a verb; of a training in several processes, as torchrun starts it."""
    if words[0] == "train" and processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "mmcl.train"]
        return [sys.executable, *launch, *words[1:]]
    return [sys.executable, "-m", "mmcl", *words]


def _locked(log: Path, patience: float) -> IO[bytes]:
    """The log, open and locked."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file, until = log.open("ab"), time.monotonic() + patience
    while True:
        # flock, not filelock: the lock must live on in a child that writes to the log after this process was killed
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= until:
                file.close()
                raise UserError("another process is at this; give the command again when it has ended") from None
            time.sleep(POLL)
        except OSError:  # a file system without locks; run folders and stores have a lock of their own
            return file


def last_lines(log: Path) -> list[str]:
    """The last things that a job's last command said; of a progress bar, its last states."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    except FileNotFoundError:
        return ["its log is gone"]
    said = [line.strip() for line in lines if line.strip()]
    begins = [at for at, line in enumerate(said) if line.startswith(BEGINS)]
    return said[begins[-1] + 1 :] if begins else said


def launched(said: Sequence[str]) -> int | None:
    """How the first process that failed under torchrun ended, which itself ends with 1; None where it does not say."""
    cause = next((at for at, line in enumerate(said) if line.startswith("Root Cause")), len(said))
    found = (re.fullmatch(r"exitcode\s*:\s*(-?\d+)\b.*", line) for line in said[cause:])
    return next((int(match[1]) for match in found if match), None)


def told(said: Sequence[str]) -> list[str]:
    """What a training said before torchrun reported of it: up to its error, else up to the traceback of torchrun."""
    errors = [at for at, line in enumerate(said) if line.startswith("error: ")]
    ends = [at for at, line in enumerate(said) if "torch/distributed/" in line or line.startswith("Traceback")]
    return list(said[: errors[-1] + 1] if errors else said[: ends[0]] if ends else said)


class Task:
    """A job as it is handed to Ray or Slurm: called on the machine that they chose, it does the job there.

    Args:
        job: its paths may be relative to the folder in which the command was given.
        variables: for the environment of its processes.
        processes: see :class:`Worker`.
    """

    def __init__(self, job: Job, variables: dict[str, str], processes: int = 1) -> None:
        self.job, self.variables, self.processes = job, variables, processes
        self.folder = os.getcwd()

    def __call__(self) -> Failure | None:
        """Do the job; None once it has succeeded. Whatever interrupts this lets the process save first."""
        try:
            os.chdir(self.folder)
            worker = Worker(self.job, {**os.environ, **self.variables}, self.processes, PATIENCE, leash=True)
        except UserError as error:
            return Failure(str(error))
        except OSError as error:
            return Failure(f"{socket.gethostname()}: {error}; all machines must see the same folders by the same names")
        try:
            while worker.working():
                time.sleep(POLL)
        except BaseException:
            worker.end()
            raise
        return worker.failure()
