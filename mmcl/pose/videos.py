"""Finds the videos of a folder, and what each of them is called and shows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mmcl.common.errors import BadClip, UserError
from mmcl.data.readers.naming import unique_ids
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
    if source.is_file():
        return [Video(unique_ids([source.stem])[0], source, label or UNKNOWN, bool(label))]
    if not source.is_dir():
        raise UserError(f"{source}: no such video, folder or camera (camera, camera:1 …)")
    paths = sorted(path for path in source.rglob("*") if is_video(path) and path.is_file())
    if not paths:
        raise UserError(f"{source}: no videos in this folder")
    inner = [path.relative_to(source) for path in paths]
    ids = unique_ids(str(path.with_suffix("")).replace(os.sep, "_") for path in inner)
    labels = [label or (path.parts[0] if len(path.parts) > 1 else UNKNOWN) for path in inner]
    return [Video(*row, told=bool(label)) for row in zip(ids, paths, labels, strict=True)]


def bad(error: BadClip, video: Video) -> str:
    """A line about a video that is left out."""
    words = str(error)
    return words if words.startswith(str(video.path)) else f"{video.path}: {words}"
