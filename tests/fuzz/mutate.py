"""What is done to a file: bytes, values of its text, members of its archive. Everything comes from one generator."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

HOSTILE_NUMBERS = (0, 1, -1, 2, 7, 0.5, -0.0, 1e-300, 1e308, 10**9, 2**31, 2**63, 10**23, 10**400)
HOSTILE_TEXTS = (
    "", "x", "x" * 5000, "../../../x", "/etc/passwd", "a\nb", "\x1b[2J", "\u202e", "=1+1", "<script>", "nan", "1e999",
    "${x}", "%s%n", "joints", "!!python/object:os.system", "\x00",
)  # fmt: skip
HOSTILE_VALUES: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": None}, *HOSTILE_NUMBERS, *HOSTILE_TEXTS)
TOKENS = (b"\0", b"\xff" * 8, b"\x80", b"\n", b"[", b"{", b"*a", b"&a ", b"]", b"NaN", b"1e999", b"9" * 400, b"True",
          b"PK\3\4", b"\x93NUMPY", b"../", b"%", b"\xed\xa0\x80", b"\x1b[2J", b"<<: ", b"!!")  # fmt: skip


def mutated(data: bytes, kind: str, rng: Random) -> bytes:
    """A file changed once to four times.

    Args:
        data: the file.
        kind: how it can be taken apart: json, yaml, zip, safetensors; text; fixed (its length must stay); or bytes.
        rng: chooses.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        whole = _WHOLE.get(kind)
        if whole is not None and rng.random() < 0.7:
            try:
                data = whole(data, rng)
                continue
            except Exception:  # an earlier change has left nothing to take apart
                pass
        data = _bytes(data, rng, kind == "fixed")
    return data


def _bytes(data: bytes, rng: Random, fixed: bool) -> bytes:
    if not data:
        return rng.choice(TOKENS)
    at, size = rng.randrange(len(data)), rng.choice((1, 1, 2, 4, 8, 64, 1000))
    # Headers come first and say most: half of the changes go there.
    at = rng.randrange(min(len(data), 200)) if rng.random() < 0.5 else at
    piece = data[at : at + size]
    choice = rng.randrange(4 if fixed else 9)
    if choice == 0:
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if choice == 1:
        return data[:at] + rng.randbytes(len(piece)) + data[at + len(piece) :]
    if choice == 2:
        return data[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) * len(piece) + data[at + len(piece) :]
    if choice == 3:
        other = rng.randrange(len(data))
        copied = data[other : other + len(piece)]
        return data[:at] + copied + data[at + len(copied) :]
    if choice == 4:
        return data[:at]
    if choice == 5:
        return data[:at] + data[at + size :]
    if choice == 6:
        return data[:at] + piece * rng.choice((2, 3, 50)) + data[at + size :]
    if choice == 7:
        return data[:at] + rng.choice(TOKENS) + data[at:]
    return data + data[rng.randrange(len(data)) :]


def _value(content: Any, rng: Random) -> Any:
    """Nested lists and mappings with one place changed."""
    if isinstance(content, (dict, list)) and content and rng.random() < 0.9:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        key = rng.choice(list(keys))
        inner = _value(content[key], rng)
        choice = rng.random()
        if isinstance(content, list):
            if choice < 0.1:
                return content[:key] + content[key + 1 :]
            return [*content[:key], *([inner] if choice > 0.2 else [inner] * 3), *content[key + 1 :]]
        if choice < 0.1:
            return {name: value for name, value in content.items() if name != key}
        if choice < 0.2:
            return {**content, rng.choice(("x", "format", "../x", "a\nb")): inner}
        return {**content, key: inner}
    if rng.random() < 0.1:
        return [content] * rng.choice((0, 2, 300))
    return rng.choice(HOSTILE_VALUES)


def _json(data: bytes, rng: Random) -> bytes:
    return json.dumps(_value(json.loads(data), rng)).encode()


def _yaml(data: bytes, rng: Random) -> bytes:
    import yaml

    text: str = yaml.safe_dump(_value(yaml.safe_load(data), rng), sort_keys=False, allow_unicode=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes, rng: Random) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    cells = list(re.finditer(r"[^,;\s]+", text))
    if not cells:
        raise ValueError("no cells")
    cell = rng.choice(cells)
    value = str(rng.choice(HOSTILE_VALUES)) if rng.random() < 0.8 else rng.choice(cells).group()
    return (text[: cell.start()] + value + text[cell.end() :]).encode("utf-8", "surrogateescape")


def _zip(data: bytes, rng: Random) -> bytes:
    """One member changed, and packed again so that all checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = rng.choice([name for name in members for _ in range(5 if name.endswith(".pkl") else 1)])
    members[name] = _bytes(members[name], rng, fixed=False)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,))) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return buffer.getvalue()


def _safetensors(data: bytes, rng: Random) -> bytes:
    (size,) = struct.unpack_from("<Q", data)
    header = json.dumps(_value(json.loads(data[8 : 8 + size]), rng)).encode()
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


_WHOLE: dict[str, Callable[[bytes, Random], bytes]] = {
    "json": _json, "yaml": _yaml, "text": _text, "zip": _zip, "safetensors": _safetensors,
}  # fmt: skip
