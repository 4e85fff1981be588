"""A folder of one's own clips: ``clips.csv`` and one file a clip.

``ROOT/clips.csv`` has a header and a line for each clip. Its columns are id and label and, if wanted, subject, split,
camera, setup, trial, file, video, width and height; others are left alone.

- label: class names, or whole numbers from 0. Names are numbered in sorted order unless ``ROOT/classes.txt`` lists
  them, one a line; it gives numbers their names, too.
- subject: a number, or a name (then people are numbered by sorted name, from 1; rules may use either). Without it
  everybody is 0.
- split: train, val, test or any other list; several are separated by spaces (protocols ``own/split``, ``own/…``).
- file: relative to ROOT. Without it: ``<id>`` with .npy, .npz, .json or .csv, in ROOT or in ROOT/skeletons.
- video: relative to the video folder or, where none is given, to ROOT. Without it: what is called ``<id>`` in the video
  folder or in ROOT/videos.
- width, height: pixels of the picture in which joints with two coordinates were found; needed for these alone.

A file holds (T, V, C) or (M, T, V, C) numbers: ``.npy``; ``.npz`` with one array, or one called joints, skeletons or
keypoints; ``.json`` with nested lists, alone or under one of these names; ``.csv`` with T lines of V * C numbers, with
a header or without (:mod:`mmcl.data.readers.text_table`). Other orders of persons, frames, joints and coordinates are
recognised (:mod:`mmcl.data.readers.array_order`). C is 3 (x, y, z in ``unit``, y up unless ``axes`` says otherwise) or
2 (pixels, y down), the same for all clips; where ``columns`` says so, one more is the joint's confidence. A joint with
a coordinate that is NaN (``null``, ``NA``, an empty cell) or without a positive confidence is missing: it becomes zero,
as missing joints are in mmcl.

``ROOT/folder.yaml`` may hold options of its own (:mod:`mmcl.data.readers.folder_options`).
"""

from __future__ import annotations

import contextlib
import unicodedata
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.common.files import absolute, exists
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.readers.clip_file import SUFFIXES, Columns, read_clip
from mmcl.data.readers.clip_list import LIST, ClipList
from mmcl.data.readers.files import find_videos, require_folder
from mmcl.data.readers.folder_options import DEFAULTS, FACTS, FolderOptions, Unit, with_facts
from mmcl.data.readers.joints import UNITS, Axes, check_fps, clip_in_plane, clip_in_space
from mmcl.data.readers.list_files import Line
from mmcl.data.readers.naming import safe_name
from mmcl.skeletons.layout import layout_names, load_layout

_FORMS = (str, partial(unicodedata.normalize, "NFD"))  # of names: as in the list, and as macOS keeps them
LOOKED_AT = 20  # clips, for one that can be read


