"""The rtmlib estimator against a stand-in with the library's own calls, since its weights are the user's."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mmcl.common.errors import UserError
from mmcl.pose.base import build_estimator

PICTURE = np.zeros((48, 64, 3), np.uint8)
PICTURE[..., 0] = 200  # red


class Detector:
    def __init__(self, onnx_model, model_input_size=(640, 640), nms_thr=0.45, score_thr=0.7, backend="", device="cpu"):
        assert model_input_size == (640, 640) and backend == "onnxruntime"
        self.boxes = [[4, 4, 20, 40], [30, 4, 50, 40]]

    def __call__(self, image):
        assert image[0, 0].tolist() == [0, 0, 200]  # blue, green, red
        return self.boxes


class Pose:
    def __init__(self, onnx_model, model_input_size=(192, 256), to_openpose=False, backend="", device="cpu"):
        assert Path(onnx_model).is_file() and not to_openpose

    def __call__(self, image, bboxes=()):
        boxes = np.array(bboxes if len(bboxes) else [[0, 0, image.shape[1], image.shape[0]]], dtype=np.float64)
        middles = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        return middles + np.arange(17)[None, :, None], np.full((len(boxes), 17), 1.2)


@pytest.fixture
def rtmlib(monkeypatch, tmp_path):
    module = ModuleType("rtmlib")
    module.__spec__ = ModuleSpec("rtmlib", None)
    module.YOLOX, module.RTMPose, module.RTMO = Detector, Pose, Pose
    monkeypatch.setitem(sys.modules, "rtmlib", module)
    for name in ("pose.onnx", "det.onnx"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_detector_and_pose_network(rtmlib) -> None:
    options = {"weights": str(rtmlib / "pose.onnx"), "detector": str(rtmlib / "det.onnx")}
    estimator = build_estimator("rtmlib", options)
    assert estimator.layout == "coco_17" and estimator.dimensions == 2
    estimator.open(Path("clip.mp4"))
    found = estimator.find(PICTURE, 0, 0.0)
    np.testing.assert_allclose(found.pixels[:, 0], [(12, 22), (40, 22)])
    assert found.confidence.max() == 1 and found.space is None
    estimator._detector.boxes = []
    assert len(estimator.find(PICTURE, 1, 0.1)) == 0  # and not the whole picture


def test_a_network_without_a_detector_and_another_number_of_joints(rtmlib) -> None:
    estimator = build_estimator("rtmlib", {"weights": str(rtmlib / "pose.onnx")})
    estimator.open(Path("clip.mp4"))
    assert len(estimator.find(PICTURE, 0, 0.0)) == 1
    wrong = build_estimator("rtmlib", {"weights": str(rtmlib / "pose.onnx"), "joints": 26})
    wrong.open(Path("clip.mp4"))
    with pytest.raises(UserError, match="gives 17 keypoints"):
        wrong.find(PICTURE, 0, 0.0)


def test_weights_are_never_downloaded(rtmlib) -> None:
    with pytest.raises(UserError, match="no such file"):
        build_estimator("rtmlib", {"weights": "https://example.org/pose.zip"})
    with pytest.raises(UserError, match="give the ONNX file"):
        build_estimator("rtmlib")
