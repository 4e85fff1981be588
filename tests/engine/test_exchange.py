"""What two processes send each other: what is trained, once a step, and nothing of what is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from forked import FACTS, reset_accelerate, train_forked
from running import arguments, assert_alike, records, weights

from mmcl.engine.parsing import parse
from mmcl.tasks.base import Task
from mmcl.tasks.supervised import Supervised
from mmcl.train import train

STEPS = 6


@pytest.fixture(scope="module")
def runs(demo_store, tower_folder, tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    """The same run on one process and two: CLIP live and frozen, an LLM with LoRA."""
    folder = tmp_path_factory.mktemp("exchange")
    options = [
        "--task.name=colearn", f"--task.clip.model={tower_folder('tiny-clip')}", "--task.cache=false",
        f"--task.llm.path={tower_folder('tiny-llava')}", "--task.llm.lora_dropout=0",
        "--optimiser.rate=0.001", "--schedule.epochs=2", "--engine.log_every=2",
        "--task.refinement.language_weight=1",
        "--encoder.empty_bodies=each",  # where one stands for all, there is one in every process
    ]  # fmt: skip
    train(parse(arguments(demo_store, folder / "one", *options)))
    reset_accelerate()
    return folder, train_forked(folder / "counts", arguments(demo_store, folder / "two", *options))


def test_the_steps_are_those_of_one_process(runs) -> None:
    folder, _ = runs
    assert_alike(folder / "one", folder / "two")
    assert all(record["gradient_norm/lora"] > 0 for record in records(folder / "two"))


def test_frozen_towers_are_outside_of_what_is_wrapped(runs) -> None:
    for facts in runs[1]:
        assert facts["wrapper"] == "DistributedDataParallel" and facts["searches"] is False
        assert "llm" in facts["modules"] and "clip" not in facts["modules"]
        assert len(facts["aside"]) == 1 and facts["aside"][0] > 10_000


def test_what_is_trained_is_broadcast_once_and_reduced_once_a_step_and_nothing_else(runs) -> None:
    folder, everyone = runs
    learned = weights(folder / "two")  # trained parameters, and running statistics beside them
    for facts in everyone:
        sent, calls = facts["bytes"], facts["calls"]
        trained = 4 * sum(facts["trained"].values())
        assert facts["frozen"] > sum(facts["trained"].values())
        assert sent["gradients", "all-reduce"] == STEPS * trained
        # all trained parameters once; before them, their shapes
        assert trained < sent["start", "broadcast"] < trained + 64 * len(facts["trained"])
        # one bucket of gradients; batch norms twice; embeddings there and back; three lines of the log
        assert calls["gradients", "all-reduce"] == STEPS * 1
        norms = sum(name.endswith("running_mean") for name in learned)
        assert calls["batch norm", "all-gather"] == calls["batch norm", "all-reduce"] == STEPS * norms
        assert calls["contrastive", "all-gather"] == calls["contrastive", "reduce-scatter"] == STEPS
        assert calls["metrics", "all-reduce"] == 4  # a line every two steps and at the end of an epoch
        assert calls["stop", "all-reduce"] <= STEPS
        assert ("other", "all-reduce") not in calls and ("other", "all-gather") not in calls


def note_statistics() -> None:
    """Keep the running statistics that a network is judged with, and those that a stage ends with."""
    FACTS["judged"], validation, end = [], Supervised.validation, Task.end

    def note(task: Task) -> None:
        FACTS["judged"].append({name: each.clone() for name, each in task.named_buffers() if "running" in name})

    def noted(task: Supervised, *words: Any) -> dict[str, float]:
        note(task)
        return validation(task, *words)

    Supervised.validation = noted  # type: ignore[method-assign]
    Task.end = lambda task, *words: (note(task), end(task, *words))[1]  # type: ignore[method-assign]


def test_one_network_is_judged_also_where_batch_norms_are_each_process_s_own(demo_store, tmp_path) -> None:
    words = ["--engine.sync_batchnorm=false", "--schedule.epochs=2", "--data.validation={subject: [1]}"]
    words = arguments(demo_store, tmp_path / "run", *words, "--data.batch_size=4")
    mine, other = (facts["judged"] for facts in train_forked(tmp_path / "ranks", words, prepare=[note_statistics]))
    assert len(mine) == len(other) == 3  # two epochs, and the end in between
    for one, two in zip(mine, other, strict=True):
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    saved = weights(tmp_path / "run")
    assert mine[0] and all(torch.equal(saved[name], each) for name, each in mine[-1].items())
