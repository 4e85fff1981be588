"""New recordings of one's own under a model that exists already: test clips alone, some classes, people by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from own_clips import LAYOUT, RNG, listed, person, write

from mmcl.check import main as check
from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.folder import Folder
from mmcl.data.readers.folder_options import FolderOptions
from mmcl.data.rules import Protocol
from mmcl.data.store import ClipStore, open_store
from mmcl.encoders.building import build_encoder
from mmcl.evaluate import main as evaluate
from mmcl.models.bundle import describe, load_bundle, write_bundle
from mmcl.models.model import Model
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

CLASSES = ["bow", "jump", "wave"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """An untrained model of three classes."""
    folder = tmp_path_factory.mktemp("model") / "bundle"
    folder.mkdir()
    layout = load_layout(LAYOUT)
    encoder = build_encoder("ctrgcn", layout, len(CLASSES), {"width": 8, "depth": 3, "persons": 1}).eval()
    preprocess = Preprocess(layout, layout, 1, PreprocessOptions(window=16))
    write_bundle(folder, Model(describe("ctrgcn", encoder, preprocess, CLASSES), encoder, preprocess))
    return folder


def store_of(tmp_path: Path, *lines: str, header: str = "id,label,split") -> ClipStore:
    """A store of one clip a line, of a person a few metres from the sensor who walks about."""
    for line in lines:
        joints = RNG.normal(size=(1, 1, 20, 3)) * 0.3 + np.cumsum(RNG.normal(size=(1, 12, 1, 3)) * 0.05, axis=1) + 3.0
        write(tmp_path / "in" / f"{line.partition(',')[0]}.npy", joints)
    reader = Folder(listed(tmp_path / "in", *lines, header=header), options=FolderOptions(layout=LAYOUT, name="mine"))
    return prepare(reader, tmp_path / "store", workers=1, progress=False).store


def test_test_clips_of_some_classes_are_judged_among_all_of_the_model(bundle, tmp_path, capsys) -> None:
    store = store_of(tmp_path, "a,wave,test", "b,bow,test", "c,wave,test")
    words = ["--checkpoint", str(bundle), "--data", str(store.path), "--protocol", "own/split"]
    assert evaluate([*words, "--out", str(tmp_path / "report")]) == 0
    assert "shows 2 of the 3 classes" in capsys.readouterr().err
    scores = np.load(tmp_path / "report" / "scores.npz")
    assert scores["class_names"].tolist() == CLASSES and scores["labels"].tolist() == [2, 0, 2]
    model = load_bundle(bundle)
    right = 0
    for name, label in zip("abc", (2, 0, 2), strict=True):
        joints = torch.from_numpy(store.joints(store.ids.index(name)).copy())[None]
        right += int(model(joints).argmax() == label)
    assert json.loads((tmp_path / "report" / "report.json").read_text())["correct"] == right
    with pytest.raises(UserError, match="finds no train clip.*the lists they are in: test"):
        split(store, Protocol("x", "mine", {"split": ["train"]}, {"split": ["test"]}))
    with pytest.raises(UserError, match="finds no train clip"):
        evaluate([*words, "--split", "train"])


def test_a_class_that_the_model_does_not_know_is_foreign(bundle, tmp_path) -> None:
    store = store_of(tmp_path, "a,wave,test", "b,dive,test")
    with pytest.raises(UserError, match="knows 3 classes, and not all 2 of own/split"):
        evaluate(["--checkpoint", str(bundle), "--data", str(store.path), "--protocol", "own/split"])


def test_people_have_the_names_of_the_list(tmp_path) -> None:
    lines = [f"{name}_{label},{label},{name}" for name in ("P10", "P2", "P1") for label in ("bow", "wave")]
    store = store_of(tmp_path, *lines, header="id,label,subject")
    assert store.subject_names == {"P1": 1, "P2": 2, "P10": 3} == open_store(store.path).subject_names
    sides = split(store, Protocol("x", "mine", {"subject": ["P2", 1]}, {"subject": ["P10"]}), {"subject": ["P2"]})
    assert [[store.ids[clip][:-4].rstrip("_") for clip in side] for side in (sides.train, sides.validation)] == [
        ["P1", "P1"], ["P2", "P2"]
    ]  # fmt: skip
    assert {store.ids[clip].partition("_")[0] for clip in sides.test} == {"P10"}
    with pytest.raises(UserError, match="no subject 'P3': give one of P1, P2, P10"):
        split(store, Protocol("x", "mine", {"subject": ["P3"]}, {"subject": ["P1"]}))


def test_people_with_numbers_keep_them_whoever_else_there_is(tmp_path) -> None:
    lines = [f"{number},{number % 2},{name}" for number, name in enumerate(("1.0", "3", "guest", "", "Ann"))]
    reader = Folder(listed(tmp_path / "mixed", *lines, header="id,label,subject"), options=FolderOptions(layout=LAYOUT))
    assert [clip.subject for clip in reader.scan()] == [1, 3, 5, 0, 4]
    assert reader.subject_names == {"Ann": 4, "guest": 5}
    lines = [f"{number},{number % 2},{number}.0" for number in range(8)]  # as pandas writes a column with a gap
    root = listed(tmp_path / "pandas", *lines, header="id,label,subject")
    clips = Folder(root, options=FolderOptions(layout=LAYOUT)).scan()
    assert [clip.subject for clip in clips] == list(range(8))


def test_people_who_are_renamed_make_another_store(tmp_path) -> None:
    lines = ["a,0,guest", "b,1,guest"]
    store_of(tmp_path, *lines, header="id,label,subject")
    with pytest.raises(UserError, match="another store .different people"):
        store_of(tmp_path, *(line.replace("guest", "zoe") for line in lines), header="id,label,subject")


def test_lists_that_hide_clips_are_named_by_check(tmp_path, capsys) -> None:
    lists = ["train", "train", "validation", "test", "test", "tset"]
    lines = [f"clip{number},{number % 2},{name}" for number, name in enumerate(lists)]
    check([str(store_of(tmp_path / "lost", *lines, header="id,label,split").path)])
    said = capsys.readouterr().out
    assert "clips on no list but tset, validation: 2 (clip2, clip5)" in said
    lines = [f"clip{number},{number % 2},{name}" for number, name in enumerate(["train", "", "train", "test", "test"])]
    check([str(store_of(tmp_path / "blank", *lines, header="id,label,split").path)])
    assert "clips on no list: 1 (clip1)" in capsys.readouterr().out
    lines = [f"clip{number},{number % 2},{name}" for number, name in enumerate(["train", "train test", "test"])]
    assert check([str(store_of(tmp_path / "both", *lines, header="id,label,split").path)]) == 1
    said = capsys.readouterr().out
    assert "BAD  own/split" in said and "1 clips are in both train and test (clip1)" in said


def test_what_cannot_be_trained_on_is_said_by_check_and_by_training(tmp_path, capsys) -> None:
    store = store_of(tmp_path, "a,wave,Train", "b,wave,Test")
    (store.path / "features").mkdir()
    (store.path / "features" / "kept.npy").write_bytes(b"0" * 1_500_000)
    check([str(store.path)])
    said = capsys.readouterr().out
    assert "kept.npy  of an older mmcl, read no more: 0 rows, 1.5 MB" in said
    assert "one class alone: 1 (wave)" in said and "lists of clips: 2 (Test, Train)" in said
    with pytest.raises(UserError, match="one class alone, 'wave'"):
        split(store, Protocol("x", "mine", {"split": ["Train"]}, {"split": ["Test"]}))


@pytest.mark.parametrize("frames", [76, 3])
def test_frames_before_bodies_are_read_as_that(tmp_path, frames) -> None:
    two = np.stack([person(frames), person(frames, x=1.0, seed=1)])
    write(tmp_path / "in" / "a.npy", two.swapaxes(0, 1))
    write(tmp_path / "in" / "b.npy", two)
    reader = Folder(listed(tmp_path / "in", "a,0", "b,1"), options=FolderOptions(layout=LAYOUT))
    found = prepare(reader, tmp_path / "store", workers=1, progress=False)
    assert np.array_equal(found.store.joints(0), two.astype(np.float32))
    assert [(name, kind) for name, _, kind in found.mended] == [("a", "order")]
    assert "mended in 1 clip (a): shape" in str(found)


def test_a_clip_with_two_remarks_of_a_kind_is_counted_once(tmp_path, capsys) -> None:
    two = np.stack([person(), person(x=1.0, seed=1)])
    write(tmp_path / "in" / "a.npy", np.concatenate([two, two[..., :1] * 0 + 0.5], axis=-1).swapaxes(0, 1))
    reader = Folder(listed(tmp_path / "in", "a,0"), options=FolderOptions(layout=LAYOUT))
    found = prepare(reader, tmp_path / "store", workers=1, progress=False)
    assert [kind for _, _, kind in found.mended] == ["order", "order"]
    assert "mended in 1 clip (a): shape" in str(found)
    check([str(tmp_path / "store")])
    assert "(persons, frames, joints, coordinates): 1 (a) ->" in capsys.readouterr().out
