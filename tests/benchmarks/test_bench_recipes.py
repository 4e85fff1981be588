"""``mmcl bench recipes``: the NTU recipes on stores that are made up, smaller ones here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmcl.benchmarks import made_ntu
from mmcl.benchmarks.recipes import CASES, Case, measure
from mmcl.benchmarks.recipes_table import DryRun, table
from mmcl.benchmarks.step_cost import StepCost
from mmcl.data.store import open_store
from mmcl.encoders.counting import count_macs
from mmcl.engine.parsing import parse
from mmcl.engine.recipes import recipe_names
from mmcl.engine.setup import build_skeleton_branch

SMALL = ["--encoder.width=8", "--encoder.depth=3", "--preprocess.window=16", "--augmentation.crop_floor=16"]
HERE = {
    "processor": "p", "instructions": "", "processors": 1, "load": 0, "waiting": "not set", "versions": {"torch": "2"}
}  # fmt: skip


def test_every_ntu_recipe_is_among_them() -> None:
    covered = {name for case in CASES for name in case.recipes}
    assert covered == {name for name in recipe_names() if name.startswith("ntu_")}


def test_a_recipe_is_opened_whole_and_its_steps_are_counted(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(made_ntu.SIDES, "ntu120", (600, 240))
    (run,) = measure([Case("small", ("ntu_joint",))], tmp_path, 4, SMALL)
    store = open_store(tmp_path / "ntu120")
    assert len(store) == 840 and len(set(store.labels.tolist())) == 120
    assert (run.clips, run.batch, run.steps) == (600, 64, 65 * (600 // 64)) and run.protocol == "ntu120/xsub"
    config = parse(["--config", "ntu_joint", f"--data.path={store.path}", *SMALL])
    encoder, _ = build_skeleton_branch(config, store, 120)
    # Of every product of the forward pass the backward pass has two, for the weights and for what is below; the turns
    # of the augmentation add a few.
    forward = 4 * count_macs(encoder, 16)
    assert 3 * forward <= run.cost.macs < 3.01 * forward
    numbers = sum(map(torch.Tensor.numel, encoder.parameters()))
    assert run.cost.trained == numbers and run.cost.held == 3 * 4 * numbers  # weights, gradients, momentum
    assert run.cost.kept > 4 * 2 * 16 * 25 * 8 * 4  # more than one layer's output


def test_hours_and_memory_are_the_arithmetic_that_the_table_says() -> None:
    cost = StepCost(macs=4 * 10**9, kept=4 * 10**6, held=5 * 10**6, trained=10**6, seconds=0.5)
    run = DryRun("r", "t, e", "p", 1000, 64, 1000, 0.1, 4, cost)
    assert run.hours(10, 1) == pytest.approx(2 * 1e9 * 64 * 1000 / 1e13 / 3600)  # a clip has 1e9, an addition each
    assert run.hours(10, 8) == pytest.approx(run.hours(10, 1) / 8) == pytest.approx(run.hours(80, 1))
    assert run.memory(1) == 5e6 + 64e6 and run.memory(8) == 5e6 + 8e6
    assert replace(run, batch=128).hours(10, 1) == pytest.approx(2 * run.hours(10, 1))
    assert "| `r` | p, 1,000 | 64 x 1,000 | 0.1 | 1.00 | 1 | 0.069, 0.013 | 4, 0.50 |" in table([run], HERE, 10)
