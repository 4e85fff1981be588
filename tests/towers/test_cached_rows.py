"""Rows by clip: whichever split asks, several processes at the same time, killed ones, and content that differs."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import signal
import sys
import time

import numpy as np
import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.data.store import ClipStore, open_store
from mmcl.towers.feature_cache import FeatureCache
from mmcl.towers.rows import ENTRY, KEY, RowFolder, RowWriter

CLIPS = np.array([2, 5, 7, 30])
CONTEXT = multiprocessing.get_context("forkserver")  # it has imported what the processes need


def fill(path, key, how, value, messages, errors):
    """Another process: tells of each batch, hangs or asks before it goes on, and tells at the end how many it made."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT, 0o600), sys.stderr.fileno())
    count = 0

    def compute(pictures):
        nonlocal count
        messages.send(len(pictures))
        count += len(pictures)
        if how == "hang" and count > 8:
            time.sleep(60)
        if how == "ask":
            messages.recv()
        return torch.full((len(pictures), 3), float(value))

    cache = FeatureCache(open_store(path), np.arange(40), [key], compute, "rows", 4)
    assert len(cache(range(40))) == 40
    messages.send(("computed", count))


@pytest.fixture
def store(demo_store) -> ClipStore:
    return open_store(demo_store)


@pytest.fixture
def start(store, tmp_path):
    """Function (key, how, value) -> a process that fills a cache, the messages from and to it, its errors' file."""
    started = []

    def begin(key, how, value=1):
        ours, theirs = CONTEXT.Pipe()
        errors = tmp_path / f"{key}-{how}"
        started.append(CONTEXT.Process(target=fill, args=(store.path, key, how, value, theirs, errors)))
        started[-1].start()
        theirs.close()
        return started[-1], ours, errors

    yield begin
    for process in started:
        process.kill()


def computed(messages):
    """Answer until the process says how many clips it has computed."""
    while isinstance(said := messages.recv(), int):
        with contextlib.suppress(OSError):  # it may have ended
            messages.send("go on")
    return said[1]


def counting(width=3):
    """A tower that tells how many clips it was shown: features are the mean colour of each clip's pictures."""
    seen = []

    def compute(pictures):
        seen.append(len(pictures))
        return torch.tensor([[np.asarray(images[0]).mean()] * width for images in pictures])

    return compute, seen


def with_digests(store, digest):
    """The same clips under other digests, as if their content were another."""
    other = ClipStore(store.folder, store.info, store.index)
    other.digest = digest
    other._compared[:] = True
    return other


def test_a_clip_is_computed_once_whichever_split_asks(store):
    compute, seen = counting()
    first = FeatureCache(store, CLIPS, ["once"], compute, "rows")
    assert sum(seen) == first.missing == 4 and first.width == 3
    other = FeatureCache(store, np.array([5, 9, 30]), ["once"], compute, "rows")
    assert sum(seen) == 5 and other.missing == 1 and len(list(first.folder.path.glob("*.rows"))) == 2
    live = compute([[image] for image in [_first(store, clip) for clip in (30, 5)]])
    assert torch.equal(other([30, 5]), live.float()) and torch.equal(first([30, 5]), live.float())
    assert FeatureCache(store, CLIPS, ["another tower"], compute, "rows").missing == 4


def _first(store, clip):
    from mmcl.data.dataset import load_crops

    return load_crops(store, clip)[0]


def test_rows_belong_to_a_content_not_to_a_place(store):
    """The same clips in another order are found; other clips under the same ids and places are not."""
    compute, seen = counting()
    FeatureCache(store, CLIPS, ["content"], compute, "rows")
    turned = with_digests(store, lambda index: store.digest(len(store) - 1 - index))
    there = len(store) - 1 - CLIPS
    assert FeatureCache(turned, there, ["content"], compute, "rows").missing == 0
    changed = with_digests(store, lambda index: store.digest(index)[::-1])
    assert FeatureCache(changed, CLIPS, ["content"], compute, "rows").missing == 4


