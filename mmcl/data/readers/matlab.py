"""MATLAB files, in which the Kinect v1 data sets keep their skeletons: one variable, (joints, 3, T).

Of the format only plain arrays of numbers are read, versions 4 to 7 ("MAT-File Format", The MathWorks). It is read here
and not by scipy.io, because there one changed byte of a file ends the whole process with a segmentation fault.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.data.readers.files import read_bytes

LIMIT = 64 << 20  # bytes of a file, packed and unpacked: the longest recording known takes a third of a megabyte
MOST_VARIABLES, MOST_AXES = 1000, 32
_MATRIX, _COMPRESSED = 14, 15  # types of elements in a version 5 file
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {
    1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 6: "double", 7: "single", 8: "int8", 9: "uint8",
    10: "int16", 11: "uint16", 12: "int32", 13: "uint32", 14: "int64", 15: "uint64", 16: "function", 17: "opaque",
}  # fmt: skip
_NUMBERS = range(6, 16)  # classes of arrays of numbers
_COMPLEX, _LOGICAL = 0x0800, 0x0200  # flags of an array: it is complex, or true and false
_STORED_4 = {0: "f8", 1: "f4", 2: "i4", 3: "i2", 4: "u2", 5: "u1"}
_DAMAGED = "not a readable MATLAB file (cut off, or more announced than it holds)"


class Variable(NamedTuple):
    """An array of a file: its name, what MATLAB calls its kind, its shape, and its numbers, None where there are none.

    Numbers are a flat view on the file's bytes, in MATLAB's order: the first axis runs fastest.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    numbers: np.ndarray | None


def load_mat(path: str | Path, variable: str, joint_count: int) -> np.ndarray:
    """Read the skeleton of one take.

    Args:
        path: a ``.mat`` file of version 4 to 7.
        variable: name of its array (joint_count, 3, T); MATLAB drops a last axis of one, so (joint_count, 3) will do.
        joint_count: V.

    Returns:
        (1, T, V, 3) float32, in the file's units and axes.

    Raises:
        BadClip: not a MATLAB file, cut off, no such variable in it, or not (V, 3, T) numbers.
    """
    data = read_bytes(path, LIMIT)
    try:
        found = next((one for one in _variables(data) if one.name == variable), None)
    except (struct.error, zlib.error, ValueError, OverflowError) as error:
        raise BadClip(f"not a readable MATLAB file ({type(error).__name__}: {error})") from error
    if found is None:
        raise BadClip(f"no variable '{variable}' in the file")
    shape = found.shape
    if found.numbers is None or len(shape) not in (2, 3) or shape[:2] != (joint_count, 3):
        raise BadClip(f"'{variable}' is {found.kind} {shape}, expected numbers ({joint_count}, 3, frames)")
    if math.prod(shape) != found.numbers.size:
        raise BadClip(f"'{variable}' is announced as {shape}, and the file holds {found.numbers.size} numbers of it")
    values = found.numbers.reshape((joint_count, 3, shape[2] if len(shape) == 3 else 1), order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite, and is refused as that
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)


def _variables(data: bytes) -> Iterator[Variable]:
    """All arrays of a file, in order."""
    if data[:8] == b"\x89HDF\r\n\x1a\n" or b"MATLAB 7.3" in data[:128]:
        raise BadClip("a MATLAB file of version 7.3: open it in MATLAB and save it again with save(…, '-v7')")
    if len(data) < 20:
        raise BadClip("not a readable MATLAB file (too short)")
    if 0 in data[:4]:  # versions from 5 on begin with a text
        yield from _version_4(data)
        return
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise BadClip("not a readable MATLAB file (its header is none)")
    room = LIMIT - len(data)
    for number, (kind, start, stop) in enumerate(_elements(data, order, 128, len(data))):
        content = memoryview(data)[start:stop]
        if number >= MOST_VARIABLES:
            raise BadClip(f"more than {MOST_VARIABLES} variables in the file")
        if kind == _COMPRESSED:
            unpacked = zlib.decompressobj().decompress(content, room + 1)
            room -= len(unpacked)
            if room < 0:
                raise BadClip(f"more than {LIMIT >> 20} MiB, too large for one skeleton")
            kind, start, stop = next(_elements(unpacked, order, 0, len(unpacked)), (0, 0, 0))
            content = memoryview(unpacked)[start:stop]
        if kind == _MATRIX:
            yield _matrix(bytes(content), order)


def _matrix(content: bytes, order: str) -> Variable:
    """An array from its parts: flags, shape, name, numbers; those of cells and structures are not looked at."""
    parts = _elements(content, order, 0, len(content))
    (_, start, stop), shape_at, name_at = (_part(parts) for _ in range(3))
    if stop - start != 8:
        raise BadClip(_DAMAGED)
    (flags,) = struct.unpack_from(order + "I", content, start)
    kind, name = flags & 0xFF, content[slice(*name_at[1:])].decode("latin-1")
    shape = tuple(np.frombuffer(content[slice(*shape_at[1:])], order + "i4").tolist())
    if not 2 <= len(shape) <= MOST_AXES or min(shape) < 0:
        raise BadClip(_DAMAGED)
    numbers = None
    if kind in _NUMBERS and not flags & (_COMPLEX | _LOGICAL):
        stored, start, stop = _part(parts)
        if stored not in _STORED:
            raise BadClip(f"not a readable MATLAB file (numbers of type {stored}, which there is not)")
        numbers = np.frombuffer(content[start:stop], order + _STORED[stored])
    called = "logical" if flags & _LOGICAL else _CLASSES.get(kind, f"class {kind}")
    called = f"complex {called}" if flags & _COMPLEX else called
    return Variable(name, called, shape, numbers)


def _part(parts: Iterator[tuple[int, int, int]]) -> tuple[int, int, int]:
    found = next(parts, None)
    if found is None:
        raise BadClip(_DAMAGED)
    return found


def _elements(data: bytes, order: str, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of each element between two places."""
    while start + 8 <= stop:
        kind, size = struct.unpack_from(order + "II", data, start)
        if kind >> 16:  # up to four bytes, within the tag
            if kind >> 16 > 4:
                raise BadClip(_DAMAGED)
            yield kind & 0xFFFF, start + 4, start + 4 + (kind >> 16)
            start += 8
            continue
        if start + 8 + size > stop:
            raise BadClip(_DAMAGED)
        yield kind, start + 8, start + 8 + size
        start += 8 + size + (0 if kind == _COMPRESSED else -size % 8)


def _version_4(data: bytes) -> Iterator[Variable]:
    start = 0
    for _ in range(MOST_VARIABLES):
        if start + 20 > len(data):
            return
        order = "<" if struct.unpack_from("<i", data, start)[0] in range(5000) else ">"
        code, rows, columns, imaginary, length = struct.unpack_from(order + "5i", data, start)
        stored, text = _STORED_4.get(code // 10 % 10), code % 10
        if code not in range(5000) or code // 100 % 10 or stored is None or min(rows, columns, length) < 0:
            raise BadClip("not a readable MATLAB file (its header is none)")
        begin = start + 20 + length
        size = rows * columns * np.dtype(stored).itemsize * (2 if imaginary else 1)
        if begin + size > len(data):
            raise BadClip(_DAMAGED)
        name = data[start + 20 : begin].rstrip(b"\0").decode("latin-1")
        plain = not imaginary and text == 0
        numbers = np.frombuffer(data, order + stored, rows * columns, begin) if plain else None
        yield Variable(name, "numbers" if plain else "text, sparse or complex", (rows, columns), numbers)
        start = begin + size
