"""Caches that several runs want: killed makers, makers at the same time, ragged rows."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.data.store import open_store
from mmcl.towers.cache import FeatureCache, Work
from mmcl.towers.claim import claimed_file
from mmcl.towers.ragged import RaggedFile, RaggedWriter

CLIPS = np.array([2, 5, 7, 30])
FILL = """
import sys, time, numpy as np, torch
from pathlib import Path
from mmcl.data.store import open_store
from mmcl.towers.cache import FeatureCache, Work
count = 0
def compute(pictures):
    global count
    count += 1
    print("batch", count, flush=True)
    sys.stdin.readline() if sys.argv[2] == "go" else time.sleep(float(sys.argv[2]))
    return torch.full((len(pictures), 3), float(sys.argv[3]))
cache = FeatureCache(open_store(Path(sys.argv[1])), np.arange(40), ["raced"], Work(compute, "rows", 4))
print("first row", float(cache.rows[0, 0]), "batches", count, flush=True)
"""


def start(store, wait, value):
    command = [sys.executable, "-c", FILL, str(store), str(wait), str(value)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def features(store):
    return sorted(path.name for path in (store / "features").iterdir())


def test_a_killed_maker_leaves_nothing_that_counts_and_the_next_one_clears_up(demo_store):
    before = features(demo_store) if (demo_store / "features").is_dir() else []
    process = start(demo_store, 30, 1)
    assert process.stdout.readline() == "batch 1\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = set(features(demo_store)) - set(before)
    assert left.startswith(".") and left.endswith(".filling")
    work = Work(lambda pictures: torch.zeros(len(pictures), 2), "others")
    other = FeatureCache(open_store(demo_store), CLIPS, ["another key"], work)
    assert set(features(demo_store)) - set(before) == {other.path.name}


def test_two_makers_at_the_same_time_make_one_file_once(demo_store):
    first = start(demo_store, "go", 1)
    assert first.stdout.readline() == "batch 1\n"
    second = start(demo_store, 0, 2)
    while "waiting for another run" not in (note := second.stderr.readline()):
        assert note, second.stdout.read()  # it ended without having waited
    assert first.communicate("\n" * 10, timeout=120)[0].endswith("first row 1.0 batches 10\n")
    assert second.communicate(timeout=120)[0] == "first row 1.0 batches 0\n"
    assert not [name for name in features(demo_store) if name.startswith(".")]


def test_a_disk_without_room_is_named_and_nothing_stays_behind(demo_store, monkeypatch):
    before = features(demo_store) if (demo_store / "features").is_dir() else []
    monkeypatch.setattr("mmcl.towers.cache.shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    work = Work(lambda pictures: torch.zeros(len(pictures), 64), "rows")
    with pytest.raises(UserError, match="caching rows needs .* GiB in .*features, .*task.cache=false"):
        FeatureCache(open_store(demo_store), CLIPS, ["no room"], work)
    assert features(demo_store) == before


def test_a_maker_that_fails_hands_over_to_the_one_that_waits(tmp_path):
    path = tmp_path / "file"
    child = os.fork()
    if child == 0:
        try:
            with claimed_file(path) as temporary:
                temporary.write_text("half")
                (tmp_path / "begun").touch()
                time.sleep(1)
                raise RuntimeError
        finally:
            os._exit(0)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    with claimed_file(path) as temporary:
        assert temporary is not None and temporary.read_text() == ""
        temporary.write_text("whole")
    os.waitpid(child, 0)
    assert path.read_text() == "whole" and sorted(os.listdir(tmp_path)) == ["begun", "file"]


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), claimed_file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ragged_rows_come_back_through_a_pickle(tmp_path, dtype):
    rows = [torch.randn(n, 5).to(dtype) for n in (3, 1, 4)]
    with (tmp_path / "file").open("wb") as file:
        writer = RaggedWriter(file)
        for part in rows:
            writer.append(part)
        writer.finish("hidden", rows[0], ends=torch.tensor([3, 4, 8]), nothing=torch.zeros(0, dtype=torch.int32))
    read = pickle.loads(pickle.dumps(RaggedFile(tmp_path / "file")))
    assert len(pickle.dumps(read)) < 500
    assert torch.equal(read["hidden", 0:8], torch.cat(rows)) and torch.equal(read["hidden", 3:4], rows[1])
    assert read["ends", :].tolist() == [3, 4, 8] and read["nothing", :].shape == (0,) and "other" not in read


def test_feature_caches_travel_as_their_files_name(demo_store):
    work = Work(lambda pictures: torch.randn(len(pictures), 2000), "wide")
    cache = FeatureCache(open_store(demo_store), CLIPS, ["travels"], work)
    sent = pickle.dumps(cache)
    assert len(sent) < 3000
    again = pickle.loads(sent)
    assert torch.equal(again([30, 2]), cache([30, 2])) and np.array_equal(again.rows[3], cache([30])[0])
