"""The UTD-MHAD reader against the real files, and against files that are broken in every way we know."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import recordings
from scipy.io import loadmat

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import check_joints
from mmcl.data.readers import READERS
from mmcl.data.readers.utd_mhad import UTDMHAD


def test_the_official_counts(utd_root: Path) -> None:
    clips = READERS["utd-mhad"](utd_root, None).scan()
    assert len(clips) == 861 and len({clip.id for clip in clips}) == 861
    assert [clip.id for clip in clips] == sorted(clip.id for clip in clips)
    train = [clip for clip in clips if clip.subject in (1, 3, 5, 7)]
    assert (len(train), len(clips) - len(train)) == (431, 430)
    assert sorted({clip.label for clip in clips}) == list(range(27))
    names = {clip.id for clip in clips}
    assert not {"a8_s1_t4", "a23_s6_t4", "a27_s8_t4"} & names
    one = next(clip for clip in clips if clip.id == "a13_s4_t2")
    assert (one.label, one.subject, one.trial) == (12, 4, 2)
    assert Path(one.video or "").name == "a13_s4_t2_color.mp4"


def test_joints_equal_an_independent_parse(utd_takes: Path) -> None:
    reader = UTDMHAD(utd_takes)
    for clip in reader.scan():
        values = loadmat(clip.skeleton)["d_skel"]
        joints = reader.read(clip).joints
        assert joints.dtype == np.float32 and joints.shape == (1, values.shape[2], 20, 3)
        for frame in range(0, values.shape[2], 7):
            for joint in range(20):
                for axis in range(3):
                    assert joints[0, frame, joint, axis] == np.float32(values[joint, axis, frame])


def test_joints_land_on_the_person(utd_takes: Path) -> None:
    """The dataset's depth pictures have a black background: a joint on a bright pixel is on the person."""
    reader = UTDMHAD(utd_takes)
    inside, on_person = [], []
    for clip in reader.scan()[::3]:
        points = reader.pixels(reader.read(clip).joints, 320, 240)[0]
        inside.append(((points >= 0) & (points < (320, 240))).all(-1).mean())
        with av.open(clip.video or "") as container:
            for frame, joints in zip(container.decode(video=0), points, strict=False):
                bright = frame.to_ndarray(format="rgb24").max(axis=-1) > 40
                u, v = joints.round().astype(int).clip(0, (319, 239)).T
                on_person.append(bright[v, u].mean())
    assert np.mean(inside) >= 0.95
    assert np.mean(on_person) >= 0.9


def test_projection_is_the_pinhole_formula() -> None:
    reader = object.__new__(UTDMHAD)
    joints = np.array([[[[0.5, -0.25, 2.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]]]], dtype=np.float32)
    depth, twice = reader.pixels(joints, 320, 240)[0, 0], reader.pixels(joints, 640, 480)[0, 0]
    assert depth[0] == pytest.approx([160 + 285.6 * 0.25, 120 + 285.6 * 0.125])
    assert depth[1] == pytest.approx([160, 120]) and np.isnan(depth[2]).all()
    assert twice[0] == pytest.approx([320 + 525 * 0.25, 240 + 525 * 0.125])


def test_stray_files_are_left_alone_and_both_video_names_found(tmp_path: Path) -> None:
    recordings.write_take(tmp_path, 2, 1)
    recordings.write_take(tmp_path, 3, 1)
    for stray in ("._a2_s1_t1_skeleton.mat", "a28_s1_t1_skeleton.mat", "notes.txt", "a2_s1_t1_inertial.mat"):
        (tmp_path / "Skeleton" / stray).write_text("?")
    (tmp_path / "Skeleton" / "old").mkdir()
    (tmp_path / "RGB").mkdir()
    (tmp_path / "RGB" / "a2_s1_t1_color.avi").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a3_s1_t1_color.mp4").touch()
    clips = UTDMHAD(tmp_path).scan()
    assert [(clip.id, Path(clip.video).name if clip.video else None) for clip in clips] == [
        ("a2_s1_t1", "a2_s1_t1_color.avi"),
        ("a3_s1_t1", None),
    ]
    clips = UTDMHAD(tmp_path, tmp_path / "elsewhere").scan()
    assert [clip.video is not None for clip in clips] == [False, True]


def test_a_wrong_root_says_what_was_meant(tmp_path: Path) -> None:
    recordings.write_take(tmp_path / "UTD", 1, 1)
    for wrong, hint in (
        (tmp_path / "UTD" / "Skeleton", f"give its parent, {tmp_path / 'UTD'}"),
        (tmp_path, f"did you mean {tmp_path / 'UTD'}"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "UTD" / "Skeleton" / "a1_s1_t1_skeleton.mat", "it is a file"),
    ):
        with pytest.raises(UserError, match="Skeleton") as error:
            UTDMHAD(wrong)
        assert hint in str(error.value)
    (tmp_path / "empty" / "Skeleton").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no aX_sY_tZ_skeleton\.mat"):
        UTDMHAD(tmp_path / "empty").scan()
    with pytest.raises(UserError, match="video folder"):
        UTDMHAD(tmp_path / "UTD", tmp_path / "no_videos")


def broken(path: Path, kind: str) -> None:
    """Break a good file."""
    good = path.read_bytes()
    joints = loadmat(path)["d_skel"]
    if kind == "cut":
        path.write_bytes(good[: len(good) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no matrix\n" * 50)
    elif kind == "variable":
        recordings.savemat(path, {"skeleton": joints})
    elif kind == "words":
        recordings.savemat(path, {"d_skel": "twenty joints"})
    else:
        if kind == "NaN":
            joints[3, 1, 4] = np.nan
        recordings.savemat(
            path, {"d_skel": {"19": joints[:19], "none": joints[:, :, :0], "0": 0 * joints}.get(kind, joints)}
        )


REASONS = {
    "cut": "not a readable MATLAB file",
    "empty": "not a readable MATLAB file",
    "text": "not a readable MATLAB file",
    "variable": "no variable 'd_skel'",
    "words": "expected numbers",
    "19": r"\(19, 3, 20\), expected numbers \(20, 3, frames\)",
    "NaN": "NaN coordinates in 1 of 20 frames",
    "none": "no frames|expected numbers",
    "0": "all coordinates are zero",
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_broken_file_is_a_bad_clip_with_its_reason(tmp_path: Path, kind: str) -> None:
    name = recordings.write_take(tmp_path, 1, 1)
    broken(tmp_path / "Skeleton" / f"{name}_skeleton.mat", kind)
    reader = UTDMHAD(tmp_path)
    with pytest.raises(BadClip, match=REASONS[kind]):
        check_joints(reader.read(reader.scan()[0]).joints, 20)


def test_a_take_of_one_frame_is_read(tmp_path: Path) -> None:
    recordings.write_skeleton(tmp_path, "a1_s1_t1", recordings.STANDING)
    reader = UTDMHAD(tmp_path)
    assert reader.read(reader.scan()[0]).joints.shape == (1, 1, 20, 3)
