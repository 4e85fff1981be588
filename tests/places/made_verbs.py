"""A stand-in for mmcl's verbs in jobs: it waits for a file, and says what happens to it in others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from mmcl.places.job import Job, Step

VERB = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(*_):
    (folder / "saved").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
with (folder / "starts").open("a") as file:
    file.write("start\\n")
print("at work", flush=True)
while not (folder / "go").exists():
    time.sleep(0.02)
(folder / "done").touch()
"""


def make_verbs(tmp_path: Path) -> dict[str, str]:
    """Variables by which the processes of jobs find the stand-in; nobody else does."""
    package = tmp_path / "verbs" / "mmcl"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(VERB)
    return {"PYTHONPATH": str(package.parent)}


def job_in(folder: Path) -> Job:
    """A job that is done once ``folder/go`` is there."""
    folder.mkdir(exist_ok=True)
    return Job(folder.name, folder / "0.log", (Step((str(folder),), folder / "done"),))


def starts(folder: Path) -> int:
    """How often the job was begun."""
    file = folder / "starts"
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    """Until it holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has asked for its status has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def own_environment(variables: dict[str, str]) -> dict[str, str]:
    """This process's environment with some variables changed."""
    return {**os.environ, **variables}
