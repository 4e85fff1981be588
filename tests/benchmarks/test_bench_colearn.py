"""What ``mmcl bench colearn`` charges to whom, and that cached co-learning stays a small addition, in operations."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmcl.bench import main
from mmcl.benchmarks import colearn, steps
from mmcl.benchmarks.steps import PARTS, Clock, SteppedRun, _charged
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.engine.parsing import parse
from mmcl.engine.setup import open_data


class Spends(torch.autograd.Function):
    """Identity that takes so many seconds of a made-up clock, forth and back."""

    @staticmethod
    def forward(ctx, x, clock, forth, back):
        ctx.clock, ctx.back = clock, back
        clock.now += forth
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.clock.now += ctx.back
        return gradient, None, None, None


@pytest.fixture
def time(monkeypatch):
    made_up = type("Time", (), {"now": 0.0, "perf_counter": lambda self: self.now})()
    monkeypatch.setattr(steps, "time", made_up)
    return made_up


def test_each_part_is_charged_what_it_takes_forth_and_back(time):
    clock = Clock()
    encoder = _charged(clock, "encoder", lambda x: Spends.apply(x, time, 1.0, 10.0))
    tower = _charged(clock, "LLM", lambda x: Spends.apply(x, time, 2.0, 20.0))
    features, weight = torch.ones(3, requires_grad=True), nn.Parameter(torch.ones(3))
    clock.switch("data")
    time.now += 0.5
    clock.switch("losses")
    skeleton, answer = encoder(features), tower(weight)
    loss = Spends.apply((skeleton * answer).sum(), time, 4.0, 40.0)
    loss.backward()
    clock.switch("optimiser")
    time.now += 8.0
    clock.switch("")
    time.now += 100.0  # between two steps nobody is charged
    assert clock.read() == {"data": 0.5, "encoder": 11.0, "LLM": 22.0, "losses": 44.0, "optimiser": 8.0, "CLIP": 0.0}
    assert set(clock.read().values()) == {0.0}


@pytest.fixture
def keys(demo_store, tower_folder):
    return [
        "--config=ntu_joint", f"--data.path={demo_store}", "--data.protocol=demo/cross_subject", "--task.name=colearn",
        "--data.batch_size=8", "--data.workers=0", "--encoder.width=8", "--preprocess.window=16",
        "--augmentation.crop_floor=16", f"--task.clip.model={tower_folder('tiny-clip')}",
        f"--task.llm.path={tower_folder('tiny-llava')}",
    ]  # fmt: skip


def test_all_four_ways_are_measured_and_their_parts_make_up_the_step(keys, tmp_path):
    facts = colearn.measure(keys, tmp_path, 0.1, made_up=True)
    assert list(facts["variants"]) == ["skeleton", "cached", "prefix", "live"]
    for name, variant in facts["variants"].items():
        assert sum(variant["parts"].values()) == pytest.approx(variant["seconds"], rel=0.5)
        spent = {part for part in PARTS if variant["parts"][part] > 1e-4}
        assert ("LLM" in spent) == (name in ("prefix", "live")) and ("CLIP" in spent) == (name == "live")
        assert variant["rounds"] >= 3 and variant["step_bytes"] >= 0
    assert "cached" in facts["variants"]["cached"]["loaded"]["CLIP"]
    write_json(tmp_path / "facts.json", facts)
    assert json.loads((tmp_path / "facts.json").read_text())["shape"] == facts["shape"]
    lines = colearn.colearn_table(facts).splitlines()
    assert "cached features 512 and 2048 wide" in lines[2] and lines[4].startswith("| ms a step | skeleton | cached |")
    assert len({line.count("|") for line in lines[4:]}) == 1


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls[str(function)] += 1
        return function(*args, **(kwargs or {}))


def test_a_cached_step_is_a_few_operations_more_than_a_skeletons(keys, tmp_path):
    config = parse([*keys, f"--out={tmp_path}", "--engine.trackers=[]"])
    data, counts = open_data(config), {}
    for name, variant in colearn.variants(config).items():
        if name in ("skeleton", "cached"):
            task = colearn._build(variant, data)
            step = SteppedRun(variant, data, task, tmp_path / name)
            step()
            with Counting() as counting:
                step()
            counts[name] = counting.calls
    extra = counts["cached"] - counts["skeleton"]
    assert 100 < extra.total() < 300  # of about 3000
    assert not [name for name in extra if "conv" in name or "attention" in name]  # no tower runs


def test_mistakes_are_named(keys, tmp_path):
    with pytest.raises(UserError, match="--task.name=colearn, must ask for it"):
        colearn.measure(["--config=ntu_joint"], tmp_path, 1.0, made_up=False)
    for words in (["--seconds", "0"], ["--threads", "-1"]):
        with pytest.raises(UserError, match="--seconds must be positive and --threads at least 1"):
            main(["colearn", *words])
