"""Folders, archives and files as readers meet them: untrusted, huge, cut off, or not there at all."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmcl.common.errors import BadClip, UserError
from mmcl.data.readers.packed import open_tar, open_zip, read_tar, read_zip, wanted

FILE_LIMIT = 256 << 20  # bytes of one clip's file; beyond that it is no clip
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv", ".ts", ".mts", ".m2ts",
                  ".3gp", ".flv", ".ogv", ".vob", ".asf", ".gif", ".h264")  # fmt: skip
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def require_folder(path: Path | None, what: str) -> None:
    """Raise UserError where a folder that the user named does not exist; ``what`` names it ("the video folder")."""
    if path is not None and not path.is_dir():
        raise UserError(f"{path}: {what} {'is a file' if path.exists() else 'does not exist'}; give an existing folder")


def read_bytes(path: str | Path, limit: int = FILE_LIMIT) -> bytes:
    """Content of a regular file.

    Raises:
        BadClip: it is gone, no regular file (a folder, a pipe, a device), not readable, or larger than ``limit``.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for somebody who writes into it.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise BadClip("the file has gone") from error
    except (OSError, ValueError) as error:
        raise BadClip(f"the file cannot be opened ({_words(error)})") from error
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise BadClip("a folder or a device, not a file")
        _check_size(facts.st_size, limit)
        with open(handle, "rb", closefd=False) as file:
            data = file.read(facts.st_size + 1)
    except OSError as error:
        raise BadClip(f"the file cannot be read ({_words(error)})") from error
    finally:
        os.close(handle)
    if len(data) != facts.st_size:
        raise BadClip("the file changed while it was read")
    return data


def find_videos(folder: Path | None, suffixes: tuple[str, ...] = VIDEO_SUFFIXES) -> dict[str, str]:
    """Videos of a folder and of the folders right inside it: name without suffix -> path.

    A folder of pictures counts as a video by its whole name. Folders are listed once, since a look-up for each clip
    is slow on network disks. Where a name occurs twice, the outer file and then the first in the alphabet wins.
    """
    found: dict[str, str] = {}
    if folder is None or not folder.is_dir():
        return found
    inner = []
    for entry in sorted(entries(folder), key=_is_preview):  # these come last
        if entry.name.lower().endswith(suffixes):
            found.setdefault(_stem(entry.name), entry.path)
        elif entry.is_dir():
            inner.append(entry)
    for parent in inner:
        for entry in sorted(entries(Path(parent.path)), key=_is_preview):
            name = entry.name.lower()
            if name.endswith(PICTURE_SUFFIXES):
                found.setdefault(unicodedata.normalize("NFC", parent.name), parent.path)
                break
            if name.endswith(suffixes):
                found.setdefault(_stem(entry.name), entry.path)
    return found


def _is_preview(entry: os.DirEntry[str]) -> bool:
    """Whether a file is more likely a preview of a recording than the recording itself."""
    return entry.name.lower().endswith(".gif")


def _stem(name: str) -> str:
    """A name without its suffix, in the form that lists have it in: macOS keeps other ones."""
    return unicodedata.normalize("NFC", Path(name).stem)


class Archive:
    """A folder, a ``.zip``, a ``.tar`` or a ``.tar.gz``, looked at in the same way.

    It pickles as its path, and each process opens the archive for itself on first use. A ``.tar.gz`` cannot be read
    at random: each process unpacks it into memory once.

    Args:
        path: the folder or file.

    Raises:
        UserError: it does not exist, is none of these, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kind = _kind(path)
        self._opened: tuple[int, Any, dict[str, Any]] | None = None
        if self.kind != "folder":
            self._open(said=True)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "kind": self.kind, "_opened": None}

    def names(self) -> list[str]:
        """Sorted names of the files inside, relative, with "/" between the parts.

        Left out: hidden files, ``__MACOSX``, links and devices of a tar, and names that lead out of the archive.

        Raises:
            UserError: the archive is damaged or has gone.
        """
        return sorted(_walk(self.path) if self.kind == "folder" else self._open()[1])

    def read(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        """Content of one file inside.

        Raises:
            BadClip: it is gone, damaged (a zip's checksum is checked), no file, or larger than ``limit`` bytes.
        """
        if self.kind == "folder":
            if not wanted(name):
                raise BadClip("not the name of a file inside the folder")
            return read_bytes(self.path / name, limit)
        try:
            archive, members = self._open()
        except UserError as error:
            raise BadClip(str(error)) from error
        member = members.get(name)
        if member is None:
            raise BadClip(f"no such file in {self.path.name}")
        size = member.file_size if self.kind == "zip" else member.size
        _check_size(size, limit)
        try:
            data = read_zip(archive, member) if self.kind == "zip" else read_tar(archive, member)
        except Exception as error:  # a dozen kinds on damaged archives, zlib.error and struct.error among them
            raise BadClip(f"damaged in {self.path.name} ({_words(error)})") from error
        if len(data) != size:
            raise BadClip(f"damaged in {self.path.name} (more or fewer bytes than announced)")
        return data

    def _open(self, said: bool = False) -> tuple[Any, dict[str, Any]]:
        """The opened archive of this process, and its members by name; whether it says what of a tar is left out."""
        if self._opened is None or self._opened[0] != os.getpid():  # a forked process must not share the file position
            try:
                opened = open_zip(self.path) if self.kind == "zip" else open_tar(self.path, self.kind, said)
            except UserError:
                raise
            except Exception as error:
                raise UserError(f"{self.path}: damaged or cut off ({_words(error)}); download it again") from error
            self._opened = (os.getpid(), *opened)
        return self._opened[1:]


def _kind(path: Path) -> str:
    """What lies there, by its first bytes; raise UserError where nothing can be read from it."""
    if path.is_dir():
        return "folder"
    if not path.is_file():
        raise UserError(f"{path}: {'neither a folder nor a file' if path.exists() else 'does not exist'}")
    with open(path, "rb") as file:
        head = file.read(512)
    if head[:4] in (b"PK\3\4", b"PK\5\6"):
        return "zip"
    if head[:2] == b"\x1f\x8b":
        return "tar.gz"
    if head[257:262] == b"ustar":
        return "tar"
    raise UserError(f"{path}: not a folder, .zip, .tar or .tar.gz; unpack it and give the folder")


def _walk(folder: Path) -> Iterator[str]:
    """Files below a folder. Links to folders are followed, each folder once, so that a ring of links ends."""
    seen: set[tuple[int, int]] = set()
    for parent, inner, files in os.walk(folder, followlinks=True):
        facts = os.stat(parent)
        if (facts.st_dev, facts.st_ino) in seen:
            inner.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        inner[:] = sorted(name for name in inner if wanted(name))
        prefix = "" if parent == str(folder) else Path(parent).relative_to(folder).as_posix() + "/"
        yield from (prefix + name for name in files if wanted(name))


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies right in a folder, sorted by name, without junk; nothing where it cannot be listed."""
    try:
        with os.scandir(folder) as listed:
            return sorted((entry for entry in listed if wanted(entry.name)), key=lambda entry: entry.name)
    except OSError:
        return []


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise BadClip(f"too large for a clip ({size} bytes, at most {limit} are read)")


def _words(error: Exception) -> str:
    """What an exception says, or its kind where it says nothing."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
