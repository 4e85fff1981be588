"""``clips.csv`` of a folder of estimated clips: made from the records, and never over what a person wrote into it."""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from mmcl.common.files import write_text
from mmcl.data.readers.list_files import read_list

CLIPS = "skeletons"  # where the clips of such a folder lie
COLUMNS = ("id", "label", "file", "video", "width", "height")


def write_list(path: Path, records: Sequence[dict[str, Any]], told: Container[str] = ()) -> None:
    """Write the list anew. From an earlier one stay labels, further columns, and lines of clips from elsewhere.

    Args:
        path: of the list.
        records: of the recordings, each with its ``clips``.
        told: clips whose label was given on the command line just now: it replaces what the list says.

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
        stay = more if clip["id"] in told else ["label", *more]
        kept = {column: line[column] for column in stay if line[column]} if line else {}
        writer.writerow({**clip, **kept})
    # What an earlier call made here, and a later one would not, has been removed: its line is old. All others stay,
    # somebody's own as well as those of a recording whose record is damaged.
    own = [line for name, line in earlier.items() if name not in made and not _removed(path.parent, line["file"])]
    writer.writerows(line.cells for line in own)
    write_text(path, text.getvalue())


def _removed(folder: Path, file: str) -> bool:
    """Whether a line is of a clip that was made here and is here no more."""
    return file.startswith(f"{CLIPS}/") and not (folder / file).is_file()


def free_name(name: str, taken: Container[str]) -> str:
    """The name, or where it is taken the name with a number that is free."""
    number, free = 1, name
    while free in taken:
        number, free = number + 1, f"{name}_{number + 1}"
    return free
