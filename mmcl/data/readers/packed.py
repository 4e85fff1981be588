"""Zip and tar archives by their members, without ever unpacking more than they were asked for."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.printing import complain

ENCRYPTED = 1  # flag of a member of a zip
UNPACKED_LIMIT = 1 << 30  # bytes that a process keeps unpacked: of a .tar.gz, or of the compressed arrays of a file


def open_zip(path: Path) -> tuple[zipfile.ZipFile, dict[str, Any]]:
    """An opened zip, and its members by name; raise one of many kinds of exception where it is damaged."""
    archive = zipfile.ZipFile(path)
    # Some programs of Windows write "\\" between the parts of a name.
    named = [(info.filename.replace("\\", "/"), info) for info in archive.infolist()]
    members = {name: info for name, info in named if not info.is_dir() and wanted(name)}
    if any(info.flag_bits & ENCRYPTED for info in members.values()):
        raise UserError(f"{path}: encrypted; unpack it with its password, and give the folder")
    return archive, members


def open_tar(path: Path, kind: str, said: bool = False) -> tuple[Path | io.BytesIO, dict[str, Any]]:
    """Where the bytes of a tar's members are to be read from, and the members by name.

    Args:
        path: of the archive.
        kind: tar or tar.gz.
        said: say which members are left out, links and pipes above all.

    Raises:
        UserError: a ``.tar.gz`` that is too large to be kept unpacked. Other exceptions: it is damaged.
    """
    source = path if kind == "tar" else _unpacked(path)
    with open(path, "rb") if isinstance(source, Path) else nullcontext(source) as stream:
        archive = tarfile.TarFile(fileobj=stream)
        members, left = _members(archive)
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):  # the module takes a damaged header for the end of the archive
            raise tarfile.ReadError(f"unreadable from byte {archive.offset} on")
    if said and left:
        some = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
        complain("warning", f"{path}: {len(left)} symbolic links, pipes or other special files are left out ({some})")
    return source, members


def _members(archive: tarfile.TarFile) -> tuple[dict[str, Any], list[str]]:
    """Files of a tar by name, and names of what is no file. A hard link is a second name of an earlier file."""
    members: dict[str, Any] = {}
    left = []
    for info in archive:
        name, target = info.name.removeprefix("./"), info.linkname.removeprefix("./")
        found = members.get(target) if info.islnk() else info if info.isreg() and not info.issparse() else None
        if found is not None:
            members[name] = found
        elif not info.isdir() and wanted(name):
            left.append(name)
    return {name: info for name, info in members.items() if wanted(name)}, left


def _unpacked(path: Path) -> io.BytesIO:
    """The tar inside a ``.tar.gz``, in memory."""
    buffer = io.BytesIO()
    with gzip.open(path) as stream:
        while chunk := stream.read(1 << 20):
            if buffer.tell() + len(chunk) > UNPACKED_LIMIT:
                raise UserError(f"{path}: more than {UNPACKED_LIMIT >> 20} MB when unpacked; unpack it first")
            buffer.write(chunk)
    buffer.seek(0)
    return buffer


def read_tar(source: Path | io.BytesIO, info: tarfile.TarInfo) -> bytes:
    """One member; the file is opened anew, so that nothing stays open."""
    with open(source, "rb") if isinstance(source, Path) else nullcontext(source) as stream:
        stream.seek(info.offset_data)
        return stream.read(info.size)


def read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """One member, never more than a byte beyond its announced size, with its checksum checked."""
    # Python unpacks other methods a chunk at a time however large that gets; deflate it stops where told.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError("compressed in an unusual way: unpack the archive and give the folder")
    with archive.open(info) as file:
        return file.read(info.file_size + 1)


def wanted(name: str) -> bool:
    """Whether a relative name is neither junk (hidden, __MACOSX) nor leads out of its folder."""
    return not any(part in ("", "__MACOSX") or part.startswith(".") for part in name.split("/")) and "\0" not in name
