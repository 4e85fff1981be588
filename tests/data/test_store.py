"""Opening reads an index, clips are mapped when asked for, and a process stays small however much it reads."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import made_stores
import numpy as np
import psutil
import pytest

from mmcl.common.errors import UserError, run
from mmcl.data import clip_parts
from mmcl.data.columns import WHOLE_NUMBERS
from mmcl.data.dataset import ClipDataset, plain_batches
from mmcl.data.loader import loader
from mmcl.data.preparation import parts
from mmcl.data.store import ClipStore, open_store

MB = 1 << 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipStore]:
    """1,000 clips of 6 kB in 16 parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_BYTES", 1)
        yield made_stores.write_store(tmp_path_factory.mktemp("made") / "store", 1000, crops=2)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipStore]:
    """128 clips of 0.9 MB, 115 MB in all, in parts of some 8 MB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_BYTES", 6 * MB)
        patch.setattr(parts, "GROUP_CLIPS", 8)
        yield made_stores.write_store(tmp_path_factory.mktemp("large") / "store", 128, frames=3000)


@pytest.fixture
def copy(made: ClipStore, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.path, tmp_path / "copy"))


def test_every_clip_comes_back(made: ClipStore) -> None:
    store = open_store(made.path)
    assert len(store) == 1000 and len(store.info["parts"]) == 16
    for index in (0, 63, 64, 511, 999):
        row = made_stores.row(index, 20, 2)
        assert store.ids[index] == row["id"] and store.splits[index] == row["splits"]
        assert np.array_equal(store.joints(index).reshape(-1), row["joints"])
        assert store.crops(index) == row["crops"]
        assert store.labels[index] == row["label"] and store.subjects[index] == row["subject"]
    assert store.splits[1] is store.splits[3]


def test_opening_touches_no_part_and_a_clip_maps_its_own(copy: Path) -> None:
    for number in range(1, 16):  # same size, but nothing that could be read
        part = copy / "clips" / f"part-{number:05d}.arrow"
        part.write_bytes(b"\xff" * part.stat().st_size)
    store = open_store(copy)
    assert len(store) == 1000 and store.labels.sum() == 2000 and store.parts.maps == {}
    assert store.joints(5).shape == (1, 20, 25, 3) and list(store.parts.maps) == [0]
    with pytest.raises(UserError, match=r"part-00001.arrow: damaged"):
        store.joints(64)


def test_pickles_small_however_many_clips(made: ClipStore) -> None:
    made.joints(3)
    data = pickle.dumps(made)
    assert len(data) < 300
    assert pickle.loads(data).parts.maps == {} and pickle.loads(data).ids == made.ids


def test_the_fingerprint_is_that_of_the_content(made: ClipStore) -> None:
    columns = dict(zip(WHOLE_NUMBERS, ("labels", "subjects", "cameras", "setups", "trials", "bodies", "frames",
                                       "video_frames"), strict=True))  # fmt: skip
    meaning = [made_stores.LAYOUT.to_dict(), 30.0, list("abcde")]
    total = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
    for index, name in enumerate(made.ids):
        facts = {"id": name, "splits": made.splits[index]}
        facts |= {column: int(getattr(made, attribute)[index]) for column, attribute in columns.items()}
        one = hashlib.sha256(json.dumps(facts).encode() + made.joints(index).tobytes())
        for jpeg in made.crops(index):
            one.update(hashlib.sha256(jpeg).digest())
        total.update(one.digest())
    assert made.fingerprint == total.hexdigest()


def resident(kind: str = "rss") -> int:
    """Bytes of this process in memory: all, or only what is its own (no file behind it)."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon" if kind == "own" else "VmRSS"].split()[0]) << 10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_reading_a_store_does_not_grow_the_process(large: ClipStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_parts, "RESIDENT", 8 * MB)
    store = open_store(large.path)
    store.joints(0).sum()
    before, kept, sizes = resident(), store.joints(1), []
    for index in range(len(store)):
        assert store.joints(index)[0, 0, 0, 0] == index and store.joints(index).sum() > 0
        sizes.append(resident() - before)
    assert sum(part["bytes"] for part in store.info["parts"]) > 100 * MB
    assert max(sizes) < 48 * MB
    assert kept[0, 0, 0, 0] == 1 and np.ptp(kept[0, :, 0, 0]) > 2  # a view outlives the map of its part


class Resident:
    """Adds the memory of the process that makes the batch."""

    def __call__(self, samples: object) -> dict[str, object]:
        return {"own": resident("own"), "process": os.getpid()}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_loader_workers_share_the_store(large: ClipStore) -> None:
    store, before = open_store(large.path), psutil.Process().memory_info().rss
    batches = list(loader(ClipDataset(store), plain_batches(range(128), 4), workers=2, extras=Resident()))
    assert {batch["process"] for batch in batches}.isdisjoint({os.getpid()})
    for process in {batch["process"] for batch in batches}:
        sizes = [batch["own"] for batch in batches if batch["process"] == process]
        assert max(sizes) - sizes[0] < 24 * MB  # half of 115 MB went through it
    assert psutil.Process().memory_info().rss - before < 256 * MB  # batches come in memory that is shared


def test_python_exits_though_workers_are_left(made: ClipStore) -> None:
    """A loader that something still holds at the end, as a traceback does."""
    code = (
        "import sys; from mmcl.data.dataset import *; from mmcl.data.store import open_store\n"
        "from mmcl.data.loader import loader\n"
        "held = iter(loader(ClipDataset(open_store(sys.argv[1])), plain_batches(range(8), 4), workers=1)); next(held)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(made.path)], timeout=120).returncode == 0


def test_index_mistakes_are_named(made: ClipStore, copy: Path, tmp_path: Path) -> None:
    index = copy / "index.arrow"
    whole = index.read_bytes()
    index.write_bytes(whole[:-50])
    with pytest.raises(UserError, match=r"index.arrow: missing or cut off"):
        open_store(copy)
    index.unlink()
    with pytest.raises(UserError, match=r"index.arrow: missing or cut off"):
        open_store(copy)
    index.write_bytes(b"\x07" * len(whole))
    with pytest.raises(UserError, match="damaged store"):
        open_store(copy)
    digest = made.index.column("digest")[500].as_py()
    assert whole.count(digest) == 1
    index.write_bytes(whole.replace(digest, digest[::-1]))
    with pytest.raises(UserError, match="not the index of this store"):
        open_store(copy)
    index.write_bytes(whole)
    (copy / "clips" / "part-00003.arrow").unlink()
    with pytest.raises(UserError, match=r"part-00003.arrow: missing or cut off"):
        open_store(copy)


class Complaint:
    """What a task adds to a batch, when the user has made a mistake."""

    def __call__(self, samples: object) -> dict[str, object]:
        raise UserError("the prompt is too long: shorten it")


def test_a_users_mistake_in_a_worker_is_told_in_one_line(made: ClipStore, capsys: pytest.CaptureFixture[str]) -> None:
    batches = loader(ClipDataset(made), plain_batches(range(4), 4), workers=1, extras=Complaint())
    with pytest.raises(SystemExit) as ended:
        run(lambda: len(list(batches)))
    assert ended.value.code == 2 and capsys.readouterr().err == "error: the prompt is too long: shorten it\n"
