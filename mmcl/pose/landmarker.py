"""MediaPipe's Pose Landmarker (BlazePose): 33 joints in space, on the processor, of one person or several.

World landmarks are metres around the middle of the hips, x to the right, y down, z away (Grishchenko et al., BlazePose
GHUM Holistic, 2022). The package must be one that makes no network call: later versions than :data:`QUIET` look up a
server that takes their usage statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmcl.common.errors import UserError
from mmcl.pose.base import Estimator, Poses, nobody
from mmcl.pose.weights import find_weights

QUIET = (0, 10, 31)
JOINTS = 33
INSTALL = '`pip install "mmcl[pose]"`'


@dataclass(frozen=True)
class LandmarkerOptions:
    """Options of :class:`Landmarker`.

    Attributes:
        weights: a ``.task`` file, official or made by ``mmcl pose --fetch-weights``; by default the latter.
        people: at most so many people in a picture. With more than there are, every picture is searched anew, which
            costs about a third more time.
        detection: confidence from which a person counts as found.
        presence: confidence from which a person who was found counts as still there.
    """

    weights: str | None = None
    people: int = 2
    detection: float = 0.5
    presence: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.people <= 20:
            raise UserError(f"mediapipe: people is {self.people}: it must be from 1 to 20")
        if not (0 <= self.detection <= 1 and 0 <= self.presence <= 1):
            raise UserError("mediapipe: detection and presence are confidences, from 0 to 1")


class Landmarker(Estimator):
    """The landmarker in its video mode, which follows people from picture to picture."""

    options_type: ClassVar[type] = LandmarkerOptions
    layout = "mediapipe_33"
    dimensions = 3

    def __init__(self, options: LandmarkerOptions) -> None:
        super().__init__(options)
        require_quiet_mediapipe()
        self.weights = find_weights(options.weights)
        self._landmarker: Any = None
        self._last = -1

    def files(self, source: Path) -> list[Path]:
        """The weights, also those that were found without being named."""
        return [self.weights]

    def open(self, source: Path) -> None:
        """Load the weights."""
        from mediapipe.tasks.python import BaseOptions
        from mediapipe.tasks.python.vision import PoseLandmarker, PoseLandmarkerOptions, RunningMode

        own = self.options
        self._last = -1
        self._landmarker = PoseLandmarker.create_from_options(
            PoseLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=self.weights.read_bytes()),
                running_mode=RunningMode.VIDEO,
                num_poses=own.people,
                min_pose_detection_confidence=own.detection,
                min_pose_presence_confidence=own.presence,
                min_tracking_confidence=own.presence,
            )
        )

    def find(self, picture: np.ndarray, frame: int, seconds: float) -> Poses:
        """Arguments and result as in :class:`Estimator`; what the landmarker calls visibility is the confidence."""
        import mediapipe

        self._last = max(self._last + 1, round(seconds * 1000))  # it refuses a time that is not later than the last
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
        found = self._landmarker.detect_for_video(image, self._last)
        if not found.pose_landmarks:
            return nobody(JOINTS, depth=True)
        height, width = picture.shape[:2]
        flat = _numbers(found.pose_landmarks, ("x", "y", "visibility"))
        space = _numbers(found.pose_world_landmarks, ("x", "y", "z"))
        return Poses(flat[..., :2] * np.array([width, height], np.float32), flat[..., 2].clip(0, 1), space)

    def close(self) -> None:
        """End its threads."""
        if self._landmarker is not None:
            self._landmarker.close()
            self._landmarker = None


def _numbers(people: Any, names: tuple[str, ...]) -> np.ndarray:
    """(P, 33, len(names)) float32 out of lists of landmarks."""
    rows = [[[getattr(mark, name) or 0.0 for name in names] for mark in person] for person in people]
    return np.array(rows, dtype=np.float32).reshape(-1, JOINTS, len(names))


def require_quiet_mediapipe() -> None:
    """Make sure that a mediapipe is installed, and one that sends nothing anywhere.

    Raises:
        UserError: it is missing or too new.
    """
    if find_spec("mediapipe") is None:
        raise UserError(f"pose estimation needs mediapipe, not installed here: run {INSTALL}")
    try:
        found = version("mediapipe")
    except PackageNotFoundError:  # a fork under another name
        return
    if tuple(int(part) for part in found.split(".")[:3] if part.isdecimal()) > QUIET:
        raise UserError(
            f"mediapipe {found} reports its use to a server of its makers: install {'.'.join(map(str, QUIET))} "
            f"({INSTALL} does)"
        )
