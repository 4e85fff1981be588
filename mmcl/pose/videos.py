"""Finds the videos of a folder, and what each of them is called and shows."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mmcl.common.errors import BadClip, UserError
from mmcl.common.printing import complain, printable
from mmcl.data.readers.files import VIDEO_SUFFIXES
from mmcl.data.readers.naming import unique_ids
from mmcl.data.readers.packed import wanted
from mmcl.pose.film import is_video

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Video:
    """A recording to look at: its id, its file (or the name of a camera), and what it shows.

    ``told``: the label was given for it now, and stands above what an earlier call or the list of clips says.
    """

    id: str
    path: Path
    label: str
    told: bool = False


def find_recordings(source: Path, label: str | None = None) -> list[Video]:
    """A video alone, or all of a folder and its folders, by name.

    Args:
        source: file or folder.
        label: what they show; None: the name of the folder inside ``source`` that a video is in, or unknown.

    Raises:
        UserError: there are none.
    """
    label = label and _in_a_line(label)
    if source.is_file():
        return [Video(unique_ids([source.stem])[0], source, label or UNKNOWN, bool(label))]
    if not source.is_dir():
        raise UserError(f"{source}: no such video, folder or camera (camera, camera:1 …)")
    visible = (path for path in sorted(source.rglob("*")) if wanted(path.relative_to(source).as_posix()))
    files = [path for path in visible if path.is_file()]
    paths = [path for path in files if is_video(path)]
    if not paths:
        raise UserError(f"{source}: no videos in this folder (their names end in {', '.join(VIDEO_SUFFIXES)})")
    _name_others(source, [path for path in files if not is_video(path)])
    inner = [path.relative_to(source) for path in paths]
    ids = unique_ids(str(path.with_suffix("")).replace(os.sep, "_") for path in inner)
    labels = [label or (_in_a_line(path.parts[0]) if len(path.parts) > 1 else UNKNOWN) for path in inner]
    return [Video(*row, told=bool(label)) for row in zip(ids, paths, labels, strict=True)]


def _in_a_line(name: str) -> str:
    """A name as the list of clips can have it: names of folders may hold line ends, or be no text at all."""
    return printable(" ".join(name.split()))


def _name_others(source: Path, others: list[Path]) -> None:
    """Say which files are no videos by their names, so that none is missed."""
    if others:
        kinds = Counter(path.suffix.lower() or path.name for path in others)
        named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) + (", …" if len(kinds) > 5 else "")
        complain("note", f"{source}: {len(others)} files are no videos by their names, and are passed over ({named})")


def bad(error: BadClip, video: Video) -> str:
    """A line about a video that is left out."""
    words = str(error)
    return words if words.startswith(str(video.path)) else f"{video.path}: {words}"
