"""``.npy`` files and the arrays in ``.npz`` files, untrusted and as large as they like: headers first, then numbers."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from mmcl.common.errors import BadClip
from mmcl.data.readers.packed import UNPACKED_LIMIT

MOST = 1 << 40  # numbers that an array may announce; those that hold nothing announce axes alone


def parse_npy(data: bytes) -> np.ndarray:
    """The array in the bytes of a ``.npy`` file: a read-only view on them.

    Raises:
        BadClip: not such a file, cut off, or no numbers.
    """
    shape, order, dtype, start = _header(io.BytesIO(data), len(data))
    flat = np.frombuffer(data, dtype, math.prod(shape), start) if math.prod(shape) else np.zeros(0, dtype)
    return flat.reshape(shape, order=order)


def parse_npz(data: bytes, names: tuple[str, ...], limit: int) -> np.ndarray:
    """The only array in the bytes of a ``.npz`` file, or the one that has one of these names.

    Raises:
        BadClip: not such a file, damaged, no such array, more than ``limit`` bytes, or no numbers.
    """
    with _opened(io.BytesIO(data)) as archive:
        members = _members(archive)
        chosen = next((name for name in names if name in members), None)
        if chosen is None and len(members) != 1:
            held = ", ".join(sorted(members)[:5]) or "no array"
            raise BadClip(f"holds {held}; expected one array, or one that is called '{names[0]}'")
        return parse_npy(_unpacked(archive, members[chosen or next(iter(members))], limit))


def open_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a ``.npz`` file, or of a folder of ``.npy`` files, by name, without reading their numbers.

    What lies in the archive as it is (``np.savez``) is mapped into memory; what is compressed is unpacked.

    Raises:
        BadClip: damaged, cut off, no numbers, or compressed and larger than a GiB.
    """
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.npy")) if file.is_file()]
        return {file.stem: _mapped(file, 0, file.stat().st_size) for file in files}
    with _opened(path) as archive:
        members = _members(archive)
        packed = {name: info for name, info in members.items() if info.compress_type != zipfile.ZIP_STORED}
        if (total := sum(info.file_size for info in packed.values())) > UNPACKED_LIMIT:
            raise BadClip(f"compressed, {total >> 30} GiB and more when unpacked: `unzip` it and give the folder")
        found = {name: parse_npy(_unpacked(archive, info, UNPACKED_LIMIT)) for name, info in packed.items()}
        stored = {name: info for name, info in members.items() if name not in packed}
        return found | {name: _mapped(path, _start(path, info), info.file_size) for name, info in stored.items()}


@contextmanager
def _opened(file: Path | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """An archive, in which whatever goes wrong is a BadClip."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except BadClip:
        raise
    except Exception as error:  # zipfile raises a dozen kinds on damaged files, struct.error and zlib.error among them
        raise BadClip(f"damaged or cut off ({type(error).__name__}: {error})") from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {info.filename[:-4]: info for info in archive.infolist() if info.filename.endswith(".npy")}


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    # Deflate stops where it is told to; Python's other methods unpack a whole piece, however large that gets.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadClip("compressed in an unusual way: unpack it")
    if info.file_size > limit:
        raise BadClip(f"too large ({info.file_size} bytes when unpacked, at most {limit} are read)")
    with archive.open(info) as member:
        return member.read(info.file_size + 1)


def _start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin: after its own header, which ends in two fields of any length."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise BadClip("damaged or cut off: an array is not where it should be")
    name, extra = struct.unpack("<HH", header[26:])
    return info.header_offset + 30 + int(name) + int(extra)


def _mapped(path: Path, start: int, size: int) -> np.ndarray:
    """Map the ``.npy`` file of ``size`` bytes that begins ``start`` bytes into a file."""
    with open(path, "rb") as file:
        file.seek(start)
        shape, order, dtype, offset = _header(file, min(size, path.stat().st_size - start))
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", start + offset, shape, order)


def _header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], Any, np.dtype[Any], int]:
    """Shape, memory order, type and start of the numbers of a ``.npy`` file that is ``size`` bytes long."""
    begin = file.tell()
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file)
    except Exception as error:  # the header is a Python literal: it can be wrong in every way Python knows
        raise BadClip("not a readable NumPy array (damaged or cut off)") from error
    if dtype.kind not in "biuf":
        kind = "objects" if dtype.hasobject else "text" if dtype.kind in "US" else dtype
        raise BadClip(f"holds {kind}, not numbers")
    start = file.tell() - begin
    # True counts as a number, and is none here. NumPy raises for huge axes, also of arrays that hold nothing.
    if any(type(n) is not int or n < 0 for n in shape) or len(shape) > 32 or math.prod(n or 1 for n in shape) > MOST:
        raise BadClip(f"not a readable NumPy array (it announces the shape {str(shape):.60})")
    if start + math.prod(shape) * dtype.itemsize > size:
        raise BadClip(f"not a readable NumPy array (it announces the shape {str(shape):.60}, more than there is)")
    return shape, "F" if fortran else "C", dtype, start
