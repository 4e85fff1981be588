"""MATLAB files, in which the Kinect v1 data sets keep their skeletons: one variable, (joints, 3, T)."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmcl.common.errors import BadClip

LIMIT = 64 << 20  # bytes of a file, packed and unpacked: the longest recording known takes a third of a megabyte
NUMBERS = {"double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
_MATRIX, _COMPRESSED = 14, 15  # types of elements in a version 5 file


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
    from scipy.io import loadmat, whosmat

    try:
        with open(path, "rb") as file:
            data = file.read(LIMIT + 1)
        size = _checked_size(data)
        # What is in the file is asked for first: scipy makes a list as long as a text is announced to be.
        found = {name: (tuple(shape), kind) for name, shape, kind in whosmat(io.BytesIO(data))}
        if variable not in found:
            raise BadClip(f"no variable '{variable}' in the file")
        shape, kind = found[variable]
        if kind not in NUMBERS or len(shape) not in (2, 3) or shape[:2] != (joint_count, 3):
            raise BadClip(f"'{variable}' is {kind} {shape}, expected numbers ({joint_count}, 3, frames)")
        if math.prod(shape) > size:
            raise BadClip(f"'{variable}' is announced as {shape}, more numbers than the file holds")
        values = np.asarray(loadmat(io.BytesIO(data), variable_names=[variable])[variable])
        values = values.reshape(joint_count, 3, shape[2] if len(shape) == 3 else 1)
    except BadClip:
        raise
    except FileNotFoundError as error:
        raise BadClip("the skeleton file has gone") from error
    except Exception as error:  # scipy raises a dozen kinds on damaged files, TypeError and zlib.error among them
        raise BadClip(f"not a readable MATLAB file ({type(error).__name__}: {error})") from error
    if values.dtype.kind not in "fiu":
        raise BadClip(f"'{variable}' holds {values.dtype}, not numbers")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as that
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)


def _checked_size(data: bytes) -> int:
    """Bytes that the file holds when unpacked.

    scipy allocates what an element announces before it looks for it, and unpacks what it finds: here both are checked.

    Raises:
        BadClip: more than the limit, or an element is announced larger than what it lies in.
    """
    total = len(data)
    if len(data) > 4 and 0 not in data[:4]:  # version 5 and later, which begin with a text
        order = "<" if data[126:128] == b"IM" else ">"
        for kind, start, stop in _elements(data, order, 128, len(data)):
            if kind == _COMPRESSED:
                unpacked = zlib.decompressobj().decompress(data[start:stop], LIMIT + 1)
                total += len(unpacked)
                if total <= LIMIT:
                    _check_parts(unpacked, order, 0, len(unpacked))
            else:
                _check_parts(data, order, start - 8, stop)
    if total > LIMIT:
        raise BadClip(f"more than {LIMIT >> 20} MiB, too large for one skeleton")
    return total


def _check_parts(data: bytes, order: str, start: int, stop: int) -> None:
    for kind, inner, end in _elements(data, order, start, stop):
        if kind == _MATRIX:
            for _ in _elements(data, order, inner, end):
                pass


def _elements(data: bytes, order: str, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of each element between two places."""
    while start + 8 <= stop:
        kind, size = struct.unpack_from(order + "II", data, start)
        if kind >> 16:  # up to four bytes, within the tag
            start += 8
            continue
        if start + 8 + size > stop:
            raise BadClip("not a readable MATLAB file (cut off, or more announced than it holds)")
        yield kind, start + 8, start + 8 + size
        start += 8 + size + (0 if kind == _COMPRESSED else -size % 8)
