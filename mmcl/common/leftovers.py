"""Temporary files and folders, beside what they shall replace, and what killed processes have left of them."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

_NAME = re.compile(r"\.(.+)\.[0-9a-f]{12}\.tmp", re.DOTALL)


def beside(path: Path) -> Path:
    """A name that no other process uses, on whatever machine: process numbers repeat, in containers above all."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def meant_for(name: str) -> str | None:
    """The name of what a temporary file or folder was to replace; None where a name is no such thing's."""
    match = _NAME.fullmatch(name)
    return None if match is None else match[1]


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold a file or folder for as long as this process lives, where the system can; False where another one does."""
    try:
        import fcntl

        handle = os.open(path, os.O_RDONLY)
    except (ImportError, OSError):
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or a file system that knows no such thing
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left beside ``path`` of writing it; whoever still writes holds his.

    A folder is looked through once a process, since thousands of files may be written into it.
    """
    for name in _leftovers(path.parent.absolute()).pop(path.name, ()):
        leftover = path.with_name(name)
        with held(leftover) as nobody_writes:
            if nobody_writes:
                with suppress(OSError):  # another user's: it stays, and is in nobody's way
                    remove(leftover)
    old = path.with_name(f".{path.name}.old")
    if path.is_dir() and old.is_dir():  # killed after the second of two renames
        remove(old)


def remove(path: Path) -> None:
    """Remove a file, a folder, or a link and not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@lru_cache(maxsize=256)
def _leftovers(folder: Path) -> dict[str, list[str]]:
    """What there is of temporary files and folders, by what each was to replace."""
    found: dict[str, list[str]] = {}
    try:
        names = os.listdir(folder)
    except OSError:  # one may write into a folder that one may not list
        names = []
    for name in names:
        if (target := meant_for(name)) is not None:
            found.setdefault(target, []).append(name)
    return found
