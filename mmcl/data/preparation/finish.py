"""The last files of a store, ``skipped.csv``, ``index.arrow`` and ``store.json``, and what to tell of it."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.common.printing import csv_cell, from_csv_cell
from mmcl.data.columns import FORMAT, SHORT, content_fingerprint, file_digest, map_file, schema, stream
from mmcl.data.preparation.parts import flush
from mmcl.data.preparation.worker import NO_PICTURES
from mmcl.data.store import INDEX, ClipStore
from mmcl.skeletons.believable import READ

SKIPPED = "skipped.csv"
BAD, LEFT_OUT = "bad", "left out"
Clips = list[tuple[str, str]]  # (id, reason)
Changes = list[tuple[str, str, str]]  # (id, what was mended, kind of remark)


@dataclass(frozen=True)
class Summary:
    """What a preparation came to.

    Attributes:
        store: the finished store.
        skipped: (id, reason) of each bad clip.
        left_out: (id, reason) of each clip that its reader never offers, such as those on an official list.
        mended: what was mended in the clips of the store.
        seconds: this call took; 0 where the store was there already.
        processed: clips that this call went through (the others were done by an earlier one).
    """

    store: ClipStore
    skipped: Clips
    left_out: Clips = field(default_factory=list)
    mended: Changes = field(default_factory=list)
    seconds: float = 0.0
    processed: int = 0

    def __str__(self) -> str:
        if self.processed:
            rate = self.processed / self.seconds
            return self.told(f"{self.processed} clips in {self.seconds:.1f} s ({rate:.1f} clips/s)")
        return self.told("already prepared from the same source with the same options: nothing to do")

    def told(self, done: str) -> str:
        """The store in some lines, the second of which says what was done."""
        lines = describe(self.store, self.skipped, self.left_out) + told(self.mended)
        return "\n".join([lines[0], done, *lines[1:]])


def describe(store: ClipStore, skipped: Clips, left_out: Clips) -> list[str]:
    """A store in a few lines: what it holds, and which clips are not in it."""
    clips, info = len(store), store.info
    size = sum(part["bytes"] for part in info["parts"])
    each = f" ({size / clips / 1e3:.1f} kB a clip)" if clips else ""
    lines = [
        f"{store.location}: {clips} clips of {store.title}, {len(skipped)} skipped, "
        f"{info['with_video']} with video, {clips - info['with_video']} without; "
        f"{size / 1e6:.1f} MB{each}"
    ]
    if store.subject_names:
        people = [f"{name} is {number}" for name, number in store.subject_names.items()]
        more = f", … all {len(people)} in store.json" if len(people) > 12 else ""
        lines.append(f"subjects: {', '.join(people[:12])}{more}")
    lines += [f"warning: {words}" for words in unmatched(store)]
    lines += [f"{count} left out: {reason}" for reason, count in Counter(reason for _, reason in left_out).items()]
    lines += [f"skipped {name}: {reason}" for name, reason in skipped[:5]]
    if len(skipped) > 5:
        lines.append(f"… all {len(skipped)} in {store.path / SKIPPED}")
    return lines


def told(mended: Changes) -> list[str]:
    """What was mended, kind by kind."""
    lines = []
    for kind in dict.fromkeys(kind for _, _, kind in mended):
        some: dict[str, str] = {}
        for name, what, other in mended:
            if other == kind:
                some.setdefault(name, what)  # a clip may have several of a kind
        names, first = ", ".join([*some][:4]) + (", …" if len(some) > 4 else ""), next(iter(some.values()))
        if kind == NO_PICTURES:
            lines.append(f"{len(some)} kept without pictures, whose videos cannot be used ({names}): {first}")
            continue
        word = "said of" if kind == READ else "mended in"
        lines.append(f"{word} {len(some)} clip{'s' * (len(some) != 1)} ({names}): {first}")
    return lines


def unmatched(store: ClipStore) -> list[str]:
    """What there is to say of names on a data set's own lists that no clip has, a sentence for each list."""
    called = ", ".join(store.ids[:2])
    return [
        f"{count} names on the list {listed} are those of no clip ({', '.join(map(str, names))}; clips are called "
        f"{called}, …)"
        for listed, (count, *names) in store.info.get("unmatched", {}).items()
    ]


