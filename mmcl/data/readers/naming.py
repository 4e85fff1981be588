"""Names that come out of other people's files, made fit for a store: ids, subjects, class names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

MAX_CLASSES = 10_000  # a label beyond this is a mistake, not a class
_DIGITS = re.compile(r"([0-9]{1,18})")
_NUMBERED = re.compile(r"(?:([0-9]+)[\W_]+)?(.*)", re.DOTALL)  # a number in front, and what it numbers
_BETWEEN = re.compile(r"(?<![0-9])[\s_.-]+|[\s_.-]+(?![0-9])")  # 1.5 and 15 are two numbers
_PADDED = re.compile(r"(?<![0-9.])0+(?=[0-9])")  # A001 is A1; 1.05 is not 1.5
_QUOTES = " \t'\"`´‘’‚‛“”„«»‹›"
_WHOLE = re.compile(r"[0-9]{1,10}(\.0+)?|[0-9](\.[0-9]{1,25})?e[+-]?[0-9]{1,2}", re.ASCII | re.IGNORECASE)
_UNSAFE = re.compile(r"[^\w.+-]+")


def safe_name(name: str) -> str:
    """Letters, digits and ``_ . + -`` of a name, other characters replaced by ``_``; at most 200 of them."""
    return _UNSAFE.sub("_", name)[:200] or "_"


def file_stem(name: str) -> str:
    """What a file about something of this name is called, before its ending: at most 200 bytes, and no hidden file."""
    return safe_name(name).encode()[:200].decode(errors="ignore").lstrip(".-") or "_"


def whole(cell: str) -> int | None:
    """A whole number from 0 as programs write it: 2, 2.0 (pandas), 2.000e+00 (NumPy); None for everything else."""
    if not _WHOLE.fullmatch(cell):
        return None
    value = Decimal(cell)
    return int(value) if value == value.to_integral_value() and value < 10**10 else None


def spelling(name: str) -> str:
    """What spellings of one name have in common: neither case, nor blanks, nor the form of letters (NFC, NFD) count."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of different names that may be one and the same, written in several ways.

    Neither accents, nor what separates words, nor quotes, nor zeros before a number, nor a number in front of one of
    them count: "wa-ve", "0 wave", "'wave'" and "wàve", A001 and a1.
    Names without letters are what they are, and those with different numbers in front are different.
    """
    groups: dict[str, dict[str, str]] = {}
    for name in dict.fromkeys(names):
        letters = unicodedata.normalize("NFKD", name).casefold()
        plain = "".join(letter for letter in letters if unicodedata.category(letter) not in ("Mn", "Cf"))
        number, rest = _NUMBERED.fullmatch(_PADDED.sub("", plain.strip(_QUOTES))).groups("")  # type: ignore[union-attr]
        key = _BETWEEN.sub("", rest.strip(_QUOTES))
        if any(letter.isalpha() for letter in key):
            groups.setdefault(key, {})[name] = number
        else:
            groups.setdefault(spelling(name), {})[name] = ""
    return [sorted(group) for group in groups.values() if len(group) > 1 and len({*group.values()} - {""}) < 2]


def unique_ids(names: Iterable[str]) -> list[str]:
    """Safe names for clips; one that has been there before gets ``-2``, ``-3`` … appended."""
    counts: dict[str, int] = {}
    ids = []
    for name in map(safe_name, names):
        unique = name
        while unique in counts:
            counts[name] += 1
            unique = f"{name}-{counts[name]}"
        counts[unique] = 1
        ids.append(unique)
    return ids


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Each different name with its number, from 1, in sorted order; P2 comes before P10."""
    parts = {name: [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in _DIGITS.split(name)]
             for name in set(names)}  # fmt: skip
    return {name: number for number, name in enumerate(sorted(parts, key=lambda name: (parts[name], name)), 1)}


def plain_classes(count: int) -> list[str]:
    """K class names ("class 0" and so on) for files that do not say them."""
    return [f"class {label}" for label in range(count)]
