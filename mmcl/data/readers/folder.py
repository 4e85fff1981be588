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
a header or without. C is 3 (x, y, z with y up, in ``unit``) or 2 (pixels, y down). A joint with a coordinate that is
NaN (``null``, an empty cell) is missing: it becomes zero, as missing joints are in mmcl.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.readers.clip_file import SUFFIXES, read_clip
from mmcl.data.readers.clip_list import LIST, ClipList, Line
from mmcl.data.readers.files import find_videos, require_folder
from mmcl.data.readers.joints import UNITS, clip_in_plane, clip_in_space
from mmcl.data.readers.naming import safe_name
from mmcl.skeletons.layout import layout_names, load_layout


class Folder:
    """Reader of such a folder.

    Args:
        source: the folder.
        video: folder of the videos, or of folders of pictures; None: what the list says, or ``videos`` in ``source``.
        layout: which joints the files hold, in which order: name of a layout, or a layout file (.yaml).
        fps: frames per second.
        name: of the dataset, for protocols and prompts; None: that of the folder.
        unit: of three coordinates: m, cm or mm.

    Raises:
        UserError: no such folder, no layout, or a list that cannot be used.
    """

    name = "folder"
    options = ("layout", "fps", "name", "unit")

    def __init__(
        self,
        source: Path,
        video: Path | None = None,
        layout: str | None = None,
        fps: float = 30.0,
        name: str | None = None,
        unit: str = "m",
    ) -> None:
        if not source.is_dir():
            raise UserError(f"{source}: no such folder; --source is the folder that holds clips.csv")
        require_folder(video, "the video folder")
        if layout is None:
            raise UserError(
                "folder: say which joints your files hold, in which order: --layout NAME "
                f"({', '.join(layout_names())}), or your own layout file, --layout FILE.yaml"
            )
        if unit not in UNITS:
            raise UserError(f"unit '{unit}': choose one of {', '.join(UNITS)}")
        if not (math.isfinite(fps) and fps > 0):
            raise UserError(f"fps {fps:g}: give frames per second, above 0")
        self.source, self.video, self.layout, self.fps, self.unit = source, video, str(layout), fps, unit
        self.joint_count = load_layout(layout).joint_count
        self.title = name or source.resolve().name
        self.dataset = safe_name(self.title)
        listed = ClipList(source)
        self.class_names, self.subject_names = listed.class_names, listed.subject_names

    def scan(self) -> list[ClipSource]:
        """All clips of the list, sorted by id.

        Raises:
            UserError: a line of the list cannot be used.
        """
        listed = ClipList(self.source)
        files = self._files()
        videos = {} if "video" in listed.columns else find_videos(self.video or self.source / "videos")
        clips = [
            ClipSource(
                id=line["id"],
                label=label,
                subject=subject,
                camera=listed.number(line, "camera"),
                setup=listed.number(line, "setup"),
                trial=listed.number(line, "trial"),
                skeleton=str(self.source / line["file"]) if line["file"] else files.get(line["id"], ""),
                member=_picture(listed, line),
                video=str((self.video or self.source) / line["video"]) if line["video"] else videos.get(line["id"]),
                splits=tuple(dict.fromkeys(map(safe_name, line["split"].split()))),
            )
            for line, label, subject in zip(listed.lines, listed.labels, listed.subjects, strict=True)
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
                    found.setdefault(path.stem, str(path))
        return found

    def read(self, source: ClipSource) -> RawClip:
        """Read one file: joints (M, T, V, 3) float32.

        Raises:
            BadClip: no such file, damaged, not the layout's joints, or two coordinates and no size of the picture.
        """
        if not source.skeleton:
            raise BadClip(f"no file {source.id}{'/'.join(SUFFIXES)} in the folder, nor in its folder skeletons")
        values = read_clip(Path(source.skeleton), self.joint_count)
        if values.shape[3] == 3:
            return clip_in_space(values, metres=UNITS[self.unit])
        if not source.member:
            raise BadClip("joints with two coordinates need the columns width and height in clips.csv")
        width, height = source.member.split("x")
        return clip_in_plane(values, (int(width), int(height)))

    def pixels(self, joints: np.ndarray, width: int, height: int) -> None:
        """None: the camera is not known. Joints with two coordinates bring their pixels along."""
        return None


def _picture(listed: ClipList, line: Line) -> str:
    """Size of the picture, "1920x1080"; "" where the list does not say it."""
    size = listed.number(line, "width", 0), listed.number(line, "height", 0)
    if min(size) == 0 and max(size) > 0:
        raise listed.error(line, "width and height belong together, both above 0")
    return "" if max(size) == 0 else "{}x{}".format(*size)