def plan_of(store: ClipStore) -> dict[str, Any]:
    """What a store was made from, and how.

    Raises:
        UserError: the store does not say it.
    """
    plan = store.info.get("plan", {})
    # The digest of the sources is a number: see mmcl.data.preparation.sources.
    if re.fullmatch("[0-9a-f]{64}", str(plan.get("sources"))) is None:
        raise _earlier(store)
    return plan


def _earlier(store: ClipStore) -> UserError:
    return UserError(f"{store.location} was made by an earlier mmcl: prepare it again with --overwrite")


def read_skipped(store: ClipStore) -> tuple[Clips, Clips, Changes]:
    """Bad clips, those that were left out, and what was mended in the others; fetched where it lies behind a URL."""
    if "skipped_bytes" not in store.info:
        raise _earlier(store)
    try:
        with store.folder.file(SKIPPED, store.info["skipped_bytes"]).open(encoding="utf-8", newline="") as file:
            rows = [(from_csv_cell(row["id"]), row["reason"], row["kind"]) for row in csv.DictReader(file)]
    except (KeyError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{store.location}/{SKIPPED} is damaged ({error}); copy the store again") from error
    bad, left_out = ([(name, why) for name, why, kind in rows if kind == wanted] for wanted in (BAD, LEFT_OUT))
    return bad, left_out, [row for row in rows if row[2] not in (BAD, LEFT_OUT)]


def finish(
    folder: Path,
    about: dict[str, Any],
    parts: Sequence[dict[str, Any]],
    skipped: Clips,
    left_out: Clips,
    mended: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Write what makes a store of a folder with parts; ``store.json`` last.

    Args:
        folder: holds ``clips/``.
        about: dataset, title, fps, layout, class names, plan, shard.
        parts: file, clips and bytes of each part, in order.
        skipped: (id, reason) of the bad clips.
        left_out: (id, reason) of clips that the reader never offered.
        mended: what was mended in the clips.
    """
    table = io.StringIO()
    rows = [(*entry, kind) for kind, entries in ((BAD, skipped), (LEFT_OUT, left_out)) for entry in entries]
    rows += mended
    csv.writer(table, lineterminator="\n").writerows([("id", "reason", "kind"), *(map(csv_cell, row) for row in rows)])
    (folder / SKIPPED).write_bytes(skipped_data := table.getvalue().encode())
    flush(folder / SKIPPED)
    columns = schema(SHORT)
    index = _index(columns, (folder / "clips" / part["file"] for part in parts))
    (folder / INDEX).write_bytes(data := stream(columns, [index]))
    flush(folder / INDEX)
    facts = {
        "format": FORMAT,
        **about,
        "clips": index.num_rows,
        "skipped": len(skipped),
        "left_out": len(left_out),
        "with_video": int(np.count_nonzero(index.column("video_frames").to_numpy())),
        "with_confidence": sum(_confident(map_file(folder / "clips" / part["file"])) for part in parts),
        "fingerprint": content_fingerprint(index.column("digest").to_pylist(), about),
        "index_bytes": len(data),
        "skipped_bytes": len(skipped_data),
        "parts": [{**part, "sha256": file_digest(folder / "clips" / part["file"])} for part in parts],
    }
    write_json(folder / "store.json", facts)
    flush(folder / "store.json")


def _confident(batches: Sequence[pa.RecordBatch]) -> int:
    """How many clips say how sure a pose estimator was; none of a part that was written by format 3."""
    known = [batch.column("confidence") for batch in batches if "confidence" in batch.schema.names]
    return sum(int(np.count_nonzero(column.value_lengths().to_numpy())) for column in known)


def _index(columns: pa.Schema, files: Iterable[Path]) -> pa.RecordBatch:
    """The short columns of all clips. Parts are mapped one at a time."""
    batches = [batch.select(SHORT) for file in files for batch in map_file(file)]
    if not batches:  # a shard of bad clips only
        return pa.RecordBatch.from_pylist([], schema=columns)
    merged = pa.Table.from_batches(batches).combine_chunks()
    return merged.cast(columns).to_batches()[0]
