"""Both stages of STARS as runs: the second starts from the first, is killed with a half-full queue, and resumes."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from running import arguments, launch, records, train, weights

MAMP = [
    "--encoder.name=mamp", "--encoder.width=16", "--encoder.depth=2", "--encoder.heads=2", "--encoder.frames=16",
    "--optimiser.name=adamw", "--optimiser.rate=0.003", "--data.validation={subject: [1]}", "--data.batch_size=4",
]  # fmt: skip
FIRST = ["--task.name=masked_motion", "--task.decoder.width=16", "--task.decoder.depth=1", "--task.decoder.heads=2"]


def options(*more: str) -> list[str]:
    """Of a small MAMP, in place of CTR-GCN's."""
    return [*MAMP, *more]


@pytest.fixture(scope="module")
def first(demo_store, tmp_path_factory) -> Path:
    """A run of masked motion prediction: 12 clips, 3 epochs of 3 steps."""
    out = tmp_path_factory.mktemp("first") / "run"
    train(*arguments(demo_store, out, *options(*FIRST)))
    return out


def second(demo_store: Path, first: Path, out: Path) -> list[str]:
    """Command line of contrast from its weights, with a queue that takes five steps to fill."""
    words = ["--task.name=neighbour_contrast", "--task.queue=20", "--task.hidden=32", "--engine.checkpoint_steps=1"]
    return arguments(demo_store, out, *options(f"--start.checkpoint={first}", *words))


@pytest.fixture(scope="module")
def straight(demo_store, first, tmp_path_factory) -> Path:
    """The second stage, uninterrupted."""
    out = tmp_path_factory.mktemp("second") / "run"
    train(*second(demo_store, first, out))
    return out


def test_the_first_stage_is_judged_without_labels(first):
    lines = records(first, "validation")
    assert len(lines) == 3 and all(line["minus_loss"] < 0 <= line["nearest_top1"] <= 1 for line in lines)
    summary = json.loads((first / "summary.json").read_text())
    assert summary["validation"]["metric"] == "minus_loss"
    assert summary["validation"]["best"] == max(line["minus_loss"] for line in lines)
    losses = [line["loss"] for line in records(first)]
    assert losses[-1] < losses[0] and all("accuracy" not in line for line in records(first))


def test_the_second_stage_tunes_the_later_half_of_the_encoder_alone(first, straight):
    before, after = weights(first), weights(straight)
    changed = {name for name in after if name in before and not torch.equal(before[name], after[name])}
    tuned = {name for name in before if name.startswith(("encoder.blocks.1.", "encoder.norm."))}
    assert changed == tuned and not any(name.startswith("decoder.") for name in after)
    assert int(after["queue.position"]) == 36 % 20 and after["queue.owners"].ge(0).all()
    assert all(0 <= line["share_same_class"] <= 1 for line in records(straight))
    assert json.loads((straight / "summary.json").read_text())["validation"]["metric"] == "nearest_top1"


def test_kill_9_with_a_half_full_queue_then_resume_is_bit_identical(demo_store, first, straight, tmp_path):
    out = tmp_path / "run"
    process, deadline = launch(*second(demo_store, first, out)), time.monotonic() + 200
    position = out / "checkpoints" / "last" / "position.json"
    while process.poll() is None and time.monotonic() < deadline and not position.is_file():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=100)
    owners = weights(out)["queue.owners"]
    assert owners.ge(0).any() and owners.lt(0).any() and not (out / "summary.json").exists()
    assert "resuming at step" in train(*second(demo_store, first, out), "--resume=true")
    expected, found = weights(straight), weights(out)
    assert found.keys() == expected.keys()
    assert not [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])]
    assert [line["loss"] for line in records(out)] == [line["loss"] for line in records(straight)]
