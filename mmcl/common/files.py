"""Files: looking for what strangers name, and writing that leaves nothing half-written (renamed when it is whole)."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.leftovers import beside, held, remove, remove_leftovers

_NO_ROOM = ("no space left on device", "file too large", "disk quota exceeded", "os error 28", "os error 27",
            "os error 122", "inline_container", "failed writing file")  # the last two: of torch.save  # fmt: skip


def is_file(path: str | Path) -> bool:
    """Whether there is such a file. A name that is too long, or has a null character in it, is that of none.

    ``pathlib`` raises for such names, and they come out of recipes and lists that anybody may have written.
    """
    return os.path.isfile(path)


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder, as :func:`is_file`."""
    return os.path.isdir(path)


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder, as :func:`is_file`."""
    return os.path.exists(path)


def absolute(path: str | Path) -> Path:
    """The one absolute path of a place, links followed, so that two names of it can be compared.

    ``Path.resolve`` raises for a link that leads to itself, and for a name that none can have; here both stay as they
    are.
    """
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(os.path.abspath(path))


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Name what could not be written where a disk is full: libraries have errors of their own for that.

    Raises:
        UserError: there is no room left.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not any(words in str(error).casefold() for words in _NO_ROOM):
            raise
        words = " ".join(str(error).split())[:100]
        raise UserError(f"no room left to write {path} ({words}): make room, and run the same command again") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it replaces ``path`` when the block ends, and vanishes if it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = beside(path)
    try:
        with room_for(path):
            temporary.touch()
        with held(temporary):
            with room_for(path):
                yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one go."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be no text


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON in one go."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def check_place(path: Path) -> None:
    """Whether something can be made at a path, so that this is known before the work and not after it.

    Raises:
        UserError: it is a link that leads to nothing, lies in what is no folder, or cannot be made there.
    """
    for place in (path, *path.parents):
        if os.path.lexists(place) and not exists(place):
            raise UserError(f"{place} is a link that leads to nothing: remove it, or choose another --out")
        if place != path and exists(place) and not is_folder(place):
            raise UserError(f"{path}: {place} is a file, and no folder: choose another --out")
    if exists(path):
        return
    try:
        os.lstat(beside(path))  # the name under which it is half-written
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{path}: no file can have so long a name: choose a shorter --out") from error
    nearest = next(filter(exists, absolute(path).parents))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{path}: nothing may be written in the folder {nearest}: choose another --out")


def check_replaceable(path: Path, ours: str | Callable[[Path], bool], overwrite: bool = True) -> None:
    """Whether a folder may be written at ``path``.

    Args:
        path: where a result is to go.
        ours: what marks a folder as an older result of the same kind: the name of a file in it, or a look at it.
        overwrite: an older result may be replaced.

    Raises:
        UserError: something is there that mmcl must not delete, or that it was not told to replace.
    """
    check_place(path)
    if not exists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not ((path / ours).is_file() if isinstance(ours, str) else ours(path)):
        without = f" (no {ours} in it)" if isinstance(ours, str) else ""
        raise UserError(f"{path} exists and holds something else{without}: choose another --out")
    if not overwrite:
        raise UserError(f"{path} exists: choose another --out, or add --overwrite")


@contextmanager
def atomic_folder(path: Path, ours: str | Callable[[Path], bool]) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; when the block ends it replaces an older one of its kind.

    Args:
        path: where the folder shall be.
        ours: see :func:`check_replaceable`.

    Raises:
        UserError: ``path`` holds something else.
    """
    check_replaceable(path, ours)
    path = absolute(path)  # where it is a link, what it leads to is replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = beside(path)
    temporary.mkdir()
    with held(temporary):
        try:
            with room_for(path):
                yield temporary
            replace_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Put ``new`` in the place of ``path``. Killed in between, ``path`` or ``.<name>.old`` is there, each whole."""
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        remove(old)
        os.rename(path, old)
    os.rename(new, path)
    remove(old)  # of a link, the link alone


def recover_folder(path: Path) -> None:
    """Undo a :func:`replace_folder` that was killed between its two renames."""
    old = path.with_name(f".{path.name}.old")
    if old.is_dir() and not path.exists():
        os.rename(old, path)
