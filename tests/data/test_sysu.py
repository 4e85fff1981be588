"""The SYSU 3D HOI reader, on real Kinect v1 sequences of NW-UCLA in SYSU's form: the same joints in the same order."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import check_joints
from mmcl.data.preparation.build import prepare
from mmcl.data.readers import READERS
from mmcl.data.readers.sysu import SYSUOptions

NAMES = ("Chen Wei", "Chen_Wei", "李雷")  # two of them the same once made safe


@pytest.fixture(scope="module")
def sequences(test_data: Path) -> list[np.ndarray]:
    """36 real sequences (T, 20, 3), one of a single frame."""
    with tarfile.open(test_data / "nw_ucla" / "all_sqe.tar.gz") as archive:
        found = [member for member in archive.getmembers() if member.name.endswith(".json")]
        parsed = [json.load(archive.extractfile(member) or pytest.fail()) for member in sorted(found, key=str)[::41]]
        arrays = [np.array(content["skeletons"]) for content in parsed[:35]]
    return [*arrays, arrays[3][:1]]


@pytest.fixture(scope="module")
def root(sequences: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people, twelve videos each."""
    root = tmp_path_factory.mktemp("sysu")
    for position, joints in enumerate(sequences):
        write(root, NAMES[position // 12], position % 12 + 1, joints)
    return root


def write(root: Path, subject: str, video: int, joints: np.ndarray, variable: str = "SW") -> Path:
    """Write joints (T, 20, 3) as (20, 3, T); one frame as (20, 3), since MATLAB drops a last axis of one."""
    path = root / "3DvideoNorm" / subject / f"video{video}" / "sklWorld.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = joints.transpose(1, 2, 0)
    savemat(path, {variable: values[:, :, 0] if values.shape[2:] == (1,) else values})
    return path


def test_the_store_holds_the_real_sequences(root: Path, sequences: list[np.ndarray], tmp_path: Path) -> None:
    store = prepare(READERS["sysu"](root), tmp_path / "out", workers=1, progress=False).store
    people = sorted(NAMES)
    assert len(store) == 36 and store.dataset == "sysu" and store.layout.name == "kinect_v1_20"
    assert min(store.frames) == 1
    for position, joints in enumerate(sequences):
        name, video = NAMES[position // 12], position % 12 + 1
        index = next(
            i for i in range(36) if (store.subjects[i], store.labels[i]) == (people.index(name) + 1, video - 1)
        )
        assert np.array_equal(store.joints(index), joints[None].astype(np.float32))
        assert store.ids[index].startswith(f"{name.replace(' ', '_')}_video{video}")
    assert len(set(store.ids)) == 36


def test_classes_are_those_of_the_video_numbers(root: Path) -> None:
    reader = READERS["sysu"](root)
    clips = {clip.id: clip for clip in reader.scan()}
    assert reader.class_names[clips["李雷_video1"].label] == "drinking"
    assert reader.class_names[clips["李雷_video12"].label] == "sweeping"
    assert len(reader.class_names) == 12 and list(clips) == sorted(clips)


def test_the_order_of_axes_can_be_given(root: Path, sequences: list[np.ndarray], tmp_path: Path) -> None:
    write(tmp_path, "A", 1, sequences[0][:, :, [2, 0, 1]])  # columns z, x, y
    reader = READERS["sysu"](tmp_path, options=SYSUOptions("zxy"))
    joints = reader.read(reader.scan()[0]).joints
    assert np.array_equal(joints, sequences[0][None].astype(np.float32)) and joints.flags.c_contiguous
    assert reader.options.axes == "zxy"  # `mmcl prepare` keeps it with the store
    for wrong in ("xy", "xyw", "XYZ", "xxyz", "", "x--yz", "xyz-"):
        with pytest.raises(UserError, match=f"axes '{wrong}'.*zxy"):
            READERS["sysu"](root, options=SYSUOptions(wrong))


def test_pictures_are_found_by_person_and_number(root: Path, tmp_path: Path) -> None:
    (tmp_path / "李雷" / "video2").mkdir(parents=True)
    (tmp_path / "李雷" / "video2" / "0001.jpg").touch()
    (tmp_path / "Chen Wei").mkdir()
    (tmp_path / "Chen Wei" / "video11.avi").touch()
    clips = {clip.id: clip.video for clip in READERS["sysu"](root, tmp_path).scan()}
    assert {name: path for name, path in clips.items() if path} == {
        "李雷_video2": str(tmp_path / "李雷" / "video2"),
        "Chen_Wei_video11": str(tmp_path / "Chen Wei" / "video11.avi"),
    }
    assert READERS["sysu"](root).pixels(np.ones((1, 1, 20, 3)), 640, 480) is None


def test_the_inner_folder_will_do_and_other_things_are_left_alone(tmp_path: Path) -> None:
    joints = np.random.default_rng(0).normal(size=(4, 20, 3))
    for video in (1, 12, 13, 0):
        write(tmp_path, "B", video, joints)
    (tmp_path / "3DvideoNorm" / "B" / "video2").mkdir()
    (tmp_path / "3DvideoNorm" / "B" / "videos3").mkdir()
    (tmp_path / "3DvideoNorm" / "readme.txt").touch()
    for root in (tmp_path, tmp_path / "3DvideoNorm"):
        assert [clip.id for clip in READERS["sysu"](root).scan()] == ["B_video1", "B_video12"]
    with pytest.raises(UserError, match="no such folder.*3DvideoNorm"):
        READERS["sysu"](tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no <subject>/video<1\.\.12>/sklWorld\.mat"):
        READERS["sysu"](tmp_path / "3DvideoNorm" / "B").scan()
    with pytest.raises(UserError, match="the video folder"):
        READERS["sysu"](tmp_path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("joints", "variable", "reason"),
    [
        (np.ones((5, 25, 3)), "SW", r"SW.*\(25, 3, 5\), expected numbers \(20, 3, frames\)"),
        (np.ones((5, 20, 3)), "d_skel", "no variable 'SW'"),
        (np.zeros((5, 20, 3)), "SW", "all coordinates are zero"),
        (np.full((5, 20, 3), np.nan), "SW", "NaN"),
        (np.ones((0, 20, 3)), "SW", "no frames"),
    ],
)
def test_a_bad_file_says_why(tmp_path: Path, joints: np.ndarray, variable: str, reason: str) -> None:
    write(tmp_path, "A", 1, joints, variable)
    reader = READERS["sysu"](tmp_path)
    with pytest.raises(BadClip, match=reason):
        check_joints(reader.read(reader.scan()[0]).joints, 20)
