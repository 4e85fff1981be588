"""The embedded demo dataset: a folder that :func:`mmcl.data.demo.generate` wrote.

``ROOT/demo.json`` states layout, classes and camera; ``ROOT/clips.csv`` lists the clips; ``ROOT/skeletons/<id>.npy`` is
(M, T, V, 3) float32 in camera space, metres; ``ROOT/videos/<id>.mp4`` has one frame for each skeleton frame.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.demo.camera import Intrinsics
from mmcl.errors import BadClip, UserError


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
    options = ()
    title = "mmcl demo (synthetic people)"

    def __init__(self, source: Path, video: Path | None = None) -> None:
        self.source = source
        facts = source / "demo.json"
        if not facts.is_file():
            raise UserError(f"{source}: not a demo dataset (no demo.json in it); `mmcl prepare demo` generates one")
        if video is not None and not video.is_dir():
            raise UserError(f"{video}: the video folder does not exist")
        self.videos = video or source / "videos"
        try:
            content = json.loads(facts.read_text(encoding="utf-8"))
            self.layout, self.fps = str(content["layout"]), float(content["fps"])
            self.class_names = [str(name) for name in content["classes"]]
            self.camera = Intrinsics(**content["camera"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{facts}: damaged ({error}); delete the folder and generate it again") from error

    def scan(self) -> list[ClipSource]:
        """All clips of ``clips.csv``, sorted by id.

        Raises:
            UserError: the list is missing, damaged or empty.
        """
        path = self.source / "clips.csv"
        videos = {file.name: str(file) for file in self.videos.iterdir()} if self.videos.is_dir() else {}
        try:
            with open(path, newline="", encoding="utf-8") as file:
                clips = [
                    ClipSource(
                        id=row["id"],
                        label=int(row["label"]),
                        subject=int(row["subject"]),
                        camera=int(row["camera"]),
                        trial=int(row["trial"]),
                        skeleton=str(self.source / "skeletons" / f"{row['id']}.npy"),
                        video=videos.get(f"{row['id']}.mp4"),
                    )
                    for row in csv.DictReader(file)
                ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: no readable list of clips ({error}); generate the folder again") from error
        if not clips:
            raise UserError(f"{path}: no clips in it; generate the folder again")
        return sorted(clips, key=lambda clip: clip.id)

    def read(self, source: ClipSource) -> RawClip:
        """Read one ``.npy`` file: joints (M, T, V, 3) float32.

        Raises:
            BadClip: the file has gone, is cut off, or holds no numbers.
        """
        try:
            joints = np.load(source.skeleton, allow_pickle=False)
        except FileNotFoundError as error:
            raise BadClip("the skeleton file has gone") from error
        except (OSError, ValueError, EOFError) as error:
            raise BadClip(f"not a readable NumPy file ({error})") from error
        if not isinstance(joints, np.ndarray) or joints.dtype.kind not in "fiu":
            raise BadClip("the skeleton file holds no array of numbers")
        return RawClip(joints=np.ascontiguousarray(joints, dtype=np.float32))

    def pixels(self, joints: np.ndarray, width: int, height: int) -> np.ndarray:
        """Exact projection: (M, T, V, 3) metres -> (M, T, V, 2) float32 pixels of a video of that size."""
        scale = np.array([width / self.camera.width, height / self.camera.height])
        return (self.camera.project(joints.astype(np.float64)) * scale).astype(np.float32)
