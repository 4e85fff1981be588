"""People who walk through made-up pictures, and an estimator that finds them there by their colour."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from mmcl.common.errors import BadClip
from mmcl.pose.base import Estimator, Poses, nobody
from mmcl.skeletons.layout import load_layout

sys.path.insert(0, str(Path(__file__).parents[1] / "skeletons"))
from figure import standing  # noqa: E402

LAYOUT = load_layout("mediapipe_33")
WIDTH, HEIGHT = 320, 240
FIGURE = standing(LAYOUT) * (1, -1, 1)  # on the picture's axes, facing the camera: the left is on the right
COLOURS = ((230, 30, 30), (30, 30, 230))
BOX = 16  # side of a coloured square, pixels
FOCAL = 160 / np.tan(np.radians(65 / 2))


def seen_from(place: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (V, 2) and joints (V, 3) around the figure's middle, of a figure whose middle is at a place."""
    joints = FIGURE - FIGURE.mean(axis=0)
    points = joints + place
    return points[:, :2] / points[:, 2:] * FOCAL + (WIDTH / 2, HEIGHT / 2), joints


def write_walk(path: Path, columns: list[list[int | None]], fps: int = 30, size: tuple[int, int] = (320, 240)) -> Path:
    """A video of grey frames with a square of its own colour for each person, whose middle is in the given column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv444p"
        stream.options = {"crf": "5"}
        for places in zip(*columns, strict=True):
            picture = np.full((size[1], size[0], 3), 120, dtype=np.uint8)
            for colour, column in zip(COLOURS, places, strict=False):
                if column is not None:
                    picture[100 : 100 + BOX, column - BOX // 2 : column + BOX // 2] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


@dataclass(frozen=True)
class SquaresOptions:
    """Misbehaviour on demand."""

    hang_at: int = -1
    die_at: int = -1


class Squares(Estimator):
    """Finds the squares, the one on the left first, whoever it is."""

    options_type = SquaresOptions
    layout = "mediapipe_33"
    dimensions = 3

    def open(self, source: Path) -> None:
        if "bad" in source.name:
            raise BadClip("nothing to be had")

    def find(self, picture: np.ndarray, frame: int, seconds: float) -> Poses:
        if frame == self.options.hang_at:
            time.sleep(600)
        if frame == self.options.die_at:
            raise MemoryError("too much")
        found = []
        for colour in COLOURS:
            like = np.abs(picture.astype(int) - colour).sum(axis=-1) < 120
            if like.sum() > BOX:
                pixels, joints = seen_from((0.0, 0.0, 4.0))
                found.append((pixels + (np.nonzero(like)[1].mean() + 0.5 - WIDTH / 2, 0), joints))
        if not found:
            return nobody(33, depth=True)
        found.sort(key=lambda row: row[0][:, 0].mean())
        pixels, joints = (np.stack(part).astype(np.float32) for part in zip(*found, strict=True))
        return Poses(pixels, np.full(pixels.shape[:2], 0.9, np.float32), joints)
