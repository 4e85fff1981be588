"""What people and their tools write: labels as pandas has them, paths of Windows, letters of macOS, lists of others."""

from __future__ import annotations

import pickle
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from mmcl.common.errors import BadClip, UserError
from mmcl.data.inspection.checks import check
from mmcl.data.location import Mirror, locate
from mmcl.data.preparation.build import prepare
from mmcl.data.prompts import class_names
from mmcl.data.readers.clip_list import ClipList
from mmcl.data.readers.folder import Folder
from mmcl.data.readers.folder_options import FolderOptions
from mmcl.data.readers.naming import alike, spelling
from mmcl.data.readers.pyskl import PySKL

PERSON = np.random.default_rng(0).normal(size=(9, 20, 3)).astype(np.float32)


def listed(folder: Path, labels: list[str], classes: str | None = None) -> ClipList:
    folder.mkdir(exist_ok=True)
    lines = ["id,label", *(f"c{n},{label}" for n, label in enumerate(labels))]
    (folder / "clips.csv").write_text("\n".join(lines), encoding="utf-8")
    if classes is not None:
        (folder / "classes.txt").write_text(classes, encoding="utf-8")
    return ClipList(folder)


@pytest.mark.parametrize(
    ("labels", "classes", "names", "expected"),
    [
        (["2.0", "0.0", "1.0"], None, ["class 0", "class 1", "class 2"], [2, 0, 1]),
        (["2.0", "0", "1.00"], "a\nb\nc", ["a", "b", "c"], [2, 0, 1]),
        (["Wave", "KICK", "wave "], "wave\nkick", ["wave", "kick"], [0, 1, 0]),
        (["wave", "Wave"], None, ["Wave", "wave"], [1, 0]),
        (["Wave", "wave"], "wave\nWave", ["wave", "Wave"], [1, 0]),
        (["kick", "wave"], "0 wave\n1, kick", ["wave", "kick"], [1, 0]),
        (["0", "1"], "0: wave\n1: kick", ["wave", "kick"], [0, 1]),
        ([unicodedata.normalize("NFD", "grüßen")], unicodedata.normalize("NFC", "grüßen"), ["grüßen"], [0]),
        (["3D walk", "walk"], "walk\n3D walk", ["walk", "3D walk"], [1, 0]),
    ],
)
def test_labels(tmp_path: Path, labels: list[str], classes: str | None, names: list[str], expected: list[int]) -> None:
    found = listed(tmp_path, labels, classes)
    assert found.class_names == names and found.labels == expected


def test_numbers_of_classes_that_do_not_count_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not from 0 upwards"):
        listed(tmp_path, ["wave"], "1 wave\n2 kick")
    with pytest.raises(UserError, match="none of the 2 lines"):
        listed(tmp_path, ["jump"], "wave\nkick")
    assert spelling(" Large\u00a0 Größe") == spelling("large GRÖSSE")


def test_classes_that_are_one_to_a_reader_are_told_from_classes_that_are_not() -> None:
    spelled = ["0 wave", "wa ve", "wa-ve", "wa_ve", "w\u00e0ve", "wave", "wave\u200b"]
    different = [
        "3D walk",
        "walk",
        "a01",
        "a02",
        "1",
        "2",
        "-1",
        "01",
        "1 hand",
        "2 hand",
        "clap 1.5",
        "clap 15",
        "class 1",
    ]
    turns = ["draw circle clockwise", "draw circle counter clockwise", "draw x", "draw +", "+", "-"]
    assert alike([*spelled, *different, *turns]) == [sorted(spelled)] and alike(["\uff11", "1"]) == [["1", "\uff11"]]
    for dataset in ("utd_mhad", "nw_ucla", "ntu60", "ntu120", "sysu"):
        assert alike(class_names(dataset)) == []


def test_paths_of_windows_and_names_of_macos_are_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    decomposed = unicodedata.normalize("NFD", "größe")
    np.save(tmp_path / "a" / "x.npy", PERSON)
    np.save(tmp_path / f"{decomposed}.npy", PERSON)
    lines = ["id,label,file", "one,0,a\\x.npy", "two,0,größe.npy", "three,0,a\\nothing.npy", "größe,0,"]
    (tmp_path / "clips.csv").write_text("\n".join(lines), encoding="utf-8")
    reader = Folder(tmp_path, options=FolderOptions("kinect_v1_20"))
    clips = {clip.id: clip for clip in reader.scan()}
    for name in ("one", "two", "größe"):
        np.testing.assert_array_equal(reader.read(clips[name]).joints[0], PERSON)
    with pytest.raises(BadClip, match=r"there is no file .*a\\nothing\.npy \(Windows' backslashes"):
        reader.read(clips["three"])


def test_a_folder_may_be_called_like_a_url(tmp_path: Path) -> None:
    (tmp_path / "x::y").mkdir()
    assert not isinstance(locate(str(tmp_path / "x::y")), Mirror) and locate(str(tmp_path / "x::y")).path.is_dir()


def test_names_on_lists_that_no_clip_has_are_counted(tmp_path: Path) -> None:
    joints = np.abs(np.random.default_rng(0).normal(size=(1, 9, 25, 3))).astype(np.float32)
    entries = [{"frame_dir": f"v{n:02d}", "label": n % 2, "total_frames": 9, "keypoint": joints + n} for n in range(4)]
    lists = {"train": ["v00", "v01", "v02.mp4", "w"], "val": ["v03"]}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"split": lists, "annotations": entries}))
    reader = PySKL(tmp_path / "x.pkl")
    assert reader.unmatched == {"train": ["v02.mp4", "w"]}
    summary = prepare(reader, tmp_path / "out", workers=1, progress=False)
    words = "2 names on the list train are those of no clip (v02.mp4, w; clips are called v00, v01, …)"
    assert f"warning: {words}" in str(summary)
    assert words in [finding.what for finding in check(summary.store, progress=False).findings]


def test_class_names_that_are_one_to_a_reader_are_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        np.save(tmp_path / f"{name}.npy", PERSON * (1 + 0.1 * ord(name)))
    (tmp_path / "clips.csv").write_text("id,label\na,Wave\nb,wave\nc,kick\n")
    reader = Folder(tmp_path, options=FolderOptions("kinect_v1_20"))
    store = prepare(reader, tmp_path / "out", workers=1, progress=False).store
    found = [finding for finding in check(store, progress=False).findings if "differ in case" in finding.what]
    assert len(found) == 1 and found[0].names == ["Wave", "wave"]
