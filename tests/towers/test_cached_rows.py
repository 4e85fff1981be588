"""Rows by clip: whichever split asks, several processes at the same time, killed ones, and content that differs."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.data.store import ClipStore, open_store
from mmcl.towers.cache import FeatureCache
from mmcl.towers.rows import ENTRY, KEY, RowFolder, RowWriter

CLIPS = np.array([2, 5, 7, 30])
FILL = """
import sys, time, numpy as np, torch
from pathlib import Path
from mmcl.data.store import open_store
from mmcl.towers.cache import FeatureCache
count = 0
def compute(pictures):
    global count
    print("batch", len(pictures), flush=True)
    count += len(pictures)
    if sys.argv[3] == "hang" and count > 8:
        time.sleep(60)
    if sys.argv[3] == "ask":
        sys.stdin.readline()
    return torch.full((len(pictures), 3), float(sys.argv[4]))
cache = FeatureCache(open_store(Path(sys.argv[1])), np.arange(40), [sys.argv[2]], compute, "rows", 4)
print("computed", count, "of", len(cache(range(40))), flush=True)
"""


@pytest.fixture
def store(demo_store) -> ClipStore:
    return open_store(demo_store)


def start(store, key, how, value=1):
    command = [sys.executable, "-c", FILL, str(store.path), key, how, str(value)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


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


def test_a_kill_loses_no_row_that_was_written(store):
    process = start(store, "killed", "hang")
    batches = []
    while sum(batches) <= 8:  # the one that hangs is the last of them
        batches.append(int(process.stdout.readline().removeprefix("batch ")))
    written = sum(batches[:-1])
    process.send_signal(signal.SIGKILL)
    process.wait()
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


def test_processes_share_the_work_and_each_row_is_made_once(store):
    first = start(store, "shared", "ask")
    assert first.stdout.readline() == "batch 4\n"  # it holds one share and waits for us
    second = start(store, "shared", "go", 2)
    notes = ""
    while "waiting for other processes" not in notes:  # it has made all that the first does not hold
        assert (line := second.stderr.readline())
        notes += line
    out, err = first.communicate("\n" * 40, timeout=120)
    done = [int(text.rpartition("computed ")[2].split()[0]) for text in (out, second.communicate(timeout=120)[0])]
    assert sum(done) == 40 and min(done) >= 4 and done[1] >= 20
    assert "rows: 0 of 40 clips are there" in err + notes


def test_a_disk_without_room_is_named_and_no_row_is_written(store, monkeypatch):
    monkeypatch.setattr("mmcl.towers.cache.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
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
