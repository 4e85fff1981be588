"""Files that several runs may want at the same time: made once, by whoever comes first; the others wait and read it."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmcl.common.files import atomic_file

UNFINISHED = ".filling"


@contextmanager
def claimed_file(path: Path) -> Iterator[Path | None]:
    """Yield a temporary path to fill, which becomes ``path`` when the block ends, and vanishes if it raises.

    The temporary file is locked meanwhile. A second process that wants the same file waits for the lock, and is given
    None once the file is there. The kernel releases the lock of a process that was killed; what it left is removed by
    the next one that fills any file of the folder. On a file system without locks, each process makes the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary = path.with_name(f".{path.name}{UNFINISHED}")
    descriptor = _lock(temporary)
    if descriptor is None:
        temporary.unlink(missing_ok=True)
        with atomic_file(path) as own:
            yield own
        return
    try:
        if path.is_file():
            yield None
            return
        os.ftruncate(descriptor, 0)
        yield temporary
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
        os.close(descriptor)


def _lock(temporary: Path) -> int | None:
    """A descriptor that holds the lock of the file under this name, waiting for it; None where there are no locks."""
    while True:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(descriptor):
                print(f"waiting for another run, which is making {temporary}", file=sys.stderr, flush=True)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(descriptor)
            return None
        if _is_named(descriptor, temporary):
            return descriptor
        os.close(descriptor)  # while we waited, it got its final name, or was removed


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left: unfinished files that nobody holds the lock of."""
    for left in folder.glob(f".*{UNFINISHED}"):
        with suppress(OSError):  # locked by a living process, or gone meanwhile
            descriptor = os.open(left, os.O_RDWR)
            try:
                if _try_lock(descriptor) and _is_named(descriptor, left):
                    left.unlink()
            finally:
                os.close(descriptor)
