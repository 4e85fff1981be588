"""Arrays of CTR-GCN's form: padding goes, numbers stay, and files larger than the memory are no trouble."""

from __future__ import annotations

import pickle
import resource
from pathlib import Path

import numpy as np
import pytest

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import ClipSource
from mmcl.data.preparation.build import prepare
from mmcl.data.readers import READERS, arrays

RNG = np.random.default_rng(0)


def rows(lengths: list[int], bodies: int = 2, joints: int = 25, frames: int = 300) -> np.ndarray:
    """(N, frames, bodies * joints * 3): clips of those lengths; the second body is there in every other clip."""
    x = np.zeros((len(lengths), frames, bodies, joints, 3), dtype=np.float32)
    for clip, length in enumerate(lengths):
        x[clip, :length] = RNG.normal(size=(length, bodies, joints, 3))
        if clip % 2:
            x[clip, :, 1:] = 0
    return x.reshape(len(lengths), frames, -1)


def one_hot(labels: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[labels]


@pytest.fixture
def made(tmp_path: Path) -> dict[str, np.ndarray]:
    """Arrays of ``tmp_path / "mine CS.npz"``."""
    content = {
        "x_train": rows([300, 1, 17, 80, 60]),
        "y_train": one_hot([0, 3, 2, 1, 0], 4),
        "x_test": rows([9, 33]),
        "y_test": one_hot([3, 1], 4),
    }
    content["x_train"][3, 20:30] = 0  # a gap in the middle is no padding
    np.savez(tmp_path / "mine CS.npz", **content)
    return content


def expected(row: np.ndarray) -> np.ndarray:
    """Joints of a row, number by number."""
    last = max(frame for frame in range(len(row)) if any(row[frame]))
    bodies = [body for body in (0, 1) if row[:, 75 * body : 75 * body + 75].any()]
    joints = np.zeros((len(bodies), last + 1, 25, 3), dtype=np.float32)
    for place, body in enumerate(bodies):
        for frame in range(last + 1):
            for number in range(75):
                joints[place, frame, number // 3, number % 3] = row[frame, 75 * body + number]
    return joints


def test_the_store_holds_the_rows_without_their_padding(made: dict[str, np.ndarray], tmp_path: Path) -> None:
    store = prepare(READERS["ctrgcn-npz"](tmp_path / "mine CS.npz"), tmp_path / "out", workers=2, progress=False).store
    assert store.ids == [f"test_{i:06d}" for i in range(2)] + [f"train_{i:06d}" for i in range(5)]
    assert (store.dataset, store.layout.name, store.fps) == ("mine_CS", "kinect_v2_25", 30)
    assert store.class_names == ["class 0", "class 1", "class 2", "class 3"]
    assert store.labels.tolist() == [3, 1, 0, 3, 2, 1, 0] and set(store.subjects) == {0}
    assert store.splits == [["test"]] * 2 + [["train"]] * 5
    for index, name in enumerate(store.ids):
        side, row = name.split("_")
        assert np.array_equal(store.joints(index), expected(made[f"x_{side}"][int(row)]))
    assert store.frames.tolist() == [9, 33, 300, 1, 17, 80, 60] and store.bodies.tolist() == [2, 1, 2, 1, 2, 1, 2]


def test_folder_and_compressed_file_hold_the_same(made: dict[str, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "unzipped").mkdir()
    for name, values in made.items():
        np.save(tmp_path / "unzipped" / f"{name}.npy", values)
    np.savez_compressed(tmp_path / "small.npz", **made)
    stored = READERS["ctrgcn-npz"](tmp_path / "mine CS.npz")
    for path in ("unzipped", "small.npz"):
        other = READERS["ctrgcn-npz"](tmp_path / path)
        for a, b in zip(stored.scan(), other.scan(), strict=True):
            assert (a.id, a.label, a.splits) == (b.id, b.label, b.splits)
            assert np.array_equal(stored.read(a).joints, other.read(b).joints)


def test_a_joint_without_coordinates_is_missing(made: dict[str, np.ndarray], tmp_path: Path) -> None:
    made["x_test"][0, 4, 7] = np.nan
    np.savez(tmp_path / "gaps.npz", **made)
    reader = READERS["ctrgcn-npz"](tmp_path / "gaps.npz")
    made["x_test"][0, 4, 6:9] = 0  # one of its three numbers was there alone
    assert np.array_equal(reader.read(reader.scan()[0]).joints, expected(made["x_test"][0]))


def test_real_recordings_come_back(test_data: Path, tmp_path: Path) -> None:
    x, truth = np.zeros((3, 300, 150), dtype=np.float32), []
    for position, path in enumerate(sorted((test_data / "ntu" / "skeleton").glob("*.skeleton"))):
        lines = iter(path.read_text().split("\n"))
        bodies: dict[str, dict[int, list[list[float]]]] = {}
        frames = int(next(lines))
        for frame in range(frames):
            for _ in range(int(next(lines))):
                body = next(lines).split()[0]
                joints = [[float(v) for v in next(lines).split()[:3]] for _ in range(int(next(lines)))]
                bodies.setdefault(body, {})[frame] = joints
        chosen = sorted(bodies.values(), key=len, reverse=True)[:2]
        clip = np.zeros((len(chosen), frames, 25, 3), dtype=np.float32)
        for place, seen in enumerate(chosen):
            for frame, joints in seen.items():
                clip[place, frame] = x[position, frame].reshape(2, 25, 3)[place] = joints
        truth.append(clip)
    np.savez(tmp_path / "NTU60_CS.npz", x_train=x, y_train=one_hot([0, 1, 57], 60))
    reader = READERS["ctrgcn-npz"](tmp_path / "NTU60_CS.npz")
    assert reader.dataset == "ntu60" and len(reader.class_names) == 60 and reader.class_names[0] == "drink water"
    for clip, source in zip(truth, reader.scan(), strict=True):
        assert np.array_equal(reader.read(source).joints, clip)


@pytest.mark.parametrize(
    ("width", "classes", "dataset", "layout", "bodies"),
    [
        (150, 120, "ntu120", "kinect_v2_25", 2),
        (75, 60, "ntu60", "kinect_v2_25", 1),
        (60, 60, "x", "kinect_v1_20", 1),
        (120, 10, "x", "kinect_v1_20", 2),
    ],
)
def test_layout_and_dataset_follow_from_the_numbers(
    tmp_path: Path, width: int, classes: int, dataset: str, layout: str, bodies: int
) -> None:
    x = RNG.normal(size=(3, 12, width))
    np.savez(tmp_path / "x.npz", x_test=x, y_test=np.array([0, classes - 1, 4]))  # labels need not be one-hot
    reader = READERS["ctrgcn-npz"](tmp_path / "x.npz")
    assert (reader.dataset, reader.layout, len(reader.class_names)) == (dataset, layout, classes)
    clip = reader.scan()[1]
    joints = reader.read(clip).joints
    assert (
        clip.label == classes - 1
        and joints.dtype == np.float32
        and joints.shape == (bodies, 12, width // bodies // 3, 3)
    )
    assert np.array_equal(joints[-1, 5].ravel(), x[1, 5].astype(np.float32)[-width // bodies :])


def test_a_file_larger_than_the_memory_is_read_where_it_lies(tmp_path: Path) -> None:
    """20,000 clips, 3.6 GB, of which the disk holds what was written."""
    x = np.lib.format.open_memmap(tmp_path / "x_train.npy", "w+", np.float32, (20_000, 300, 150))
    x[19_999, :3] = 7
    np.save(tmp_path / "y_train.npy", np.arange(20_000) % 5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader = READERS["ctrgcn-npz"](tmp_path)
    clips = reader.scan()
    assert (reader.read(clips[-1]).joints == 7).all() and len(clips) == 20_000
    with pytest.raises(BadClip, match="nothing but padding"):
        reader.read(clips[0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert len(pickle.dumps(reader)) < 10_000  # worker processes map the file themselves


def test_what_is_stored_is_mapped_and_what_is_large_and_compressed_refused(
    made: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(isinstance(array, np.memmap) for array in arrays.open_arrays(tmp_path / "mine CS.npz").values())
    np.savez_compressed(tmp_path / "large.npz", **made)
    monkeypatch.setattr(arrays, "UNPACKED_LIMIT", 1 << 20)
    READERS["ctrgcn-npz"](tmp_path / "mine CS.npz")
    with pytest.raises(UserError, match=r"large\.npz: compressed.*`unzip` it and give the folder"):
        READERS["ctrgcn-npz"](tmp_path / "large.npz")


BAD = {
    "no such array": ({"data": np.ones(3)}, "holds data; expected x_train, y_train"),
    "no labels": ({"x_train": rows([5])}, "y_train is missing"),
    "too few labels": ({"x_train": rows([5, 5]), "y_train": one_hot([0], 2)}, r"y_train is float64 \(1, 2\)"),
    "another shape": ({"x_train": np.ones((2, 3, 300, 25, 2)), "y_train": np.ones(2)}, "expected floats"),
    "another width": ({"x_train": np.ones((2, 9, 151)), "y_train": np.ones(2)}, r"frames of \[151\] numbers"),
    "two widths": (
        {"x_train": np.ones((1, 9, 150)), "y_train": np.ones(1), "x_test": np.ones((1, 9, 75)), "y_test": np.ones(1)},
        r"frames of \[75, 150\]",
    ),
    "two class lists": (
        {"x_train": rows([5]), "y_train": one_hot([0], 60), "x_test": rows([5]), "y_test": one_hot([0], 49)},
        r"labels of \[49, 60\] classes",
    ),
    "whole numbers": ({"x_train": np.ones((1, 9, 150), dtype=int), "y_train": np.ones(1)}, "expected floats"),
    "objects": ({"x_train": np.array([[[None]]]), "y_train": np.ones(1)}, "holds objects, not numbers"),
    "no frames": ({"x_train": np.ones((1, 0, 150)), "y_train": np.ones(1)}, "expected floats"),
    "no clips": ({"x_train": np.ones((0, 9, 150)), "y_train": np.ones((0, 4))}, "no clips"),
}


@pytest.mark.parametrize("kind", BAD)
def test_other_arrays_are_refused_in_words(tmp_path: Path, kind: str) -> None:
    content, reason = BAD[kind]
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(UserError, match=reason):
        READERS["ctrgcn-npz"](tmp_path / "x.npz").scan()


def test_a_row_that_says_no_class_costs_itself(tmp_path: Path) -> None:
    y = one_hot([0, 1, 2, 0], 3)
    y[1, 0], y[2] = 1, 0
    np.savez(tmp_path / "x.npz", x_train=rows([5] * 4), y_train=y)
    reader = READERS["ctrgcn-npz"](tmp_path / "x.npz")

    def usable(clip: ClipSource) -> bool:
        try:
            return reader.read(clip).joints.any()
        except BadClip as error:
            assert "does not say one class" in str(error)
            return False

    assert [usable(clip) for clip in reader.scan()] == [True, False, False, True]


def test_labels_in_a_column_are_numbers_and_sides_of_other_names_are_said(tmp_path: Path, capsys) -> None:
    y = np.array([[0], [1], [2], [1]])
    np.savez(tmp_path / "x.npz", x_train=rows([5] * 4), y_train=y, x_val=rows([5]), y_val=y[:1])
    reader = READERS["ctrgcn-npz"](tmp_path / "x.npz")
    assert [clip.label for clip in reader.scan()] == [0, 1, 2, 1] and len(reader.class_names) == 3
    assert "x_val, y_val are not read" in capsys.readouterr().err


def test_a_missing_file_and_a_video_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        READERS["ctrgcn-npz"](tmp_path / "x.npz")
    with pytest.raises(UserError, match="holds no array"):
        READERS["ctrgcn-npz"](tmp_path)
    with pytest.raises(UserError, match="leave --video out"):
        READERS["ctrgcn-npz"](tmp_path, tmp_path)
