"""What ``store.json`` and ``index.arrow`` of a clip store may say: anybody may have written them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mmcl.common.documents import parse_json
from mmcl.common.errors import UserError
from mmcl.common.options import typed
from mmcl.common.printing import LONGEST_ID, LONGEST_NAME, with_controls
from mmcl.data.clip import MOST_FPS
from mmcl.data.columns import READABLE, SHORT, WHOLE_NUMBERS

MOST_CLASSES, MOST_BODIES, MOST_FRAMES = 100_000, 1000, 10_000_000
_PART = re.compile(r"part-[0-9]{5,9}\.arrow")


@dataclass(frozen=True)
class PartFacts:
    """A file with clips: its name in ``clips/``, how many they are, its size, and from format 4 on its digest."""

    file: str
    clips: int
    bytes: int
    sha256: str = ""


@dataclass(frozen=True)
class ShardFacts:
    """Which part of a data set a store is."""

    index: int
    count: int
    whole: str = ""


_NEEDED = {
    "format": int, "dataset": str, "title": str, "fps": float, "layout": dict[str, Any], "class_names": list[str],
    "fingerprint": str, "index_bytes": int, "with_video": int, "parts": list[PartFacts],
}  # fmt: skip
_MORE = {
    "clips": int, "skipped": int, "left_out": int, "skipped_bytes": int, "with_confidence": int, "dimensions": int,
    "subject_names": dict[str, int], "unmatched": dict[str, list[Any]], "shard": ShardFacts | None,
    "plan": dict[str, Any],
}  # fmt: skip


def read_facts(content: str, location: str) -> dict[str, Any]:
    """What the ``store.json`` of a store says, checked.

    Raises:
        UserError: no JSON, another format, or a value of another type. ValueError: naming the key.
    """
    info = parse_json(content, f"{location}/store.json")
    if isinstance(info, dict) and info.get("format") not in READABLE:
        known = " and ".join(map(str, READABLE))
        found = f"{info.get('format')!r:.20}"
        raise UserError(f"{location}: format {found}, this mmcl reads {known}; prepare it again")
    check_facts(info)
    return info  # type: ignore[no-any-return]


def check_facts(info: Any) -> None:
    """Check the types and ranges of what ``store.json`` says.

    Raises:
        ValueError: naming the key. UserError: a value of another type.
    """
    if not isinstance(info, Mapping):
        raise ValueError("store.json holds no keys")
    if missing := [key for key in _NEEDED if key not in info]:
        raise ValueError(f"store.json lacks {', '.join(missing)}")
    for key, kind in {**_NEEDED, **_MORE}.items():
        if key in info:
            typed(f"store.json {key}", info[key], kind)
    names = [part["file"] for part in info["parts"]]  # what a stranger's store says must not lead out of its folder
    ranges = {
        "fps": math.isfinite(info["fps"]) and 0 < info["fps"] <= MOST_FPS,
        "class_names": 0 < len(info["class_names"]) <= MOST_CLASSES,
        "dimensions": info.get("dimensions", 3) in (2, 3),
        "format": info["format"] in READABLE,
        "parts": all(min(part["clips"], part["bytes"]) >= 0 for part in info["parts"]),
    }
    if shard := info.get("shard"):
        ranges["shard"] = 1 <= shard["index"] <= shard["count"]
    if strange := [name for name in names if not _PART.fullmatch(name)]:
        raise ValueError(f"no name of a part: {strange[0]!r:.60}")
    for key, good in ranges.items():
        if not good:
            raise ValueError(f"store.json: {key} is {info.get(key)!r:.60}")
    if long := [name for name in info["class_names"] if len(name) > LONGEST_NAME]:
        raise ValueError(f"store.json: the name of a class has {len(long[0])} characters, more than {LONGEST_NAME}")
    if odd := with_controls([info["dataset"], info["title"], *info["class_names"]]):
        raise ValueError(f"store.json: a name holds control characters: {odd}")
    if info["format"] > READABLE[0] and not all("sha256" in part for part in info["parts"]):
        raise ValueError("store.json: a part has no sha256")


def check_index(index: pa.Table, info: Mapping[str, Any]) -> None:
    """Check what ``index.arrow`` says of the clips.

    Raises:
        ValueError: naming the column.
    """
    if (total := sum(part["clips"] for part in info["parts"])) != index.num_rows:
        raise ValueError(f"the index lists {index.num_rows} clips, the parts hold {total}")
    if missing := [name for name in SHORT if index.schema.get_field_index(name) < 0]:
        raise ValueError(f"the index has no column {', '.join(missing)}")
    kinds = {"digest": pa.types.is_binary, "splits": pa.types.is_list}
    if wrong := [name for name, fits in kinds.items() if not fits(index.schema.field(name).type)]:
        raise ValueError(f"its column {wrong[0]} is {index.schema.field(wrong[0]).type}")
    limits = {"label": len(info["class_names"]), "bodies": MOST_BODIES + 1, "frames": MOST_FRAMES + 1}
    for name in WHOLE_NUMBERS:
        column = index.column(name)
        if not pa.types.is_integer(column.type) or column.null_count:
            raise ValueError(f"its column {name} is no list of whole numbers")
        values = column.to_numpy()
        low = 1 if name in ("bodies", "frames") else 0 if name == "label" else np.iinfo(np.int64).min
        if len(values) and not (values.min() >= low and values.max() < limits.get(name, np.iinfo(np.int64).max)):
            raise ValueError(f"its column {name} holds {values.min()} to {values.max()}")
    ids = index.column("id").to_pylist()
    if not all(isinstance(name, str) for name in ids) or len(set(ids)) != len(ids):
        raise ValueError("ids are missing or there twice")
    if (longest := max(map(len, ids), default=0)) > LONGEST_ID:
        raise ValueError(f"an id has {longest} characters, more than {LONGEST_ID}")
    if odd := with_controls(ids):
        raise ValueError(f"an id holds control characters: {odd}")
