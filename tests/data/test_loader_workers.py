"""Loader workers are out of reach of signals to the process group from their first moment on."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from mmcl.data.dataset import ClipDataset, plain_batches
from mmcl.data.loader import _workers, loader
from mmcl.data.store import open_store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers begin anew, and inherit no mask")
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_unless_deaf(path: str) -> None:
    for number in ASKING:
        os.kill(os.getpid(), number)  # before anybody could have had them ignored
    Path(path).touch()


def test_signals_do_not_end_a_worker_that_has_just_begun(tmp_path: Path) -> None:
    context, before = _workers(), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert context is not None
    process = context.Process(target=leave_unless_deaf, args=(str(tmp_path / "alive"),))
    process.start()
    process.join(60)
    assert process.exitcode == 0 and (tmp_path / "alive").exists()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before  # of this process nothing has changed


def test_batches_of_workers_are_those_without(demo_store: Path) -> None:
    store = open_store(demo_store)
    batches = plain_batches(range(6), 2)
    alone, by_workers = (list(loader(ClipDataset(store), batches, workers)) for workers in (0, 2))
    assert [batch["clips"].tolist() for batch in by_workers] == batches_of_clips(batches)
    for one, other in zip(alone, by_workers, strict=True):
        assert all((one[key] == other[key]).all() for key in ("joints", "lengths", "labels", "keys"))


def batches_of_clips(batches: list) -> list[list[int]]:
    return [[key.clip for key in batch] for batch in batches]