class Folder:
    """Reader of such a folder.

    Args:
        source: the folder.
        video: folder of the videos, or of folders of pictures; None: what the list says, or ``videos`` in ``source``.
        options: see :class:`FolderOptions`.

    Attributes:
        dimensions: coordinates of a joint, by ``columns`` or else by the first clip that can be read.

    Raises:
        UserError: no such folder, no layout, or a list that cannot be used.
    """

    name = "folder"
    options_type = FolderOptions

    def __init__(self, source: Path, video: Path | None = None, options: FolderOptions = DEFAULTS) -> None:
        if not source.is_dir():
            raise UserError(f"{source}: no such folder; --source is the folder that holds clips.csv")
        options = with_facts(options, source / FACTS)
        require_folder(video, "the video folder")
        if options.layout is None:
            raise UserError(
                "folder: say which joints your files hold, in which order: --layout NAME "
                f"({', '.join(layout_names())}), or your own layout file, --layout FILE.yaml"
            )
        check_fps(options.fps)
        for chosen, kind, what in ((options.unit, Unit, "unit"), (options.columns, Columns, "columns")):
            if chosen is not None and chosen not in get_args(kind):
                raise UserError(f"{what} '{chosen:.40}': choose one of {', '.join(get_args(kind))}")
        self.source, self.video, self.options = source, video, options
        self.layout, self.fps, self.axes = str(options.layout), options.fps, Axes(options.axes)
        self.joints = load_layout(options.layout)
        self.title = options.name or absolute(source).name
        self.dataset = safe_name(self.title)
        listed = ClipList(source)
        self.class_names, self.subject_names = listed.class_names, listed.subject_names
        self.dimensions = self._dimensions()

    def scan(self) -> list[ClipSource]:
        """All clips of the list, sorted by id.

        Raises:
            UserError: a line of the list cannot be used.
        """
        listed = ClipList(self.source)
        files = self._files()
        videos = {} if "video" in listed.columns else find_videos(self.video or self.source / "videos")
        places = [_place(self.source, line["file"]) if line["file"] else files.get(line["id"], "")
                  for line in listed.lines]  # fmt: skip
        clips = [
            ClipSource(
                id=line["id"],
                label=label,
                subject=subject,
                camera=listed.number(line, "camera"),
                setup=listed.number(line, "setup"),
                trial=listed.number(line, "trial"),
                skeleton=place,
                member=_picture(listed, line),
                video=_place(self.video or self.source, line["video"]) if line["video"] else videos.get(line["id"]),
                splits=tuple(dict.fromkeys(map(safe_name, line["split"].split()))),
                payload=_lacks(place),
            )
            for line, place, label, subject in zip(listed.lines, places, listed.labels, listed.subjects, strict=True)
        ]
        return sorted(clips, key=lambda clip: clip.id)

    def _files(self) -> dict[str, str]:
        """Name without suffix -> file. Where a clip is there in several forms, the first of SUFFIXES counts."""
        found: dict[str, str] = {}
        folders = [folder for folder in (self.source, self.source / "skeletons") if folder.is_dir()]
        present = [path for folder in folders for path in sorted(folder.iterdir()) if path.name != LIST]
        for suffix in SUFFIXES:
            for path in present:
                if path.suffix.lower() == suffix:
                    found.setdefault(unicodedata.normalize("NFC", path.stem), str(path))
        return found

    def _dimensions(self) -> int:
        """Coordinates of a joint: 2 or 3."""
        if self.options.columns is not None:
            return 3 if "z" in self.options.columns else 2
        for clip in self.scan()[:LOOKED_AT]:
            with contextlib.suppress(Exception):  # whatever it is, it is said when the clip is read
                return int(read_clip(Path(clip.skeleton), self.joints).coordinates.shape[3])
        return 3

    def read(self, source: ClipSource) -> RawClip:
        """Read one file: joints (M, T, V, C) float32.

        Raises:
            BadClip: no such file, damaged, not the layout's joints, not as many coordinates as the other clips, or two
                and no size of the picture.
        """
        if source.payload is not None:
            raise BadClip(str(source.payload))
        if not source.skeleton:
            raise BadClip(f"no file {source.id}{'/'.join(SUFFIXES)} in the folder, nor in its folder skeletons")
        held = read_clip(Path(source.skeleton), self.joints, self.options.columns)
        values, score = held.coordinates, held.confidence
        if values.shape[3] != self.dimensions:
            raise BadClip(f"{values.shape[3]} coordinates a joint, the first clip has {self.dimensions}")
        if self.dimensions == 3:
            clip = clip_in_space(self.axes.straight(values), score, UNITS[self.options.unit])
        elif source.member:
            width, height = source.member.split("x")
            clip = clip_in_plane(values, (int(width), int(height)), score)
        else:
            raise BadClip("joints with two coordinates need the columns width and height in clips.csv")
        return replace(clip, remarks=tuple(held.remarks))

    def pixels(self, joints: np.ndarray, width: int, height: int) -> None:
        """None: the camera is not known. Joints with two coordinates bring their pixels along."""
        return None


def _place(folder: Path, cell: str) -> str:
    """The file that a cell of the list names, whether Windows wrote the cell or macOS the file's name."""
    cells = [form(part) for part in dict.fromkeys((cell, cell.replace("\\", "/"))) for form in _FORMS]
    return str(next(filter(exists, map(folder.joinpath, dict.fromkeys(cells))), folder / cell))


def _lacks(path: str) -> str | None:
    """Why there is no file where the list says that it is; None where it is there."""
    if not path or exists(path):
        return None
    stroke = " (Windows' backslashes separate no folders here)" if "\\" in path else ""
    return f"there is no file {path}{stroke}"


def _picture(listed: ClipList, line: Line) -> str:
    """Size of the picture, "1920x1080"; "" where the list does not say it."""
    size = listed.number(line, "width", 0), listed.number(line, "height", 0)
    if min(size) == 0 and max(size) > 0:
        raise listed.error(line, "width and height belong together, both above 0")
    return "" if max(size) == 0 else "{}x{}".format(*size)
