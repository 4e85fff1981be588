"""SYSU 3D HOI (Hu, Zheng, Lai, Zhang, CVPR 2015): 12 actions with objects, 40 people, one Kinect v1.

``ROOT/3DvideoNorm/<subject name>/video<1..12>/sklWorld.mat`` holds ``SW``, (20 joints, 3, T) in metres, 30 fps. The
number of the video is the action. People are named, not numbered: their numbers here are those of the sorted names.
The joints are in the order of the Kinect v1 SDK. Public accounts disagree on the order of the three coordinates, so
it can be given; ``mmcl check`` tells from the geometry whether people stand upright.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.prompts import class_names
from mmcl.data.readers.files import find_videos, require_folder
from mmcl.data.readers.joints import Axes
from mmcl.data.readers.matlab import load_mat
from mmcl.data.readers.naming import numbered, unique_ids
from mmcl.data.readers.options import option

FOLDER, FILE, VARIABLE = "3DvideoNorm", "sklWorld.mat", "SW"
JOINTS, ACTIONS = 20, 12
VIDEO = re.compile(r"video(\d+)")


@dataclass(frozen=True)
class SYSUOptions:
    """Options of the reader."""

    axes: str = option("xyz", "what the columns of SW are, in order; one public converter reads them as zxy", "XYZ")


class SYSU:
    """Reader of the official folder.

    Args:
        source: folder that holds ``3DvideoNorm/``, or that folder itself.
        video: folder of the pictures, ``<subject name>/video<k>`` (a folder of pictures) or ``video<k>.avi``; the
            camera is not known, so crops show the whole picture.
        options: see :class:`SYSUOptions`.

    Raises:
        UserError: no such folder in ``source``, the video folder does not exist, or ``axes`` is none.
    """

    name = "sysu"
    options_type = SYSUOptions
    dataset = "sysu"
    title = "SYSU 3D HOI"
    layout = "kinect_v1_20"
    fps = 30.0

    def __init__(self, source: Path, video: Path | None = None, options: SYSUOptions = SYSUOptions()) -> None:
        self.root = source / FOLDER if (source / FOLDER).is_dir() else source
        if not self.root.is_dir():
            raise UserError(f"{source}: no such folder; --source is the dataset's own folder, holding {FOLDER}/")
        require_folder(video, "the video folder")
        self.video, self.options, self.axes = video, options, Axes(options.axes)
        self.class_names = class_names(self.dataset)

    def scan(self) -> list[ClipSource]:
        """All clips, sorted by id; folders of any other name are left alone.

        Raises:
            UserError: no file lies where one is expected.
        """
        found = [
            (subject.name, int(match[1]), folder / FILE)
            for subject in sorted(self.root.iterdir())
            if subject.is_dir()
            for folder in sorted(subject.iterdir())
            if (match := VIDEO.fullmatch(folder.name)) and 1 <= int(match[1]) <= ACTIONS and (folder / FILE).exists()
        ]
        if not found:
            raise UserError(
                f"{self.root}: no <subject>/video<1..{ACTIONS}>/{FILE} in it; --source is the folder that holds "
                f"{FOLDER}/, unpacked"
            )
        self.subject_names = people = numbered(name for name, _, _ in found)
        videos = self._videos(people)
        ids = unique_ids([f"{name}_video{number}" for name, number, _ in found])
        clips = [
            ClipSource(
                id=clip_id,
                label=number - 1,
                subject=people[name],
                skeleton=str(path),
                video=videos.get((name, number)),
            )
            for clip_id, (name, number, path) in zip(ids, found, strict=True)
        ]
        return sorted(clips, key=lambda clip: clip.id)

    def _videos(self, people: dict[str, int]) -> dict[tuple[str, int], str]:
        """(subject name, number) -> video, one listing a subject."""
        return {
            (name, int(match[1])): file
            for name in people
            if self.video is not None and (self.video / name).is_dir()
            for stem, file in find_videos(self.video / name).items()
            if (match := VIDEO.fullmatch(stem))
        }

    def read(self, source: ClipSource) -> RawClip:
        """Read one file: joints (1, T, 20, 3) float32; see :func:`mmcl.data.readers.matlab.load_mat`."""
        joints = load_mat(source.skeleton, VARIABLE, JOINTS)
        return RawClip(joints=np.ascontiguousarray(self.axes.straight(joints), dtype=np.float32))

    def pixels(self, joints: np.ndarray, width: int, height: int) -> None:
        """None: the colour camera's place and focal length are not published."""
        return None
