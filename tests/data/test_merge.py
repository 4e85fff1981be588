"""Shards of a preparation, made apart, join to the store that one preparation makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import recordings

from mmcl import merge as script
from mmcl.common.errors import UserError
from mmcl.data.preparation import parts
from mmcl.data.preparation.build import prepare
from mmcl.data.preparation.merge import merge
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.store import ClipStore, open_store

CLIPS = 11


class Takes(UTDMHAD):
    """Leaves two clips out."""

    left_out = (("a9_s9_t9", "lost"), ("a8_s8_t8", "lost"))


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven takes, the second and the last of which are bad, one with video."""
    root = tmp_path_factory.mktemp("takes")
    for subject in range(1, CLIPS + 1):
        recordings.write_take(root, 1, subject, video=20 if subject == 4 else None)
    for subject in (10, 9):  # a1_s10 is the second name in order, a1_s9 the last
        recordings.write_skeleton(root, f"a1_s{subject}_t1", recordings.person(9) * np.nan)
    return root


@pytest.fixture(scope="module")
def whole(takes: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return prepare(Takes(takes), tmp_path_factory.mktemp("whole") / "store", workers=1, progress=False).store


@pytest.fixture(scope="module")
def shards(takes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three of them, the second in two parts."""
    base, stores = tmp_path_factory.mktemp("shards"), []
    with pytest.MonkeyPatch.context() as patch:
        for index in (1, 2, 3):
            patch.setattr(parts, "GROUP_CLIPS", 2 if index == 2 else 64)
            patch.setattr(parts, "PART_BYTES", 1 if index == 2 else 1 << 26)
            summary = prepare(Takes(takes), base / str(index), workers=1, progress=False, shard=(index, 3))
            assert f"(shard {index} of 3 only)" in str(summary) and summary.store.shard == (index, 3)
            stores.append(base / str(index))
    return stores


def test_shards_are_runs_of_nearly_equal_length(shards: list[Path], whole: ClipStore) -> None:
    stores = [open_store(path) for path in shards]
    assert [name for store in stores for name in store.ids] == whole.ids
    assert [len(store) + store.info["skipped"] for store in stores] == [3, 4, 4]
    assert [len(store.info["parts"]) for store in stores] == [1, 2, 1]


def test_merged_equals_prepared_at_once(shards: list[Path], whole: ClipStore, takes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    store = merge([shards[2], shards[0], shards[1]], out).store
    assert store.fingerprint == whole.fingerprint and store.ids == whole.ids and store.shard is None
    for index in range(len(whole)):
        assert np.array_equal(store.joints(index), whole.joints(index)) and store.crops(index) == whole.crops(index)
    assert (out / "skipped.csv").read_bytes() == (whole.path / "skipped.csv").read_bytes()
    same = {key for key in whole.info if key != "parts"}
    assert {key: store.info.get(key) for key in same} == {key: whole.info[key] for key in same}
    assert set(store.info) == set(whole.info)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    again = prepare(Takes(takes), out, workers=1, progress=False)
    assert again.processed == 0 and len(again.skipped) == len(again.left_out) == 2


def test_parts_are_linked_or_copied(shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linked = merge(shards, tmp_path / "linked").store
    assert os.path.samefile(linked.path / "clips" / "part-00003.arrow", shards[2] / "clips" / "part-00000.arrow")

    def refuse(*_: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refuse)
    copied = merge(shards, tmp_path / "copied").store
    assert copied.fingerprint == linked.fingerprint
    assert np.array_equal(copied.joints(8), linked.joints(8))
    assert not os.path.samefile(copied.path / "clips" / "part-00003.arrow", shards[2] / "clips" / "part-00000.arrow")


def test_what_does_not_belong_together_is_refused(
    shards: list[Path], whole: ClipStore, takes: Path, tmp_path: Path
) -> None:
    def shard(name: str, index: int = 2, count: int = 3, source: Path = takes, **options: int) -> Path:
        prepare(Takes(source), tmp_path / name, workers=1, progress=False, shard=(index, count), **options)
        return tmp_path / name

    more = tmp_path / "more"
    shutil.copytree(takes, more)
    recordings.write_take(more, 2, 1)
    for stores, complaint in (
        ([shards[0], shards[2]], "1 of 3 shards missing: 2"),
        ([shards[1]], "2 of 3 shards missing: 1, 3"),
        ([*shards, shards[1]], "shard 2 of 3 twice"),
        ([shards[0], whole.path, shards[2]], "is a whole store, not a shard"),
        ([shards[0], shard("smaller", frames_per_clip=3), shards[2]], r"different frames_per_clip"),
        ([shards[0], shard("quarter", count=4), shards[2]], r"different number of shards"),
        ([shards[0], shard("grown", source=more), shards[2]], r"different clips in the data set"),
        ([shards[0], tmp_path / "nowhere", shards[2]], "does not exist"),
    ):
        with pytest.raises(UserError, match=complaint):
            merge(stores, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_paths_may_differ_but_then_prepare_does_not_take_the_store_for_its_own(
    shards: list[Path], whole: ClipStore, takes: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(takes, moved)
    prepare(Takes(moved), tmp_path / "2", workers=1, progress=False, shard=(2, 3))
    store = merge([shards[0], tmp_path / "2", shards[2]], tmp_path / "out").store
    assert store.fingerprint == whole.fingerprint
    with pytest.raises(UserError, match="different sources"):
        prepare(Takes(takes), tmp_path / "out", workers=1, progress=False)


def test_numbers_that_make_no_shard_are_refused(takes: Path, tmp_path: Path) -> None:
    for shard, complaint in (((0, 3), "I from 1 to N"), ((4, 3), "I from 1 to N"), ((1, 12), "only 11 clips")):
        with pytest.raises(UserError, match=complaint):
            prepare(Takes(takes), tmp_path / "out", workers=1, progress=False, shard=shard)
    assert list(tmp_path.iterdir()) == []


def test_another_shard_does_not_go_over_a_finished_one(shards: list[Path], takes: Path) -> None:
    with pytest.raises(UserError, match="different shard"):
        prepare(Takes(takes), shards[0], workers=1, progress=False, shard=(2, 3))
    assert prepare(Takes(takes), shards[0], workers=1, progress=False, shard=(1, 3)).processed == 0


def test_a_shard_of_bad_clips_only_is_joined_with_the_others(tmp_path: Path) -> None:
    source = tmp_path / "takes"
    for subject in range(1, 5):
        recordings.write_take(source, 1, subject)
    for bad in (1, 3):
        recordings.write_skeleton(source, f"a1_s{bad}_t1", recordings.person(9) * np.nan)
    whole = prepare(Takes(source), tmp_path / "whole", workers=1, progress=False).store
    stores = [tmp_path / str(index) for index in range(1, 5)]
    for index, path in enumerate(stores, 1):
        summary = prepare(Takes(source), path, workers=1, progress=False, shard=(index, 4))
        assert len(summary.store) == index % 2 ^ 1 and f"{len(summary.store)} clips of UTD-MHAD" in str(summary)
    merged = merge(stores, tmp_path / "out").store
    assert merged.ids == whole.ids == ["a1_s2_t1", "a1_s4_t1"] and merged.fingerprint == whole.fingerprint
    assert np.array_equal(merged.joints(1), whole.joints(1))
    assert prepare(Takes(source), tmp_path / "out", workers=1, progress=False).processed == 0


def test_nothing_but_bad_clips_is_no_data_set(tmp_path: Path) -> None:
    for subject in (1, 2):
        recordings.write_skeleton(tmp_path / "takes", f"a1_s{subject}_t1", recordings.person(9) * np.nan)
    for shard in ((1, 2), (2, 2)):
        prepare(Takes(tmp_path / "takes"), tmp_path / str(shard[0]), workers=1, progress=False, shard=shard)
    with pytest.raises(UserError, match="every clip of all 2 shards is bad"):
        merge([tmp_path / "1", tmp_path / "2"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sigterm_leaves_nothing_behind(shards: list[Path], tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time\n"
        "from mmcl import merge as script\n"
        "from mmcl.data.preparation import merge\n"
        "from mmcl.common.errors import run\n"
        "take = merge._take\n"
        "def last(file, to):\n"
        "    take(file, to)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "merge._take = last\n"
        "run(script.main)\n"
    )
    words = [*map(str, shards), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and done.stderr == "stopped\n"
    assert list(tmp_path.iterdir()) == []


def test_the_script_joins_and_tells(shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*map(str, shards), "--out", str(tmp_path / "out")]
    assert script.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 shards joined"
    assert f"{tmp_path / 'out'}: 9 clips of UTD-MHAD, 2 skipped, 1 with video, 8 without" in lines[1]
    assert "2 left out: lost" in lines
    with pytest.raises(UserError, match="exists"):
        script.main(words)
    assert script.main([*words, "--overwrite"]) == 0
