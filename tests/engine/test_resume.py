"""A killed, stopped or resumed run ends in the very weights of an uninterrupted one."""

import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from running import arguments, launch, records, train, weights

from mmcl.common.interrupts import stop_requests
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.demo import Demo


@pytest.fixture(scope="module")
def options(demo_store, tower_folder) -> list[str]:
    """Co-learning with everything random switched on: augmentation noise, LoRA dropout."""
    return [
        "--task.name=colearn", "--augmentation.noise=0.01", "--engine.checkpoint_steps=1",
        f"--task.clip.model={tower_folder('tiny-clip')}", f"--task.llm.path={tower_folder('tiny-llava')}",
        "--task.llm.lora_dropout=0.2", "--task.refinement.language_weight=0.5",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def straight(demo_store, options, tmp_path_factory) -> Path:
    """The run that nothing happens to."""
    out = tmp_path_factory.mktemp("straight") / "run"
    train(*arguments(demo_store, out, *options))
    return out


def interrupt(command: list[str], out: Path, number: int, step: int) -> int:
    """Start a run, send it a signal once its checkpoint of ``step`` is there, and return its exit status."""
    process = launch(*command)
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if (out / "metrics.jsonl").is_file() and len(records_so_far(out)) > step:
            process.send_signal(number)
            break
        time.sleep(0.01)
    process.communicate(timeout=100)
    return process.returncode


def records_so_far(out: Path) -> list[str]:
    return (out / "metrics.jsonl").read_text().splitlines()


def assert_same_run(out: Path, straight: Path) -> None:
    expected, found = weights(straight), weights(out)
    assert found.keys() == expected.keys()
    differing = [key for key, tensor in expected.items() if not torch.equal(tensor, found[key])]
    assert not differing
    steps = [record["step"] for record in records(out)]
    assert steps == list(range(1, 10))  # 3 epochs of 3 steps, every step once
    assert [r["loss"] for r in records(out)] == [r["loss"] for r in records(straight)]


def test_kill_9_in_the_middle_of_an_epoch_then_resume_is_bit_identical(demo_store, options, straight, tmp_path) -> None:
    out = tmp_path / "run"
    with_workers = [*options, "--data.workers=2"]  # and without them the weights are the same
    status = interrupt(arguments(demo_store, out, *with_workers), out, signal.SIGKILL, step=4)
    assert status == -signal.SIGKILL
    done = len(records_so_far(out))
    assert 4 < done < 9 and not (out / "summary.json").exists()
    output = train(*arguments(demo_store, out, *options, "--resume=true"))
    assert "resuming at step" in output
    assert_same_run(out, straight)
    assert "is complete already" in train(*arguments(demo_store, out, *options, "--resume=true"))


def test_a_kill_between_the_two_renames_of_a_save_loses_nothing(demo_store, options, straight, tmp_path) -> None:
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    (out / "checkpoints" / "last").rename(out / "checkpoints" / ".last.old")
    (out / "summary.json").unlink()
    output = train(*arguments(demo_store, out, *options, "--resume=true"))
    assert "resuming at step 9" in output and (out / "summary.json").is_file()
    assert_same_run(out, straight)


def test_a_store_that_has_changed_is_not_resumed_on(demo_store, options, straight, tmp_path) -> None:
    out, store = tmp_path / "run", tmp_path / "store"
    shutil.copytree(demo_store, store)
    train(*arguments(store, out, *options, "--schedule.epochs=1"))
    prepare(Demo(demo_store.parent / "raw"), store, crop_size=48, workers=1, overwrite=True, progress=False)
    output = train(*arguments(store, out, *options, "--schedule.epochs=1", "--resume=true"), status=2)
    assert "content has changed" in output.splitlines()[-1]


def test_a_stop_signal_saves_a_checkpoint_and_says_how_to_go_on(demo_store, options, straight, tmp_path) -> None:
    out = tmp_path / "run"
    quiet = [*options, "--engine.checkpoint_steps=0"]  # so that only the signal can have saved the position
    assert interrupt(arguments(demo_store, out, *quiet), out, signal.SIGTERM, step=3) == 130
    assert "resuming at step" in train(*arguments(demo_store, out, *quiet, "--resume=true"))
    assert_same_run(out, straight)


def test_ctrl_c_and_a_stop_signal_are_collected_until_the_loop_looks() -> None:
    both = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in both]
    with stop_requests() as received:
        for number in both:
            signal.raise_signal(number)
        assert received == [*both]
    assert [signal.getsignal(number) for number in both] == before


def test_same_seed_same_run_and_another_seed_another(demo_store, options, straight, tmp_path) -> None:
    train(*arguments(demo_store, tmp_path / "again", *options))
    assert_same_run(tmp_path / "again", straight)
    train(*arguments(demo_store, tmp_path / "other", *options, "--seed=1"))
    assert records(tmp_path / "other")[0]["loss"] != records(straight)[0]["loss"]


def test_an_existing_run_is_never_overwritten_nor_resumed_differently(demo_store, options, straight) -> None:
    output = train(*arguments(demo_store, straight, *options), status=2)
    assert output.splitlines()[-1].startswith("error:") and "--resume=true" in output
    output = train(*arguments(demo_store, straight, *options, "--resume=true", "--optimiser.rate=0.2"), status=2)
    assert "optimiser.rate was 0.1 and is now 0.2" in output
