"""NW-UCLA: all 1,484 real files, parsed a second time by this test, and files that are not what they should be."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.preparation.build import prepare
from mmcl.data.preparation.finish import read_skipped
from mmcl.data.protocols import load_protocol
from mmcl.data.readers.nw_ucla import NWUCLA
from mmcl.data.store import ClipStore


@pytest.fixture(scope="module")
def archive(test_data: Path) -> Path:
    return test_data / "nw_ucla" / "all_sqe.tar.gz"


@pytest.fixture(scope="module")
def store(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return prepare(NWUCLA(archive), tmp_path_factory.mktemp("nw") / "store", workers=2, progress=False).store


def test_every_file_comes_back_as_an_independent_parse_reads_it(archive: Path, store: ClipStore) -> None:
    where = {name: index for index, name in enumerate(store.ids)}
    read, mended = 0, [name for name, _, _ in read_skipped(store)[2]]
    assert set(mended) == {"a04_s01_e01_v01"}  # a walk whose tracker lost itself for two frames
    with tarfile.open(archive) as files:
        for member in files:
            if member.isfile():
                content = json.load(files.extractfile(member))
                index = where[content["file_name"]]
                joints, raw = store.joints(index)[0], np.float32(content["skeletons"])
                lost = (joints != raw).any(axis=-1)
                np.testing.assert_array_equal(joints, np.where(lost[..., None], 0, raw))
                assert lost.sum() < 0.05 * lost.size and (not lost.any() or content["file_name"] in mended)
                assert store.labels[index] == content["label"] - 1
                read += 1
    assert read == len(store) == 1484 and store.bodies.max() == 1
    assert store.frames.min() == 1 and (store.frames == 1).sum() == 2 and store.frames.max() == 201


def test_views_split_as_published(store: ClipStore) -> None:
    parts = split(store, load_protocol("nw_ucla/view_3"))
    assert (len(parts.train), len(parts.test)) == (1020, 464)
    assert set(store.cameras[parts.train]) == {1, 2} and set(store.cameras[parts.test]) == {3}
    assert Counter(store.labels.tolist()) == dict(enumerate([150, 152, 141, 173, 148, 149, 142, 142, 145, 142]))


def test_the_rule_without_copies_leaves_out_exactly_what_was_trained_on(store: ClipStore) -> None:
    whole, others = (split(store, load_protocol(f"nw_ucla/view_3{end}")) for end in ("", "_without_copies"))
    np.testing.assert_array_equal(whole.train, others.train)
    trained = {store.joints(index).tobytes() for index in whole.train}
    copies = [index for index in whole.test if store.joints(index).tobytes() in trained]
    assert len(copies) == 95 and sorted({*whole.test} - {*copies}) == others.test.tolist()
    for index in copies:
        twin = store.ids.index(store.ids[index].replace("v03", "v02"))
        np.testing.assert_array_equal(store.joints(index), store.joints(twin))


def write(folder: Path, name: str, content: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_files_that_disagree_with_themselves_are_skipped_with_the_reason(tmp_path: Path) -> None:
    folder, good = tmp_path / "all_sqe", np.random.default_rng(0).normal(size=(6, 20, 3)).tolist()
    write(folder, "a12_s03_e02_v01", {"label": 10, "skeletons": good})
    write(folder, "a01_s01_e00_v01", {"label": 2, "skeletons": good})
    write(folder, "a02_s01_e00_v01", {"label": 2})
    write(folder, "a03_s01_e00_v01", {"label": 3, "skeletons": [frame[:19] for frame in good]})
    write(folder, "a04_s01_e00_v01", {"label": 4, "skeletons": [*good, good[0][:7]]})
    write(folder, "a05_s01_e00_v01", [1, 2])
    write(folder, "a06_s01_e00_v01", '{"label": 6,')
    write(folder, "a07_s01_e00_v01", {"label": 7, "skeletons": good})  # no such action
    write(folder, "readme", {})
    summary = prepare(NWUCLA(folder), tmp_path / "store", workers=1, progress=False)
    assert summary.store.ids == ["a12_s03_e02_v01"]
    facts = summary.store
    assert (facts.labels[0], facts.subjects[0], facts.trials[0], facts.cameras[0]) == (9, 3, 2, 1)
    reasons = dict(summary.skipped)
    assert "'label' is 2, its name says 1" in reasons["a01_s01_e00_v01"]
    assert "no 'skeletons'" in reasons["a02_s01_e00_v01"]
    assert "(6, 19, 3)" in reasons["a03_s01_e00_v01"]
    assert "no array of numbers" in reasons["a04_s01_e00_v01"]
    assert "holds a list" in reasons["a05_s01_e00_v01"] and "not a JSON file" in reasons["a06_s01_e00_v01"]
    assert len(reasons) == 6


def test_a_joint_without_coordinates_is_missing(tmp_path: Path) -> None:
    good = np.random.default_rng(0).normal(size=(6, 20, 3)).astype(np.float32)
    write(tmp_path / "all_sqe", "a12_s03_e02_v01", {"label": 10, "skeletons": [*good[:5].tolist(), [[None] * 3] * 20]})
    reader = NWUCLA(tmp_path / "all_sqe")
    (clip,) = reader.scan()
    good[5] = 0
    np.testing.assert_array_equal(reader.read(clip).joints[0], good)


def test_of_copies_in_folders_the_first_counts(tmp_path: Path) -> None:
    for number, folder in enumerate(("b", "a/deeper", "c"), start=1):
        (tmp_path / folder).mkdir(parents=True)
        write(tmp_path / folder, "a01_s01_e00_v01", {"label": 1, "skeletons": np.full((2, 20, 3), number).tolist()})
    write(tmp_path / "c", "a01_s01_e00_v02", {"label": 1, "skeletons": np.ones((2, 20, 3)).tolist()})
    reader = NWUCLA(tmp_path)
    clips = reader.scan()
    assert [clip.id for clip in clips] == ["a01_s01_e00_v01", "a01_s01_e00_v02"]
    assert (reader.read(clips[0]).joints == 2).all()


def test_a_folder_of_something_else_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="aAA_sSS_eEE_vVV.json"):
        NWUCLA(tmp_path).scan()
    with pytest.raises(UserError, match="video folder"):
        NWUCLA(tmp_path, tmp_path / "nowhere")
