"""Options of ``mmcl predict`` for videos; needs nothing but Python, as the command itself."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmcl.common.arguments import out_path
from mmcl.common.errors import UserError
from mmcl.common.files import absolute, exists, is_folder

DRAWN = (".mp4", ".mkv", ".mov")  # what a drawn video may be


def add_film_flags(parser: argparse.ArgumentParser) -> None:
    """Add them to a command line."""
    group = parser.add_argument_group("of videos")
    group.add_argument("--together", action="store_true", help="one label for all people at once (two who shake hands)")
    group.add_argument("--windows", action="store_true", help="print a label a window instead of joined segments")
    group.add_argument("--csv", type=out_path, metavar="FILE", help="write the segments of all videos as a table")
    group.add_argument("--srt", type=out_path, metavar="FILE", help="write them as subtitles, of one video")
    group.add_argument("--draw", type=out_path, metavar="FILE", help="write the video with skeletons and labels (.mp4)")


def _check_outputs(arguments: argparse.Namespace, written: list[str]) -> None:
    """Whether what is to be written has a place of its own, before a video is looked at for minutes."""
    places: dict[Path, str] = {absolute(file): "a video that is looked at" for file in arguments.files}
    for name in written:
        path: Path = getattr(arguments, name)
        if path.is_dir():
            raise UserError(f"--{name} {path}: this is a folder, name a file")
        if name == "draw" and path.suffix.lower() not in DRAWN:
            raise UserError(f"--draw {path}: a drawn video ends in {', '.join(DRAWN)}")
        own = f"what --{name} writes"
        if (other := places.setdefault(absolute(path), own)) != own:
            raise UserError(f"--{name} {path} is {other}: name another file")
        _check_place(name, path)


def _check_place(name: str, path: Path) -> None:
    """Whether a file can be made at a path; folders on the way to it that are not there yet will be."""
    nearest = next(folder for folder in path.absolute().parents if exists(folder))
    if not is_folder(nearest):
        raise UserError(f"--{name} {path}: {nearest} is a file, and no folder: name another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"--{name} {path}: nothing may be written in the folder {nearest}: name another place")


def check_film_flags(arguments: argparse.Namespace, films: bool) -> None:
    """Whether the options go together with what is looked at.

    Raises:
        UserError: they do not.
    """
    written = [name for name in ("csv", "srt", "draw") if getattr(arguments, name) is not None]
    asked = written + [name for name in ("together", "windows") if getattr(arguments, name)]
    if asked and not films:
        raise UserError(f"--{asked[0]} belongs to videos")
    if asked and arguments.follow is not None:
        raise UserError(f"--{asked[0]} belongs to video files; --follow prints what comes")
    if films and arguments.layout is not None:
        raise UserError("--layout belongs to skeleton files: of a video, the estimator says it")
    _check_outputs(arguments, written)
    if len(arguments.files) > 1 and {"srt", "draw"} & set(written):
        raise UserError("--srt and --draw are of one video: give one at a time")
