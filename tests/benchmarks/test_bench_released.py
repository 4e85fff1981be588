"""One table of systems beside their released formulations: equal outputs, plain forms that are really taken."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from tasks.made_tasks import context_of

from mmcl.bench import main
from mmcl.benchmarks import released
from mmcl.benchmarks.plain import steps as plain_steps
from mmcl.benchmarks.plain.form import published_network
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.encoders.mamp.blocks import Block
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.masked_motion.options import DecoderOptions, MaskedMotionOptions
from mmcl.tasks.masked_motion.task import MaskedMotion

TINY = {
    "mamp": {"width": 8, "depth": 2, "heads": 2, "frames": 16}, "ctrgcn": {"width": 8, "depth": 3},
    "sttformer": {"width": 8, "layers": [[8, 4], [12, 4]], "tuple_frames": 4},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mamp", {"released": True}),
        ("mamp", {"head": "mlp", "pooling": "joints"}),
        ("sttformer", {}),
        ("sttformer", {"released": True}),
    ],
)
def test_plain_forms_have_the_same_scores_and_gradients(name, options):
    torch.manual_seed(0)
    encoder = build_encoder(name, load_layout("utd_mhad_20"), 4, TINY[name] | options).double().train()
    for parameter in encoder.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(3, 2, 18, 20, 3, dtype=torch.float64)  # a window that is filled up
    x[1, 1] = 0.0
    gradients = []
    for network in (encoder, published_network(encoder)):
        encoder.zero_grad()
        scores = network(x)
        scores.square().sum().backward()
        gradients.append([scores.detach(), *(parameter.grad.clone() for parameter in encoder.parameters())])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_step_that_is_written_out_takes_the_plain_blocks_and_has_the_same_loss():
    torch.manual_seed(0)
    encoder = build_encoder("mamp", load_layout("utd_mhad_20"), 4, {"persons": 1, **TINY["mamp"]})
    options = MaskedMotionOptions(ratio=0.5, decoder=DecoderOptions(width=8, depth=1, heads=2))
    task = MaskedMotion(context_of(encoder, 16, [0, 1, 2, 3]), options)
    x, there = torch.randn(2, 1, 16, 20, 3), torch.ones(2, 1, 16, 20, dtype=torch.bool)
    noise = torch.rand(2, 1, task.tokens)
    expected = task.clip_losses(x, there, noise)
    plain_steps.write_out(task)
    blocks = [module for module in task.modules() if isinstance(module, Block)]
    assert len(blocks) == 3 and all(isinstance(block.forward, partial) for block in blocks)
    torch.testing.assert_close(task.clip_losses(x, there, noise), expected)


def test_prints_a_table_of_equal_outputs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(released, "NETWORKS", TINY)
    monkeypatch.setattr(released, "PEOPLE", 2)
    file = tmp_path / "x.json"
    words = ["released", "--frames", "16", "--batch", "2", "--seconds", "0", "--threads", "1", "--json", str(file)]
    names = ["sttformer", "STARS, stage 2", "Shap-Mix"]
    assert main([*words, "--only", *names]) == 0
    lines = json.loads(file.read_text())["lines"]
    assert [one["system"] for one in lines] == ["sttformer"] * 3 + names[1:]
    assert all(one["difference"] <= 1e-4 for one in lines if one["bound"] is not None)
    assert all(one["ratio"] > 0 for one in lines) and "5 of 5 compared" in capsys.readouterr().out
    with pytest.raises(UserError, match="--batch at least 2"):
        main([*words, "--batch", "1"])


def test_no_ratio_for_what_computes_something_else():
    timing = released.Timing(1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 1, 1)
    lines = [released.result("a", "b", "", off, bound, timing) for off, bound in ((1e-3, 1e-4), (1e-3, None))]
    assert [one["ratio"] for one in lines] == [None, 2.0]