def test_views_depend_on_the_place_and_rows_of_them_do_too(store):
    compute, _ = counting()
    views = FeatureCache(store, CLIPS, ["views"], compute, "rows", views=3)
    assert torch.equal(views([5, 7]), FeatureCache(store, CLIPS, ["plain"], compute, "rows")([5, 7]))
    assert not torch.equal(views([5, 7], [1, 1]), views([5, 7], [2, 2]))
    turned = with_digests(store, lambda index: store.digest(len(store) - 1 - index))
    assert FeatureCache(turned, len(store) - 1 - CLIPS, ["views"], compute, "rows", views=3).missing == 4


def test_a_kill_loses_no_row_that_was_written(store, start):
    process, messages, _ = start("killed", "hang")
    batches = []
    while sum(batches) <= 8:  # the one that hangs is the last of them
        batches.append(messages.recv())
    written = sum(batches[:-1])
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (folder,) = [path for path in (store.path / "features").iterdir() if _about(path)["identity"] == ["killed"]]
    (index,) = folder.glob("*.index")
    with index.open("ab") as file:  # half an entry, and one whose bytes never reached the disk
        file.write(np.array([(b"x" * KEY, b"y" * KEY, 10**6, 12)], ENTRY).tobytes() + b"half")
    compute, seen = counting()
    cache = FeatureCache(store, np.arange(40), ["killed"], compute, "rows", 4)
    assert sum(seen) == cache.missing == 40 - written
    assert (cache(range(40)) == 1).all(dim=1).sum() == written > 0  # what the killed process had written


def _about(folder):
    return json.loads((folder / "about.json").read_text())


def test_processes_share_the_work_and_each_row_is_made_once(start):
    _, first, one = start("shared", "ask")
    assert first.recv() == 4  # it holds one share and waits for us
    process, second, two = start("shared", "go", 2)
    deadline = time.monotonic() + 120
    while "waiting for other processes" not in (notes := two.read_text() if two.exists() else ""):
        # Until it has made all that the first does not hold.
        assert process.is_alive() and time.monotonic() < deadline, notes
        time.sleep(0.02)
    first.send("go on")
    done = [computed(first), computed(second)]
    assert sum(done) == 40 and min(done) >= 4 and done[1] >= 20
    assert "rows: 0 of 40 clips are there" in one.read_text() + two.read_text()


def test_a_disk_without_room_is_named_and_no_row_is_written(store, monkeypatch):
    monkeypatch.setattr("mmcl.towers.cache_progress.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    compute, _ = counting()
    with pytest.raises(UserError, match="caching rows needs .* GiB in .*features.*, or task.cache=false"):
        FeatureCache(store, CLIPS, ["no room"], compute, "rows")
    monkeypatch.undo()
    assert FeatureCache(store, CLIPS, ["no room"], compute, "rows").missing == 4


def test_rows_of_any_length_come_back_and_travel_small(tmp_path):
    rng = np.random.default_rng(0)
    keys, rows = [rng.bytes(KEY) for _ in range(300)], [rng.bytes(int(n)) for n in rng.integers(0, 2000, 300)]
    with RowWriter(tmp_path) as writer:
        for start in range(0, 300, 7):
            part = slice(start, start + 7)
            writer.add(keys[part], keys[part], rows[part])
            found = RowFolder(tmp_path).find(keys)  # while it is being written
            assert len(found) == min(start + 7, 300)
    folder = pickle.loads(pickle.dumps(RowFolder(tmp_path)))
    found = folder.find([*keys, b"0" * KEY])
    assert [folder.read(found[key]).tobytes() for key in keys] == rows and b"0" * KEY not in found


def test_feature_caches_travel_small(store):
    cache = FeatureCache(store, CLIPS, ["travels"], lambda pictures: torch.randn(len(pictures), 2000), "wide")
    sent = pickle.dumps(cache)
    assert len(sent) < 3000
    assert torch.equal(pickle.loads(sent)([30, 2]), cache([30, 2]))
