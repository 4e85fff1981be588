"""Where a store lies: a folder of this machine, or a URL whose files are copied here when they are first needed.

A URL is whatever fsspec knows (``s3://bucket/store``, ``gs://…``, ``memory://…``; ``file://`` is used in place). Its
copies lie under ``$MMCL_CACHE`` (or ``~/.cache/mmcl``), one folder for each version of a store, and may be deleted
whenever nothing reads them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from filelock import FileLock

from mmcl.common.documents import MOST_JSON, read_document
from mmcl.common.errors import UserError
from mmcl.common.files import atomic_file, exists, is_file, is_folder

FACTS = "store.json"


class StoreFolder:
    """A folder of this machine.

    Attributes:
        location: what the user calls it; opening that again gives the same store.
        path: the folder in which its files are read.
    """

    path: Path
    location: str

    def __init__(self, path: Path) -> None:
        self.path, self.location = path, str(path)

    def facts(self) -> str | None:
        """Content of ``store.json``, or None where there is none."""
        file = self.path / FACTS
        return read_document(file, MOST_JSON) if is_file(file) else None

    def missing(self) -> str:
        """Why there is no store, in words."""
        if is_folder(f"{self.path}.partial") or self.path.name.endswith(".partial"):
            return "`mmcl prepare` has not finished this store; run the same command again to go on"
        found = "it is empty or something else" if exists(self.path) else "it does not exist"
        return f"not a clip store ({found}); make one with `mmcl prepare DATASET --out {self.path}`"

    def check(self, name: str, size: int) -> None:
        """Raise UserError where a file is not there in full; cheap, and asked when a store is opened."""
        if _size(self.path / name) != size:
            raise UserError(f"{self.path / name}: missing or cut off; prepare the store again with --overwrite")

    def file(self, name: str, size: int) -> Path:
        """A file of the store, to be mapped.

        Args:
            name: relative to the folder.
            size: bytes it must have.

        Raises:
            UserError: it is not there in full.
        """
        self.check(name, size)
        return self.path / name


class Mirror(StoreFolder):
    """A folder elsewhere. ``path`` is the folder of its copies, which holds as much as was needed so far.

    The filesystem object is asked for anew at each use: fsspec keeps one a process, and those with threads of their
    own (s3fs, gcsfs) do not survive a fork.
    """

    def __init__(self, url: str) -> None:
        self.location = url
        filesystem(url)  # a protocol that cannot be had is an error now

    def facts(self) -> str | None:
        """Content of ``store.json``; settles in which folder the copies lie."""
        filesystem_, root = filesystem(self.location)
        try:
            text = filesystem_.cat_file(f"{root}/{FACTS}")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except Exception as error:  # each service has its own kinds: no credentials, no route, no such bucket
            raise UserError(f"{self.location}: cannot be read ({type(error).__name__}: {error})") from error
        # Another content is another folder: a copy never has to be replaced, nor can it belong to an older store.
        key = hashlib.sha256(self.location.encode() + b"\n" + text).hexdigest()[:32]
        self.path = cache_root() / key
        return str(text, "utf-8", "replace")

    def missing(self) -> str:
        """Why there is no store, in words."""
        return f"not a clip store (no {FACTS} there); copy a finished store to that place, {FACTS} last"

    def check(self, name: str, size: int) -> None:
        """Nothing: that would be a request for each part, and :meth:`file` finds out."""

    def file(self, name: str, size: int) -> Path:
        """This machine's copy of a file, fetched if it is not there yet; arguments and errors as in a folder."""
        copy = self.path / name
        if _size(copy) == size:
            return copy
        copy.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(copy.with_name(f".{copy.name}.lock")):  # one process of this machine at a time
            if _size(copy) == size:  # another process has fetched it meanwhile
                return copy
            for leftover in copy.parent.glob(f".{copy.name}.*.tmp"):  # of a process that was killed
                leftover.unlink(missing_ok=True)
            with atomic_file(copy) as temporary:
                self._fetch(name, temporary)
                if _size(temporary) != size:
                    raise UserError(f"{self.location}/{name}: cut off; copy the store there again")
        return copy

    def _fetch(self, name: str, to: Path) -> None:
        filesystem_, root = filesystem(self.location)
        try:
            filesystem_.get_file(f"{root}/{name}", str(to))
        except FileNotFoundError as error:
            raise UserError(f"{self.location}/{name}: missing; copy the store there again") from error
        except Exception as error:  # as in facts()
            raise UserError(f"{self.location}/{name}: cannot be fetched ({type(error).__name__}: {error})") from error


def locate(where: str | Path) -> StoreFolder:
    """The folder or URL that somebody means.

    Raises:
        UserError: a URL of a kind that cannot be read here.
    """
    if isinstance(where, str) and ("://" in where or "::" in where) and not exists(where):
        from fsspec.implementations.local import LocalFileSystem

        files, root = filesystem(where)
        return StoreFolder(Path(root)) if isinstance(files, LocalFileSystem) else Mirror(where.rstrip("/"))
    return StoreFolder(Path(where).expanduser().absolute())


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path in it.

    Raises:
        UserError: nobody knows such URLs, or the package that does is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        found, root = url_to_fs(url)
    except ImportError as error:
        raise UserError(f"{url}: a package is missing that reads such URLs ({error})") from error
    except Exception as error:  # an unknown protocol, or a service that wants to know more
        raise UserError(f"{url}: cannot be read ({error})") from error
    return found, root.rstrip("/")


def cache_root() -> Path:
    """StoreFolder of all copies on this machine."""
    return Path(os.environ.get("MMCL_CACHE") or Path.home() / ".cache" / "mmcl") / "stores"


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else -1
    except OSError:
        return -1
