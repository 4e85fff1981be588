"""One writer a run folder: a second process that would train into it is told who does so already."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.common.leftovers import meant_for
from mmcl.engine.config import TrainConfig
from mmcl.engine.run_folder import LOCK, TEXTS, WRITER, check_run, has_saved

_OURS = ("config.yaml", TEXTS, "start.json", "metrics.jsonl", "tracked.json", "summary.json", "model.json")
PATIENCE = 30.0  # seconds in which what is left of a killed process lets go


@contextmanager
def sole_writer(config: TrainConfig) -> Iterator[None]:
    """Keep other processes from training into the run's folder, and clear away what a run left that saved nothing.

    Raises:
        UserError: another process writes there; which one.
    """
    folder = Path(config.out)
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    _acquire(lock, folder)
    try:
        write_json(folder / WRITER, {"process": os.getpid(), "host": platform.node(), "since": time.ctime()})
        check_run(config)  # once more: until now, another process may have written
        for path in list(folder.iterdir()):
            if meant_for(path.name) in (*_OURS, WRITER):  # whoever was writing it has been killed
                path.unlink(missing_ok=True)
        if not has_saved(folder):
            for name in _OURS:
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "trackers", ignore_errors=True)
        yield
    finally:
        (folder / WRITER).unlink(missing_ok=True)
        if [path.name for path in folder.iterdir()] == [LOCK]:  # refused before anything was written
            _remove(folder, made)  # while it is locked: afterwards, it may be somebody else's
        lock.release()


def _remove(folder: Path, made: list[Path]) -> None:
    """Remove a folder that holds its lock alone, and the parents that were made for it, innermost first."""
    with suppress(OSError):  # what somebody else has put there meanwhile stays
        (folder / LOCK).unlink()
        for empty in (folder, *made):
            empty.rmdir()


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(timeout=0)
        return
    except Timeout:
        pass
    writer = _writer(folder)
    killed = writer.get("host") == platform.node() and not _is_alive(writer.get("process"))
    try:  # loader workers of a process that was killed hold its lock until they notice
        lock.acquire(timeout=PATIENCE if killed else 0)
    except Timeout:
        words = "process {process} on {host} since {since}".format_map(writer) if writer else "another process"
        raise UserError(f"{folder} is being written by {words}: wait for it, or choose another --out") from None


def _writer(folder: Path) -> dict[str, Any]:
    """Who wrote into a run folder last, as far as that can be read."""
    try:
        found = read_json(folder / WRITER)
    except UserError:
        return {}
    return found if isinstance(found, dict) and {"process", "host", "since"} <= found.keys() else {}


def _is_alive(process: Any) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return False
    except PermissionError:
        pass
    return True
