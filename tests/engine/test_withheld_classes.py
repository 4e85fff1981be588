"""Training without some classes: over processes, resumed, and with an LLM that learns to answer with classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import reset_accelerate, train_forked
from running import arguments, assert_alike, records, weights

from mmcl.data.dataset import ClipDataset
from mmcl.data.loader import loader
from mmcl.data.prompts import load_prompts
from mmcl.data.store import open_store
from mmcl.engine.checkpoint import Checkpoints
from mmcl.engine.parsing import parse
from mmcl.engine.setup import build_task, open_data
from mmcl.tasks.colearn.task import CoLearning
from mmcl.train import train

WITHHELD = [0, 2, 7]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("withheld")
    rule = {"dataset": "demo", "base": "demo/cross_subject", "unseen": WITHHELD}
    (folder / "own.yaml").write_text(json.dumps({"open": rule}))
    return folder


@pytest.fixture(scope="module")
def options(folder, tower_folder) -> list[str]:
    return [
        f"--data.protocol={folder / 'own.yaml'}", "--task.name=colearn", "--task.alignment.weight=0",
        "--task.refinement.weight=0", "--task.text.weight=1", f"--task.clip.model={tower_folder('tiny-clip')}",
        "--data.batch_size=6", "--schedule.epochs=2", "--optimiser.rate=0.001", "--encoder.empty_bodies=each",
        "--seed=1",  # of seed 0, one activation of the first step is zero but for rounding
    ]  # fmt: skip


@pytest.fixture(scope="module")
def straight(demo_store, folder, options) -> Path:
    """On one process, from beginning to end."""
    assert train(parse(arguments(demo_store, folder / "one", *options))) == 0
    reset_accelerate()
    return folder / "one"


def test_two_processes_equal_one(demo_store, folder, options, straight) -> None:
    train_forked(folder / "counts", arguments(demo_store, folder / "two", *options))
    assert len(records(straight)) == 6 and all(record["loss_text"] > 0 for record in records(straight))
    assert_alike(straight, folder / "two")


def test_a_run_that_died_goes_on_as_if_it_had_not(demo_store, folder, options, straight, monkeypatch) -> None:
    saves, save = [], Checkpoints.save

    def dying(checkpoints: Checkpoints, *words: object) -> None:
        save(checkpoints, *words)
        saves.append(words)
        if len(saves) == 2:
            raise RuntimeError("died")

    words = arguments(demo_store, folder / "resumed", *options, "--engine.checkpoint_steps=2")
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="died"):
        patched.setattr(Checkpoints, "save", dying)
        train(parse(words))
    assert not (folder / "resumed/summary.json").exists()
    reset_accelerate()
    torch.manual_seed(5)
    assert train(parse([*words, "--resume=true"])) == 0
    reset_accelerate()
    found = weights(folder / "resumed")
    assert found.keys() == weights(straight).keys()
    assert [key for key, tensor in weights(straight).items() if not torch.equal(tensor, found[key])] == []


def test_the_answers_that_an_llm_learns_are_the_trained_classes_and_each_clip_s_own(
    demo_store, folder, tower_folder
) -> None:
    config = parse(
        arguments(
            demo_store, folder / "never", f"--data.protocol={folder / 'own.yaml'}", "--task.name=colearn",
            "--task.alignment.weight=0", f"--task.llm.path={tower_folder('tiny-llava')}", "--task.llm.lora_rank=2",
            "--task.refinement.language_weight=1",
        )
    )  # fmt: skip
    data, store = open_data(config), open_store(demo_store)
    task = build_task(config, data, torch.device("cpu"))
    assert isinstance(task, CoLearning) and task.refinement is not None
    every = load_prompts("demo").answers()
    assert task.inputs.answers == [answer for label, answer in enumerate(every) if label not in WITHHELD]
    assert task.refinement.class_vectors.shape[-1] == 12 - len(WITHHELD)
    dataset = ClipDataset(store, classes=data.split.classes)
    clips = data.split.train.tolist()
    batch = next(iter(loader(dataset, [[(0, clip) for clip in clips]])))
    for clip, label in zip(clips, batch["labels"].tolist(), strict=True):
        assert task.inputs.answers[label] == every[store.labels[clip]]
    withheld = int(np.flatnonzero(store.labels == WITHHELD[0])[0])
    with pytest.raises(ValueError, match=rf"\[{WITHHELD[0]}\] are not among the trained classes"):
        dataset[(0, withheld)]
