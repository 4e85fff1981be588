"""Pickles of PYSKL's and MMAction2's form, in space and in the plane."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import check_joints
from mmcl.data.preparation.build import prepare
from mmcl.data.readers import READERS
from mmcl.data.readers.pyskl import PySKLOptions

RNG = np.random.default_rng(0)


def annotation(name: str, label: int, joints: int = 25, channels: int = 3, bodies: int = 1, frames: int = 9) -> Any:
    keypoint = RNG.normal(size=(bodies, frames, joints, channels)).astype(np.float16)
    entry = {"frame_dir": name, "label": label, "total_frames": frames, "keypoint": keypoint}
    if channels == 2:
        entry["keypoint"] = (RNG.random((bodies, frames, joints, 2)) * (640, 480)).astype(np.float16)
        entry["keypoint_score"] = RNG.random((bodies, frames, joints)).astype(np.float16)
        entry["img_shape"] = entry["original_shape"] = (480, 640)
    return entry


def write(folder: Path, content: Any, name: str = "mine.pkl", protocol: int = 2) -> Path:
    """Write a pickle as `mmcv.dump` does, by protocol 2 unless told otherwise."""
    (folder / name).write_bytes(pickle.dumps(content, protocol))
    return folder / name


def ntu(setup: int, camera: int, person: int, action: int) -> str:
    return f"S{setup:03d}C{camera:03d}P{person:03d}R002A{action:03d}"


def test_the_store_holds_the_arrays_and_the_lists(tmp_path: Path) -> None:
    entries = [annotation(ntu(1 + i % 3, 1 + i % 2, i, 1 + i), i, bodies=1 + i % 2) for i in range(8)]
    entries[3]["keypoint"][1] = 0  # the second body is not there
    entries[5]["keypoint"][0, 4, 7] = 0
    split = {"xsub_train": [entry["frame_dir"] for entry in entries[:5]], "xsub_val": {entries[6]["frame_dir"]}}
    split["xview_train"] = [entries[0]["frame_dir"], "S001C001P001R001A001"]
    reader = READERS["pyskl"](write(tmp_path, {"split": split, "annotations": entries}))
    store = prepare(reader, tmp_path / "out", workers=2, progress=False).store
    assert (store.dataset, store.layout.name, len(store.class_names)) == ("ntu60", "kinect_v2_25", 60)
    for entry in entries:
        index, name = store.ids.index(entry["frame_dir"]), entry["frame_dir"]
        bodies = [body for body in entry["keypoint"] if body.any()]
        assert np.array_equal(store.joints(index), np.array(bodies, dtype=np.float32))
        facts = store.setups[index], store.cameras[index], store.subjects[index], store.trials[index]
        assert facts == (int(name[1:4]), int(name[5:8]), int(name[9:12]), 2)
        assert store.labels[index] == entry["label"] == int(name[-3:]) - 1
        assert store.splits[index] == [listed for listed, names in split.items() if name in names]


def test_joints_in_pixels_are_put_into_the_plane(tmp_path: Path) -> None:
    entries = [annotation(f"v_Archery_g01_c{i:02d}", i % 2, 17, 2, bodies=1 + i % 3) for i in range(4)]
    entries[0]["keypoint_score"][0, 2, 5] = 0
    entries[1]["keypoint"][1, 3, 3] = 0
    entries[1]["keypoint_score"][0] = 0
    entries[2]["keypoint"][2, 0, 0] = (320, 240)  # the very middle
    reader = READERS["pyskl"](write(tmp_path, {"split": {"train1": []}, "annotations": entries}, protocol=4))
    assert (reader.dataset, reader.layout, reader.class_names) == ("mine", "coco_17", ["class 0", "class 1"])
    for entry, source in zip(entries, reader.scan(), strict=True):
        raw = pickle.loads(pickle.dumps(reader)).read(pickle.loads(pickle.dumps(source)))  # as in a worker process
        assert raw.picture == (640, 480) and source.subject == 0 and raw.pixels is not None
        there = [body for body in range(len(entry["keypoint"])) if entry["keypoint_score"][body].any()]
        assert len(raw.joints) == len(raw.pixels) == len(there)
        for place, body in enumerate(there):
            for frame, joint in np.ndindex(9, 17):
                u, v = (float(value) for value in entry["keypoint"][body, frame, joint])
                x, y = raw.joints[place, frame, joint]
                sure = raw.confidence[place, frame, joint]
                if entry["keypoint_score"][body, frame, joint] == 0 or (u, v) == (0, 0):
                    assert (x, y, sure) == (0, 0, 0) and np.isnan(raw.pixels[place, frame, joint]).all()
                    continue
                assert (x, y) == pytest.approx(((u - 320) / 240, (240 - v) / 240), abs=2e-6)
                assert sure == entry["keypoint_score"][body, frame, joint]
                assert (x, y) != (0, 0) and tuple(raw.pixels[place, frame, joint]) == (u, v)


def test_real_recordings_come_back(test_data: Path, tmp_path: Path) -> None:
    paths = sorted((test_data / "utd_mhad" / "Skeleton").glob("a*_s2_t1_skeleton.mat"))
    arrays = [loadmat(path)["d_skel"].transpose(2, 0, 1)[None] for path in paths]
    entries = [
        {"frame_dir": path.stem, "label": i, "keypoint": joints, "total_frames": joints.shape[1]}
        for i, (path, joints) in enumerate(zip(paths, arrays, strict=True))
    ]
    reader = READERS["pyskl"](write(tmp_path, entries), options=PySKLOptions("utd_mhad_20"))
    clips = {clip.id: clip for clip in reader.scan()}
    assert len(clips) == 27 and len(reader.class_names) == 27
    for path, joints in zip(paths, arrays, strict=True):
        assert np.array_equal(reader.read(clips[path.stem]).joints, joints.astype(np.float32))


def test_the_layout_follows_from_the_joints_or_is_asked_for(tmp_path: Path) -> None:
    for joints, layout in ((17, "coco_17"), (25, "kinect_v2_25"), (133, "coco_wholebody_133")):
        assert READERS["pyskl"](write(tmp_path, [annotation("a", 0, joints)])).layout == layout
    path = write(tmp_path, [annotation("a", 0, 21)])
    with pytest.raises(UserError, match=r"21 joints.*--layout NAME \(.*coco_17.*or your own layout file"):
        READERS["pyskl"](path)
    (tmp_path / "hand.yaml").write_text("joints: [a, b]\nparents: {b: a}\n")
    reader = READERS["pyskl"](path, options=PySKLOptions(str(tmp_path / "hand.yaml")))
    with pytest.raises(BadClip, match="21 joints, expected 2"):
        reader.read(reader.scan()[0])


def test_names_decide_between_the_two_ntu(tmp_path: Path) -> None:
    entries = [annotation(ntu(18, 1, 41, 61), 60), annotation(ntu(1, 1, 1, 1), 0)]
    reader = READERS["pyskl"](write(tmp_path, entries))
    assert (reader.dataset, reader.title, len(reader.class_names)) == ("ntu120", "NTU RGB+D 120", 120)
    entries.append(annotation("me_at_home", 0))
    reader = READERS["pyskl"](write(tmp_path, entries, "my clips.pkl"))
    assert (reader.dataset, len(reader.class_names)) == ("my_clips", 61)
    assert {clip.subject for clip in reader.scan()} == {0}


def test_classes_numbered_anew_are_not_named_after_ntu(tmp_path: Path) -> None:
    entries = [annotation(ntu(1, 2, 3, 50), 0), annotation(ntu(17, 1, 1, 55), 1), annotation(ntu(1, 1, 4, 50), 0)]
    reader = READERS["pyskl"](write(tmp_path, entries, "pairs.pkl"))
    assert (reader.dataset, reader.title, reader.class_names) == ("pairs", "pairs", ["class 0", "class 1"])
    clip = reader.scan()[1]
    assert (clip.id, clip.subject, clip.camera, clip.setup) == (ntu(1, 2, 3, 50), 3, 2, 1)  # these, the names still say
    for setup, dataset in ((17, "ntu60"), (18, "ntu120")):
        entries = [
            annotation(ntu(1, 2, 3, 50), 49),
            annotation(ntu(setup, 1, 1, 55), 54),
            annotation(ntu(1, 1, 1, 9), -1),
        ]
        reader = READERS["pyskl"](write(tmp_path, entries, "pairs.pkl"))
        assert (reader.dataset, len(reader.class_names)) == (dataset, int(dataset[3:]))


def test_videos_are_found_by_name(tmp_path: Path) -> None:
    for name in (f"{ntu(1, 1, 1, 1)}_rgb.avi", f"{ntu(1, 1, 2, 1)}.mp4"):
        (tmp_path / name).touch()
    entries = [annotation(name, 0) for name in (ntu(1, 1, 1, 1), f"data/{ntu(1, 1, 2, 1)}", ntu(1, 1, 3, 1))]
    clips = READERS["pyskl"](write(tmp_path, entries), tmp_path).scan()
    assert [clip.id for clip in clips] == [ntu(1, 1, person, 1) for person in (1, 2, 3)]
    assert [clip.video and Path(clip.video).name[20:] for clip in clips] == ["_rgb.avi", ".mp4", None]
    with pytest.raises(UserError, match="the video folder"):
        READERS["pyskl"](tmp_path / "mine.pkl", tmp_path / "nowhere")


def spoilt(**changes: Any) -> dict[str, Any]:
    entry = annotation("bad", 1, 17, 2) | changes
    return {key: value for key, value in entry.items() if value is not ...}


BAD = [
    (None, "the annotation is a NoneType"),
    (spoilt(label=...), "no 'label'"),
    (spoilt(label=-1), "no 'label'"),
    (spoilt(label=10**9), "no 'label'"),
    (spoilt(label="one"), "no 'label'"),
    (spoilt(keypoint=...), "no array 'keypoint'"),
    (spoilt(keypoint=..., raw_file="k400/x.pkl"), "a file of its own, 'raw_file'"),
    (spoilt(keypoint=[[[[1.0, 2.0]]]]), "no array 'keypoint'"),
    (spoilt(keypoint=np.zeros((9, 34, 5))), r"numbers of shape \(9, 34, 5\), expected \(persons, frames, 17 joints"),
    (spoilt(keypoint=np.zeros((1, 9, 17, 4))), "4 numbers a joint, expected 2 or 3"),
    (spoilt(keypoint=np.full((1, 9, 17, 2), "1")), "'keypoint' holds <U1"),
    (spoilt(keypoint=np.ones((1, 9, 25, 2))), "25 joints, expected 17"),
    (spoilt(keypoint=np.ones((7, 9, 17, 2))), r"scores of shape \(1, 9, 17\)"),
    (spoilt(keypoint=np.ones((0, 9, 17, 2)), keypoint_score=...), "no body"),
    (spoilt(keypoint=np.ones((1, 0, 17, 2)), keypoint_score=...), "no frames"),
    (spoilt(keypoint=np.zeros((1, 9, 17, 2))), "all coordinates are zero"),
    (spoilt(keypoint=np.full((1, 9, 17, 2), np.nan)), "all coordinates are zero"),
    (spoilt(keypoint=np.full((1, 9, 17, 2), np.inf)), "infinite"),
    (spoilt(keypoint=np.full((1, 9, 17, 2), 1e300)), "infinite"),
    (spoilt(keypoint_score="sure"), "'keypoint_score' is not an array"),
    (spoilt(img_shape=..., original_shape=...), "need the picture's 'img_shape'"),
    (spoilt(img_shape=(0, 0), original_shape="large"), "need the picture's 'img_shape'"),
    (spoilt(img_shape=(np.nan, 4), original_shape=()), "need the picture's 'img_shape'"),
]


def test_a_bad_annotation_costs_itself(tmp_path: Path) -> None:
    good = annotation("good", 0, 17, 2, bodies=7) | {"total_frames": 10**9, "img_shape": np.array([480, 640])}
    for entry, reason in BAD:
        reader = READERS["pyskl"](
            write(tmp_path, {"split": 3, "annotations": [entry, good, good | {"frame_dir": "also"}]})
        )
        clips = {clip.id: clip for clip in reader.scan()}
        assert reader.read(clips.pop("good")).joints.shape == (7, 9, 17, 2)
        del clips["also"]
        with pytest.raises(BadClip, match=reason):
            check_joints(reader.read(clips.popitem()[1]).joints, 17, reader.dimensions)


def test_ids_are_unique_and_safe(tmp_path: Path) -> None:
    names = ["a/b", "a b", "a\nb", "a\ud800b", "", 5]
    clips = READERS["pyskl"](write(tmp_path, [annotation(name, 0) for name in names])).scan()
    assert [clip.id for clip in clips] == ["5", "a_b", "a_b-2", "a_b-3", "a_b-4", "annotation_000004"]


NAMED = {
    "arrays": (("a", "b"), {"train": np.array(["a"]), "test": np.array(["b"])}),
    "numbers": ((1, 2), {"train": [1], "test": (np.int64(2),)}),
    "bytes": ((b"a", b"b"), {b"train": [b"a"], "test": {b"b"}}),
    "nested": (("a", "b"), {"x": {"train": ["a"], "test": ["b"]}}),
}


@pytest.mark.parametrize("kind", NAMED)
def test_names_and_lists_of_other_types(tmp_path: Path, kind: str) -> None:
    names, split = NAMED[kind]
    path = write(tmp_path, {"split": split, "annotations": [annotation(name, 0) for name in names]})
    found = {clip.id: clip.splits for clip in READERS["pyskl"](path).scan()}
    inner = "x_" * (kind == "nested")
    assert list(found.values()) == [(f"{inner}train",), (f"{inner}test",)]
    assert list(found) == [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def test_lists_that_cannot_be_read_are_said(tmp_path: Path, capsys) -> None:
    split = {"train": ["a", 0.5], "test": "b", "more": np.zeros((2, 2))}
    reader = READERS["pyskl"](write(tmp_path, {"split": split, "annotations": [annotation("a", 0)]}))
    assert [clip.splits for clip in reader.scan()] == [("train",)]
    assert "not read: train, test, more in 'split'" in capsys.readouterr().err


def test_pixels_with_a_score_as_third_number_may_have_gaps(tmp_path: Path) -> None:
    flat = annotation("a", 0, joints=17, channels=2)
    entry = {key: value for key, value in flat.items() if key != "keypoint_score"}
    entry["keypoint"] = np.concatenate([flat["keypoint"], flat["keypoint_score"][..., None]], axis=-1)
    entry["keypoint"][0, 3, 5] = np.nan
    reader = READERS["pyskl"](write(tmp_path, [entry]))
    (clip,) = reader.scan()
    raw = reader.read(clip)
    assert raw.joints.shape == (1, 9, 17, 2) and raw.confidence[0, 3, 5] == 0
    kept = np.delete(raw.confidence.reshape(-1), 3 * 17 + 5)
    np.testing.assert_array_equal(kept, np.delete(flat["keypoint_score"].astype(np.float32).reshape(-1), 3 * 17 + 5))


ORDERS = {"T M V C": (1, 0, 2, 3), "C T V M": (3, 1, 2, 0), "T V C": (1, 2, 3), "M T V C, score M T V 1": (0, 1, 2, 3)}


@pytest.mark.parametrize("name", ORDERS)
def test_scores_come_along_in_whatever_order_the_keypoints_have(tmp_path: Path, name: str) -> None:
    axes = ORDERS[name]
    flat = annotation("a", 0, joints=17, channels=2, bodies=4 if 0 in axes else 1)
    points, score = (part if 0 in axes else part[0] for part in (flat["keypoint"], flat["keypoint_score"][..., None]))
    axes = tuple(axis - (0 not in axes) for axis in axes)
    points, score = points.transpose(axes), score.transpose(axes)
    score = score if "score" in name else score.squeeze(score.shape.index(1))
    entry = flat | {"keypoint": points, "keypoint_score": score}
    reader = READERS["pyskl"](write(tmp_path, [entry]), options=PySKLOptions(layout="coco_17"))
    (clip,) = reader.scan()
    expected = READERS["pyskl"](write(tmp_path, [flat], "plain.pkl"))
    np.testing.assert_array_equal(reader.read(clip).confidence, expected.read(expected.scan()[0]).confidence)
    np.testing.assert_array_equal(reader.read(clip).joints, expected.read(expected.scan()[0]).joints)


@pytest.mark.parametrize("content", [[], {}, {"annotations": {}}, "abc", None, [1, 2], {"annotations": [None]}])
def test_another_pickle_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="no list of annotations"):
        READERS["pyskl"](write(tmp_path, content))
    with pytest.raises(UserError, match="no 'keypoint' of shape"):
        READERS["pyskl"](write(tmp_path, [{"frame_dir": "a"}]))
