"""A run folder has one writer, and nothing in it blocks the next try."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from running import arguments, launch, records
from short_runs import SHORT, run
from torch.utils.data import get_worker_info

from mmcl.common.errors import UserError
from mmcl.common.leftovers import beside
from mmcl.data.dataset import ClipDataset, Sample
from mmcl.data.sampler import Key
from mmcl.engine.loop import Loop
from mmcl.engine.parsing import parse
from mmcl.engine.run_folder import LOCK, WRITER, check_run
from mmcl.engine.writer import sole_writer
from mmcl.tasks.supervised import Supervised
from mmcl.train import train

pytestmark = pytest.mark.usefixtures("fresh")


def hold(folder: str, words: list[str], ready: str) -> None:
    with sole_writer(parse(words)):
        Path(ready).touch()
        time.sleep(60)


def test_a_second_writer_is_told_who_writes(demo_store, tmp_path) -> None:
    words = arguments(demo_store, tmp_path / "run", *SHORT)
    context = multiprocessing.get_context("forkserver")
    holder = context.Process(target=hold, args=(str(tmp_path / "run"), words, str(tmp_path / "ready")))
    holder.start()
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "ready").exists() and time.monotonic() < until:
            time.sleep(0.05)
        with pytest.raises(UserError, match=rf"is being written by process {holder.pid} on .* since .*another --out"):
            train(parse(words))
    finally:
        holder.kill()
        holder.join()
    assert run(demo_store, tmp_path / "run") == 0  # what was killed holds nothing
    assert not (tmp_path / "run" / ".writer.json").exists()


def test_who_is_refused_leaves_the_folder_and_the_lock_of_who_has_just_begun(demo_store, tmp_path) -> None:
    """The first one holds the lock and has written nothing yet, not even its name."""
    out = tmp_path / "run"
    config = parse(arguments(demo_store, out, *SHORT))
    out.mkdir()
    with FileLock(out / LOCK):
        for _ in range(2):  # the second time, too
            with pytest.raises(UserError, match="is being written by another process"), sole_writer(config):
                pass
            assert [path.name for path in out.iterdir()] == [LOCK]
    with sole_writer(config):
        pass
    assert not out.exists()


@pytest.mark.parametrize("moment", ["first step", "second step"])
def test_what_fails_before_a_checkpoint_does_not_block_the_corrected_command(
    demo_store, tmp_path, monkeypatch, moment
) -> None:
    def fails(task: Supervised, batch: dict) -> dict:
        if moment == "first step" or batch["step"]:
            raise RuntimeError("something broke")
        return forward(task, batch)

    forward, out = Supervised.forward, tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="something broke"):
        patch.setattr(Supervised, "forward", fails)
        run(demo_store, out, "--engine.checkpoint_steps=0", "--engine.trackers=[tensorboard]", "--encoder.width=16")
    assert (out / "config.yaml").is_file()  # to see what it was
    assert run(demo_store, out, "--data.batch_size=4") == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["encoder"]["width"] == 8
    assert [line["step"] for line in records(out)] == list(range(1, 13))


def test_a_refused_run_leaves_no_folder_and_a_foreign_folder_alone(demo_store, tmp_path) -> None:
    with pytest.raises(UserError, match="no protocol"):
        run(demo_store, tmp_path / "run", "--data.protocol=nosuch")
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is no run folder"):
        run(demo_store, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "written", [("/.writer.json",), ("texts.yaml",), ("/texts.yaml",), ("texts.yaml", "/config.yaml")]
)
def test_a_run_that_was_killed_while_it_began_is_begun_again(tmp_path, written) -> None:
    """Each of its files is written beside its place (here with a slash) and then renamed."""
    config, out = parse(arguments(tmp_path / "store", tmp_path / "run")), tmp_path / "run"
    out.mkdir()
    for name in (LOCK, *written):
        path = out / name.removeprefix("/")
        (beside(path) if name.startswith("/") else path).touch()
    check_run(config)
    with sole_writer(config):
        assert {path.name for path in out.iterdir()} == {LOCK, WRITER}
    assert not out.exists()


def test_texts_of_somebody_s_own_are_left_alone(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "texts.yaml").write_text("precious")
    with pytest.raises(UserError, match="is no run folder"):
        check_run(parse(arguments(tmp_path / "store", tmp_path / "run")))


def test_what_a_killed_run_was_writing_goes_when_it_goes_on(copy, demo_store) -> None:
    for name in ("model.json", "summary.json"):
        beside(copy / name).touch()
    with sole_writer(parse(arguments(demo_store, copy, *SHORT, "--resume=true"))):
        assert not list(copy.glob("*.tmp")) and not list(copy.glob(".*.tmp"))
        assert (copy / "config.yaml").is_file()


def test_a_run_is_not_begun_in_a_store(tmp_path) -> None:
    (tmp_path / "store.json").touch()
    out = tmp_path / "runs" / "first"
    with pytest.raises(UserError, match="lies in the clip store .*choose another --out"):
        check_run(parse(arguments(tmp_path, out)))
    assert not out.exists()


def test_a_stop_of_the_whole_process_group_saves_and_leaves_nobody_behind(demo_store, tmp_path) -> None:
    """What ``timeout`` and batch systems send: loader workers get the signal, too."""
    out = tmp_path / "run"
    words = arguments(demo_store, out, "--data.workers=2", "--schedule.epochs=400", "--engine.log_every=1")
    process = launch(*words, group=True)
    until = time.monotonic() + 120
    while process.poll() is None and not (out / "metrics.jsonl").is_file() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    output = "".join(process.communicate(timeout=60))
    assert process.returncode == 130 and "Traceback" not in output, output
    assert "stopped after step" in output and (out / "checkpoints" / "last" / "position.json").is_file()
    until = time.monotonic() + 60
    with pytest.raises(ProcessLookupError):  # soon, no process of the group is left
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.02)


@pytest.mark.slow
def test_a_worker_that_hangs_holds_nobody_up(demo_store, tmp_path) -> None:
    """It reads ahead while the run is asked to stop; 20 seconds."""
    words = arguments(demo_store, tmp_path / "run", "--data.workers=1", "--engine.log_every=1")
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=hang_in_a_worker, args=(words,))
    process.start()
    process.join(90)
    ended = process.exitcode
    process.kill()
    assert ended == 130 and (tmp_path / "run" / "checkpoints" / "last" / "position.json").is_file()


def hang_in_a_worker(words: list[str]) -> None:
    load = ClipDataset.__getitem__

    def slow(dataset: ClipDataset, key: Key) -> Sample:
        if key.step == 2 and get_worker_info() is not None:
            time.sleep(1e6)
        return load(dataset, key)

    ClipDataset.__getitem__ = slow  # type: ignore[method-assign]
    Loop._asked_to_stop = lambda loop, _: loop.position.steps == 1  # type: ignore[method-assign]
    sys.exit(train(parse(words)))


def test_a_diverged_run_says_of_which_step_its_checkpoint_is(demo_store, tmp_path) -> None:
    words = ["--optimiser.rate=1e20", "--schedule.warmup_epochs=0", "--engine.log_every=100"]
    with pytest.raises(UserError, match=r"(loss is nan|diverged by step 2).*checkpoints/last is of step 1;"):
        run(demo_store, tmp_path / "run", *words)
