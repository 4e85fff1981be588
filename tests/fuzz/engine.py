"""Runs targets on mutated files in processes that may die, hang or fill up, and names those files that made them.

A find is anything but a result, a UserError or a BadClip; more than SECONDS; more than ROOM bytes beyond what the
process began with; a message that is no line; or a file outside the folder.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from mmcl.common.errors import BadClip, UserError

from .mutate import mutated
from .targets import Target

SECONDS, ROOM, BATCH = 10, 2 << 30, 40


@dataclass
class Find:
    """A file that broke something: the target, its content, and what was seen."""

    target: str
    data: bytes
    seen: str

    @property
    def name(self) -> str:
        """For a file of the corpus."""
        return f"{self.target}--{hashlib.sha256(self.data).hexdigest()[:10]}"


@dataclass
class Tally:
    """What came of a run: inputs by target, those that were read, and finds."""

    tried: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    finds: list[Find] = field(default_factory=list)


def fuzz(targets: list[Target], folder: Path, seed: int, batches: int, until: float = float("inf")) -> Tally:
    """Try so many batches of each target, in turn, until a time (of ``time.monotonic``)."""
    tally, seeds = Tally(), {target.name: target.seeds() for target in targets}
    for number in range(batches):
        for target in targets:
            if time.monotonic() > until:
                return tally
            rng = Random(f"{seed} {number} {target.name}")
            files = [mutated(rng.choice(seeds[target.name]), target.kind, rng) for _ in range(target.batch)]
            run_batch(target, files, folder, tally)
    return tally


def run_batch(target: Target, files: list[bytes], folder: Path, tally: Tally) -> None:
    """Give files to a target in a process of its own; where it dies, a new one goes on behind the file."""
    at = 0
    while at < len(files):
        outer = folder / "outer"
        shutil.rmtree(outer, ignore_errors=True)
        (outer / "inside").mkdir(parents=True)
        report = folder / "report"
        report.write_text("")
        child = os.fork()
        if child == 0:
            _child(target, files[at:], outer / "inside", report)
        _, status = os.waitpid(child, 0)
        lines = report.read_text(encoding="utf-8").splitlines()
        done = len(lines)
        for data, line in zip(files[at:], lines, strict=False):
            if line not in ("read", "refused"):
                tally.finds.append(Find(target.name, data, line))
        tally.read[target.name] = tally.read.get(target.name, 0) + lines.count("read")
        tally.tried[target.name] = tally.tried.get(target.name, 0) + done
        if outside := sorted(path.name for path in outer.iterdir() if path.name != "inside"):
            tally.finds.append(Find(target.name, files[min(at + done, len(files) - 1)], f"wrote {outside}"))
        at += done
        if at < len(files) and status != 0:
            number = os.waitstatus_to_exitcode(status)
            seen = f"longer than {SECONDS} s" if number == -signal.SIGALRM else f"the process died ({number})"
            tally.finds.append(Find(target.name, files[at], seen))
            at += 1
        elif done == 0:
            raise RuntimeError(f"{target.name}: the process did nothing")


def _child(target: Target, files: list[bytes], inside: Path, report: Path) -> None:
    faulthandler.disable()  # a process that dies is told of by its status
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        sys.stdout = sys.stderr = os.fdopen(null, "w")
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.chdir(inside)
        target.prepare(inside)
        _limit_memory()
        with report.open("a", encoding="utf-8") as out:
            for data in files:
                signal.alarm(SECONDS)
                out.write(_outcome(target, inside, data).replace("\n", " ") + "\n")
                signal.alarm(0)
                out.flush()
        os._exit(0)
    except BaseException:
        with contextlib.suppress(OSError):
            report.write_text("", encoding="utf-8")
        os._exit(3)


def _outcome(target: Target, inside: Path, data: bytes) -> str:
    try:
        target.run(inside, data)
    except (UserError, BadClip) as error:
        return "refused" if str(error).strip() else "an empty message"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/mmcl/" in frame.filename]
        near = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
        return f"{type(error).__name__}: {str(error)[:150]} at {Path(place.filename).name}:{place.lineno} {near}"
    return "read"


def _limit_memory() -> None:
    pages = Path("/proc/self/statm")
    if pages.exists():
        taken = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))
