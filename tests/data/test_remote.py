"""A store behind an fsspec URL reads as one on disk does, and fetches no more than it needs."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import made_stores
import numpy as np
import pytest
import recordings
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from mmcl.common.errors import UserError
from mmcl.data import location
from mmcl.data.preparation import parts
from mmcl.data.preparation.build import prepare
from mmcl.data.preparation.merge import merge
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.store import ClipStore, open_store

URL = "memory://bucket/made"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """400 clips in 7 parts, on disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_BYTES", 1)
        return made_stores.write_store(tmp_path_factory.mktemp("made") / "store", 400, crops=2)


@pytest.fixture
def remote(made: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    """The same in fsspec's memory; the copies go to a folder of the test."""
    monkeypatch.setenv("MMCL_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.put(str(made.path), "/bucket/made", recursive=True)
    yield files
    files.rm("/bucket", recursive=True)


def copies(store: ClipStore) -> list[str]:
    """Parts that this machine has."""
    return sorted(path.name for path in (store.path / "clips").glob("*.arrow"))


def test_it_reads_like_the_folder(remote: MemoryFileSystem, made: ClipStore) -> None:
    store = open_store(URL)
    assert (store.ids, store.fingerprint, store.info) == (made.ids, made.fingerprint, made.info)
    assert copies(store) == []
    for index in (70, 399):
        joints = store.joints(index)
        assert np.array_equal(joints, made.joints(index)) and store.crops(index) == made.crops(index)
        assert not joints.flags.owndata and not joints.flags.writeable
    assert copies(store) == ["part-00001.arrow", "part-00006.arrow"]
    remote.rm("/bucket/made/clips/part-00001.arrow")  # read from the copy from now on
    assert np.array_equal(open_store(URL).joints(71), made.joints(71))


def test_file_urls_are_used_in_place(made: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMCL_CACHE", str(tmp_path / "cache"))
    store = open_store(f"file://{made.path}")
    assert store.path == made.path and np.array_equal(store.joints(9), made.joints(9))
    assert not (tmp_path / "cache").exists()


def read_everything(_: int) -> float:
    store = open_store(URL)
    return float(sum(store.joints(index)[0, 0, 0, 0] for index in range(len(store))))


def test_processes_that_fetch_at_once_do_not_disturb_each_other(remote: MemoryFileSystem) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:  # forked: fsspec's memory is a process's own
        assert pool.map(read_everything, range(4)) == [sum(range(400))] * 4
    store = open_store(URL)
    assert len(copies(store)) == 7
    assert not list(store.path.rglob("*.tmp"))


def test_a_partial_download_never_gets_the_name(remote: MemoryFileSystem, made: ClipStore) -> None:
    store = open_store(URL)
    part = "/bucket/made/clips/part-00002.arrow"
    whole = remote.cat_file(part)
    remote.pipe_file(part, whole[:-1000])
    with pytest.raises(UserError, match=r"memory://bucket/made/clips/part-00002.arrow: cut off"):
        store.joints(130)
    remote.rm(part)
    with pytest.raises(UserError, match=r"part-00002.arrow: missing"):
        store.joints(130)
    assert copies(store) == []
    remote.pipe_file(part, whole)
    leftover = store.path / "clips" / ".part-00002.arrow.4711.tmp"  # of a process that was killed
    leftover.write_bytes(whole[:500])
    assert np.array_equal(store.joints(130), made.joints(130))
    assert copies(store) == ["part-00002.arrow"] and not leftover.exists()
    copy = store.path / "clips" / "part-00002.arrow"
    os.truncate(copy, 700)  # a copy that somebody damaged is fetched again
    assert np.array_equal(open_store(URL).joints(130), made.joints(130))


def test_a_changed_store_gets_copies_of_its_own(remote: MemoryFileSystem, tmp_path: Path) -> None:
    before = open_store(URL)
    before.joints(0)
    other = made_stores.write_store(tmp_path / "other", 100, frames=7)
    remote.rm("/bucket/made", recursive=True)
    remote.put(str(other.path), "/bucket/made", recursive=True)
    after = open_store(URL + "/")
    assert len(after) == 100 and after.joints(0).shape[1] == 7 and after.path != before.path
    assert before.joints(0).shape[1] == 20


def test_mistakes_are_one_clear_line(remote: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"memory://bucket/nowhere: not a clip store \(no store.json"):
        open_store("memory://bucket/nowhere")
    with pytest.raises(UserError, match=r"warp://bucket/store: cannot be read \(Protocol not known: warp\)"):
        open_store("warp://bucket/store")
    monkeypatch.setitem(known_implementations, "moon", {"class": "moonfs.Moon", "err": "install moonfs"})
    with pytest.raises(UserError, match=r"moon://store: a package is missing.*install moonfs"):
        open_store("moon://store")
    remote.rm("/bucket/made/index.arrow")
    with pytest.raises(UserError, match=r"index.arrow: missing"):
        open_store(URL)

    def refuse(*_: object) -> None:
        raise PermissionError("no credentials")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(PermissionError: no credentials\)"):
        open_store(URL)


def test_shards_behind_urls_are_joined(remote: MemoryFileSystem, tmp_path: Path) -> None:
    for subject in range(1, 5):
        recordings.write_take(tmp_path / "takes", 1, subject)
    recordings.write_skeleton(tmp_path / "takes", "a1_s3_t1", recordings.person(9) * 0)
    reader, urls = UTDMHAD(tmp_path / "takes"), []
    whole = prepare(reader, tmp_path / "whole", workers=1, progress=False).store
    for index in (1, 2):
        path = prepare(reader, tmp_path / str(index), workers=1, progress=False, shard=(index, 2)).store.path
        remote.put(str(path), f"/bucket/{index}", recursive=True)
        urls.append(f"memory://bucket/{index}")
    summary = merge(urls, tmp_path / "out")
    assert [name for name, _ in summary.skipped] == ["a1_s3_t1"]
    assert (tmp_path / "out" / "skipped.csv").read_bytes() == (whole.path / "skipped.csv").read_bytes()
    assert (summary.store.fingerprint, summary.store.ids) == (whole.fingerprint, whole.ids)
    remote.rm("/bucket/1/skipped.csv")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match=r"memory://bucket/1/skipped.csv: missing"):
        merge(urls, tmp_path / "again")


def test_chained_urls_and_the_default_cache(made: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMCL_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    archive = shutil.make_archive(str(tmp_path / "made"), "zip", made.path)
    store = open_store(f"zip://::file://{archive}")
    assert np.array_equal(store.joints(5), made.joints(5))
    assert (
        location.cache_root() == tmp_path / ".cache" / "mmcl" / "stores" and store.path.parent == location.cache_root()
    )
