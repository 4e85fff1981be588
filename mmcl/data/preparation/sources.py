"""What a preparation is made from, as digests: tells whether it was made already, and which shards belong together."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from mmcl.data.clip import ClipSource, Reader
from mmcl.skeletons.layout import load_layout

T = TypeVar("T")


def marks_of(sources: Sequence[ClipSource]) -> list[int]:
    """Of each clip, a 256-bit number over what it is said to be and how large its files are.

    Each file is looked at once, however many clips lie in it.
    """
    names = [entry.name for entry in fields(ClipSource) if entry.compare]
    sizes: dict[str | None, int] = {None: 0, "": 0}
    marks = []
    for source in sources:
        for path in (source.skeleton, source.video):
            if path not in sizes:
                sizes[path] = _size(path)
        facts = [*(getattr(source, name) for name in names), sizes[source.skeleton], sizes[source.video]]
        marks.append(int.from_bytes(hashlib.sha256(json.dumps(facts).encode()).digest(), "big"))
    return marks


def together(marks: Sequence[int]) -> str:
    """One digest of many clips. A sum, so that the digests of shards add up to that of the whole."""
    return f"{sum(marks) % 2**256:064x}"


def list_digest(sources: Sequence[ClipSource], left_out: Sequence[tuple[str, str]]) -> str:
    """sha256 over the list of all clips, wherever their files lie: shards of one data set have it in common."""
    facts = [[source.id, source.label, source.subject, list(source.splits)] for source in sources]
    return hashlib.sha256(json.dumps([facts, left_out]).encode()).hexdigest()


def stretch(items: Sequence[T], index: int, count: int) -> Sequence[T]:
    """The ``index``-th (from 1) of ``count`` runs of nearly equal length that make up ``items``."""
    return items[len(items) * (index - 1) // count : len(items) * index // count]


def options_of(reader: Reader, **more: Any) -> dict[str, Any]:
    """Everything besides the clips themselves that the content of a store depends on, fit for JSON.

    A reader keeps each of its options under the option's name.
    """
    facts = {
        "dataset": reader.name,
        **more,
        **{option: getattr(reader, option) for option in reader.options},
        "name": reader.dataset,
        "fps": reader.fps,
        "layout": _digest(load_layout(reader.layout).to_dict()),
        "classes": _digest(reader.class_names),
    }
    return dict(json.loads(json.dumps(facts, default=str)))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _size(path: str | None) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size if path else 0
    return -1
