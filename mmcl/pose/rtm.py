"""RTMPose through rtmlib: 17, 26 or 133 keypoints in the picture, with onnxruntime. The weights are the user's."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from mmcl.common.errors import UserError
from mmcl.pose.base import Estimator, Poses, nobody

LAYOUTS = {17: "coco_17", 26: "halpe_26", 133: "coco_wholebody_133"}


@dataclass(frozen=True)
class RTMOptions:
    """Options of :class:`RTM`.

    Attributes:
        weights: ONNX file of a pose network (RTMPose, or RTMO where there is no detector).
        detector: ONNX file of a person detector (YOLOX or RTMDet); None for RTMO, which needs none.
        detector_kind: class of rtmlib that runs the detector.
        size: width and height of the pose network's input.
        detector_size: width and height of the detector's input.
        joints: keypoints that the pose network gives.
        device: cpu or cuda.
    """

    weights: str | None = None
    detector: str | None = None
    detector_kind: Literal["YOLOX", "RTMDet"] = "YOLOX"
    size: tuple[int, int] = (192, 256)
    detector_size: tuple[int, int] = (640, 640)
    joints: Literal[17, 26, 133] = 17
    device: str = "cpu"


class RTM(Estimator):
    """A detector and a pose network, picture by picture."""

    options_type: ClassVar[type] = RTMOptions

    def __init__(self, options: RTMOptions) -> None:
        super().__init__(options)
        if find_spec("rtmlib") is None:
            raise UserError(
                'the estimator rtmlib needs that package, not installed here: run `pip install "mmcl[rtm]"`'
            )
        for key in ("weights", "detector"):
            path = getattr(options, key)
            if key == "weights" and path is None:
                raise UserError("rtmlib: give the ONNX file of your pose network: --weights FILE.onnx")
            if path is not None and not Path(path).is_file():  # rtmlib would try to download it
                raise UserError(f"{path}: no such file ({key} of rtmlib)")
        self.layout = LAYOUTS[options.joints]
        self._pose: Any = None
        self._detector: Any = None

    def files(self, source: Path) -> list[Path]:
        """Both networks."""
        return [Path(path) for path in (self.options.weights, self.options.detector) if path is not None]

    def open(self, source: Path) -> None:
        """Load both networks."""
        import rtmlib

        own: RTMOptions = self.options
        common = {"backend": "onnxruntime", "device": own.device}
        if own.detector is None:
            self._pose = rtmlib.RTMO(own.weights, model_input_size=own.size, **common)
            return
        kind = getattr(rtmlib, own.detector_kind)
        self._detector = kind(own.detector, model_input_size=own.detector_size, **common)
        self._pose = rtmlib.RTMPose(own.weights, model_input_size=own.size, **common)

    def find(self, picture: np.ndarray, frame: int, seconds: float) -> Poses:
        """Arguments and result as in :class:`Estimator`.

        Raises:
            UserError: the network gives another number of keypoints than the options say.
        """
        image = np.ascontiguousarray(picture[..., ::-1])  # rtmlib goes by OpenCV: blue, green, red
        if self._detector is None:
            keypoints, scores = self._pose(image)
        else:
            boxes = self._detector(image)
            if len(boxes) == 0:  # given no box, RTMPose takes the whole picture for a person
                return nobody(self.options.joints, depth=False)
            keypoints, scores = self._pose(image, bboxes=boxes)
        keypoints, scores = np.asarray(keypoints, np.float32), np.asarray(scores, np.float32)
        if len(keypoints) == 0:
            return nobody(self.options.joints, depth=False)
        if keypoints.shape[1] != self.options.joints:
            raise UserError(f"{self.options.weights} gives {keypoints.shape[1]} keypoints: say so by --joints")
        return Poses(keypoints[..., :2], scores.clip(0, 1))

    def close(self) -> None:
        """Let go of the networks."""
        self._pose = self._detector = None
