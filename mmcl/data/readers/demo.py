"""The embedded demo dataset: a folder that :func:`mmcl.data.demo.generate` wrote.

``ROOT/demo.json`` states layout, classes and camera; ``ROOT/clips.csv`` lists the clips; ``ROOT/skeletons/<id>.npy`` is
(M, T, V, 3) float32 in camera space, metres; ``ROOT/videos/<id>.mp4`` has one frame for each skeleton frame.
"""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import MOST_FPS, ClipSource, RawClip
from mmcl.data.demo.camera import SENSORS, Intrinsics
from mmcl.data.readers.arrays import parse_npy
from mmcl.data.readers.files import read_bytes, require_folder


class Demo:
    """Reader of a generated folder.

    Args:
        source: the folder.
        video: folder of the ``.mp4`` files, where it lies elsewhere.

    Attributes:
        layout: the layout this folder was generated in; another folder may have another.

    Raises:
        UserError: the folder is not a demo dataset, or the video folder does not exist.
    """

    name = dataset = "demo"
    title = "mmcl demo (synthetic people)"

    def __init__(self, source: Path, video: Path | None = None) -> None:
        self.source = source
        facts = source / "demo.json"
        if not facts.is_file():
            raise UserError(f"{source}: not a demo dataset (no demo.json in it); `mmcl prepare demo` generates one")
        require_folder(video, "the video folder")
        self.videos = video or source / "videos"
        try:
            content = json.loads(read_bytes(facts))
            self.layout, self.fps = str(content["layout"]), float(content["fps"])
            self.class_names = [str(name) for name in content["classes"]]
            self.camera = Intrinsics(**content["camera"])
            if self.layout not in SENSORS or not 0 < self.fps <= MOST_FPS:
                raise ValueError("no such sensor, or no frame rate")
        except (BadClip, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(f"{facts}: damaged ({error}); delete the folder and generate it again") from error

    def scan(self) -> list[ClipSource]:
        """All clips of ``clips.csv``, sorted by id.

        Raises:
            UserError: the list is missing, damaged or empty.
        """
        path = self.source / "clips.csv"
        videos = {file.name: str(file) for file in self.videos.iterdir()} if self.videos.is_dir() else {}
        try:
            text = read_bytes(path).decode("utf-8")
            clips = [self._clip(row, videos) for row in csv.DictReader(StringIO(text, newline=""))]
        except (BadClip, csv.Error, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: no readable list of clips ({error}); generate the folder again") from error
        if not clips or len({clip.id for clip in clips}) < len(clips):
            raise UserError(f"{path}: no clips in it, or one of them twice; generate the folder again")
        return sorted(clips, key=lambda clip: clip.id)

    def _clip(self, row: dict[str, str], videos: dict[str, str]) -> ClipSource:
        name = row["id"]
        label, subject, camera, trial = (int(row[column]) for column in ("label", "subject", "camera", "trial"))
        if not name.isprintable() or not 0 <= label < len(self.class_names):
            raise ValueError(f"{name!r:.80} is no clip of one of the {len(self.class_names)} classes")
        if not all(0 <= number < 1 << 31 for number in (subject, camera, trial)):
            raise ValueError(f"{name:.80}: a number out of range")
        skeleton, video = str(self.source / "skeletons" / f"{name}.npy"), videos.get(f"{name}.mp4")
        return ClipSource(name, label, subject, camera, trial=trial, skeleton=skeleton, video=video)

    def read(self, source: ClipSource) -> RawClip:
        """Read one ``.npy`` file: joints (M, T, V, 3) float32.

        Raises:
            BadClip: the file has gone, is cut off, or holds no numbers.
        """
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as that
            return RawClip(joints=np.ascontiguousarray(parse_npy(read_bytes(source.skeleton)), dtype=np.float32))

    def pixels(self, joints: np.ndarray, width: int, height: int) -> np.ndarray:
        """Exact projection: (M, T, V, 3) metres -> (M, T, V, 2) float32 pixels of a video of that size."""
        scale = np.array([width / self.camera.width, height / self.camera.height])
        return (self.camera.project(joints.astype(np.float64)) * scale).astype(np.float32)
