"""Joins the stores that ``mmcl prepare --shard i/n`` made, perhaps on several machines, into the whole data set's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.files import absolute, atomic_folder, check_replaceable
from mmcl.common.interrupts import stop_as_interrupt
from mmcl.data.columns import file_digest
from mmcl.data.preparation.finish import SKIPPED, Summary, finish, plan_of, read_skipped
from mmcl.data.preparation.parts import check_nothing_else, flush
from mmcl.data.store import ClipStore, open_store

# What numbers and labels of clips mean: the whole says of all what its first shard says.
MEANING = ("dataset", "class_names", "layout", "fps", "dimensions", "subject_names")
MANY = 12  # numbers in a message


def merge(locations: Sequence[str | Path], out: Path, overwrite: bool = False) -> Summary:
    """Join all shards of one data set; their files are linked where the file system allows it, else copied.

    The result has the content fingerprint of a store prepared in one piece. Where the shards were made from the same
    paths, `mmcl prepare` without ``--shard`` takes it for its own.

    Args:
        locations: the shards' stores, in any order.
        out: folder of the whole store.
        overwrite: replace a store that is there.

    Raises:
        UserError: a shard is missing, comes twice, or is of another preparation; every clip is bad; or ``out`` is
            something else.
    """
    out = out.absolute()
    check_replaceable(out, "store.json", overwrite)
    if out.is_dir():
        check_nothing_else(out)
    shards = sorted((open_store(location) for location in locations), key=lambda store: store.shard or (0, 0))
    for store in shards:
        if absolute(store.path) in (absolute(out), *absolute(out).parents):
            raise UserError(
                f"{out} is, or lies in, a shard that is to be joined ({store.location}): choose another --out"
            )
    _check_set(shards)
    with stop_as_interrupt(), atomic_folder(out, "store.json") as folder:
        (folder / "clips").mkdir()
        parts: list[dict[str, Any]] = []
        for store in shards:
            for part in store.info["parts"]:
                name = f"part-{len(parts):05d}.arrow"
                _take(store.folder.file(f"clips/{part['file']}", part["bytes"]), folder / "clips" / name)
                # Else finish() would give what is damaged a digest that fits it.
                if part.get("sha256", "") not in ("", file_digest(folder / "clips" / name)):
                    raise UserError(
                        f"{store.location}/clips/{part['file']} is not what was prepared (a damaged disk or copy): "
                        "prepare that shard again with --overwrite, or copy it again"
                    )
                parts.append({**part, "file": name})
        lists = [read_skipped(store) for store in shards]
        skipped = [entry for bad, _, _ in lists for entry in bad]
        left_out = [entry for _, left, _ in lists for entry in left]
        mended = [entry for _, _, changes in lists for entry in changes]
        finish(folder, _about(shards), parts, skipped, left_out, mended)
    flush(out.parent)
    return Summary(open_store(out), skipped, left_out, mended)


def _check_set(shards: list[ClipStore]) -> None:
    """All shards of one preparation, each once; ``shards`` are sorted, those that are none come first."""
    first = shards[0]
    for store in shards:
        if store.shard is None:
            raise UserError(f"{store.location} is a whole store, not a shard (made with `mmcl prepare --shard i/n`)")
    for store in shards[1:]:
        if differs := _differences(first, store):
            raise UserError(f"{store.location} is no shard of what {first.location} is one of (different {differs})")
    for one, other in zip(shards, shards[1:], strict=False):
        if one.shard == other.shard:
            raise UserError(f"shard {_number(one)} twice: {one.location} and {other.location}")
    count = shards[0].info["shard"]["count"]
    there = {store.info["shard"]["index"] for store in shards}
    if missing := count - len(there):  # which anybody may have set to a billion
        some = islice((str(index) for index in range(1, count + 1) if index not in there), MANY)
        more = ", …" if missing > MANY else ""
        raise UserError(f"{missing} of {count} shards missing: {', '.join(some)}{more}")
    if not any(map(len, shards)):
        raise UserError(
            f"every clip of all {count} shards is bad, nothing to join; {first.location}/{SKIPPED} says why"
        )


def _differences(one: ClipStore, other: ClipStore) -> str:
    """In what two shards were not made alike, in words; empty where they belong together."""
    plans = [{key: value for key, value in plan_of(store).items() if key not in ("shard", "sources")}
             for store in (one, other)]  # fmt: skip
    differs = [key for key in {**plans[0], **plans[1]} if plans[0].get(key) != plans[1].get(key)]
    said = [{**store.info, "dimensions": store.dimensions, "subject_names": store.subject_names}
            for store in (one, other)]  # fmt: skip
    differs += [key for key in MEANING if key not in differs and said[0][key] != said[1][key]]
    facts = [store.info["shard"] for store in (one, other)]
    differs += ["number of shards"] if facts[0]["count"] != facts[1]["count"] else []
    differs += ["clips in the data set"] if facts[0].get("whole") != facts[1].get("whole") else []
    return ", ".join(differs)


def _number(store: ClipStore) -> str:
    return f"{store.info['shard']['index']} of {store.info['shard']['count']}"


def _about(shards: list[ClipStore]) -> dict[str, Any]:
    """What ``store.json`` of the whole says besides clips and parts: as of a store prepared in one piece."""
    info = shards[0].info
    plan = {key: value for key, value in plan_of(shards[0]).items() if key != "shard"}
    # Digests of sources are sums: see mmcl.data.preparation.sources.
    plan["sources"] = f"{sum(int(plan_of(store)['sources'], 16) for store in shards) % 2**256:064x}"
    about = {key: info[key] for key in ("dataset", "title", "fps", "layout", "class_names")}
    about["dimensions"] = shards[0].dimensions
    about["unmatched"] = info.get("unmatched", {})
    return {**about, "subject_names": shards[0].subject_names, "plan": plan}


def _take(file: Path, to: Path) -> None:
    """Link a file, or copy it where that cannot be done (another disk, or a file system without links)."""
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)
        flush(to)
