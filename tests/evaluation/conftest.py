"""Tiny runs on the demo without some of its classes, to be judged on those."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from open_runs import PSEUDO, WITHHELD

from mmcl.engine.parsing import parse
from mmcl.train import train

SMALL = [
    "--data.batch_size=8", "--data.workers=0", "--preprocess.window=16", "--augmentation.crop_floor=16",
    "--encoder.width=8", "--encoder.depth=3", "--schedule.epochs=1", "--schedule.warmup_epochs=0",
    "--engine.trackers=[]", "--task.name=colearn", "--task.alignment.weight=0", "--task.refinement.weight=0",
    "--task.text.weight=1",
]  # fmt: skip

Train = Callable[..., Path]


@pytest.fixture(scope="session")
def clip(tower_folder) -> str:
    return str(tower_folder("tiny-clip"))


@pytest.fixture(scope="session")
def train_open(demo_store, clip, tmp_path_factory) -> Train:
    """Train without some of the demo's classes: name, more words -> run folder, with the protocols' file beside it."""
    folder = tmp_path_factory.mktemp("open")
    rule = {"dataset": "demo", "base": "demo/cross_subject", "unseen": WITHHELD, "pseudo_unseen": PSEUDO}
    rules = {"open": {**rule, "calibrate": {"subject": 3}}}
    for name, labels in (("all_seen", [0, 1, 3]), ("all_unseen", WITHHELD)):  # what a store may have of the test side
        sides = {"train": {"subject": [1, 3]}, "test": {"subject": [2, 4], "label": labels}}
        rules |= {f"{name}_sides": {"dataset": "demo", **sides}, name: {**rule, "base": f"{name}_sides"}}
    (folder / "own.yaml").write_text(json.dumps(rules), encoding="utf-8")

    def run(name: str, *more: str) -> Path:
        words = [*SMALL, f"--data.path={demo_store}", f"--data.protocol={folder / 'own.yaml'}"]
        words += [f"--task.clip.model={clip}", f"--out={folder / name}", *more]
        assert train(parse(words)) == 0
        return folder / name

    return run


@pytest.fixture(scope="session")
def open_run(train_open) -> Path:
    """Ten classes trained, two withheld."""
    return train_open("run")


@pytest.fixture(scope="session")
def gate_run(train_open, open_run) -> Path:
    """Eight classes trained, and two more withheld, on whose clips the gate is fitted."""
    return train_open("gate_run", f"--data.protocol={open_run.parent / 'own.yaml'}:open/gate", "--seed=1")
