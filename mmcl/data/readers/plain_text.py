"""Files that are to be text, and are what a program has packed or written before it."""

from __future__ import annotations

import re

from mmcl.common.errors import BadClip

_UNPACK = "compressed ({}): unpack it first"
PACKED = {
    b"\x1f\x8b": _UNPACK.format("gzip"), b"\xfd7zXZ\0": _UNPACK.format("xz"), b"BZh": _UNPACK.format("bzip2"),
    b"\x28\xb5\x2f\xfd": _UNPACK.format("zstd"), b"PK\3\4": "a zip or a spreadsheet: unpack it, or save it as CSV",
    b"PAR1": "a Parquet table: save it as CSV",
}  # fmt: skip
_SEPARATOR = re.compile(rb"(\xef\xbb\xbf)?sep=[^\r\n](\r\n?|\n)", re.IGNORECASE)


def packed_by(data: bytes) -> str:
    """What a program has made of a file, by its first bytes, and what to do; "" where none of :data:`PACKED` did."""
    return next((what for begin, what in PACKED.items() if data.startswith(begin)), "")


def refuse_packed(data: bytes) -> None:
    """Whether a file is text, as far as its first bytes say.

    Raises:
        BadClip: a program has packed it, whatever its name says.
    """
    if what := packed_by(data):
        raise BadClip(f"no text, but {what}")


def without_separator(data: bytes) -> bytes:
    """A table without the line ``sep=;``, by which Excel is told what lies between cells."""
    return _SEPARATOR.sub(b"", data, count=1) if _SEPARATOR.match(data) else data
