"""``clips.csv`` of a folder of estimated clips: made from the records, and never over what a person wrote into it."""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from mmcl.common.files import write_text
from mmcl.data.readers.clip_list import read_list

CLIPS = "skeletons"  # where the clips of such a folder lie
COLUMNS = ("id", "label", "file", "video", "width", "height")


def write_list(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write the list anew. From an earlier one stay labels, further columns, and lines of clips from elsewhere.

    Args:
        path: of the list.
        records: of the recordings, each with its ``clips``.

    Raises:
        UserError: the earlier list cannot be read; it is left as it is.
    """
    columns, lines = read_list(path) if path.exists() else ([], [])
    more = [column for column in dict.fromkeys(columns) if column and column not in COLUMNS]
    earlier = {line["id"]: line for line in lines}
    rows = [clip for record in records for clip in record["clips"]]
    made = {clip["id"] for clip in rows}
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *more], lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for clip in rows:
        line = earlier.get(clip["id"])
        kept = {column: line[column] for column in ("label", *more) if line[column]} if line else {}
        writer.writerow({**clip, **kept})
    # A line of a file that an earlier call made here, and today's would not, is old; all others are somebody's own.
    own = [line for name, line in earlier.items() if name not in made and not line["file"].startswith(f"{CLIPS}/")]
    writer.writerows(line.cells for line in own)
    write_text(path, text.getvalue())


def free_name(name: str, taken: Container[str]) -> str:
    """The name, or where it is taken the name with a number that is free."""
    number, free = 1, name
    while free in taken:
        number, free = number + 1, f"{name}_{number + 1}"
    return free
