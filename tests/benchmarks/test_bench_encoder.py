"""The baseline carries an encoder's weights; the bench compares like with like and refuses what differs."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from mmcl.bench import main
from mmcl.benchmarks import any_encoder
from mmcl.benchmarks import encoder as bench
from mmcl.benchmarks.gpu.step import measure_gpu
from mmcl.benchmarks.plain.form import published_network
from mmcl.benchmarks.roof import best_products
from mmcl.common.errors import UserError
from mmcl.encoders.ctrgcn.network import CTRGCNOptions
from mmcl.encoders.ctrgcn.official import convert_official


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    """Shares are of products that take no time."""
    for module in (bench, any_encoder):
        monkeypatch.setattr(module, "best_products", partial(best_products, seconds=0.0, sizes=(16,)))


@pytest.mark.parametrize("options", [{"depth": 4}, {"width": 16, "depth": 6, "persons": 1, "adaptive": False}])
def test_the_baseline_has_the_encoder_s_weights_and_mode(options):
    encoder = bench.lively_encoder(CTRGCNOptions(**{"width": 8} | options), 8)
    baseline = published_network(encoder)
    again = convert_official(baseline.network.state_dict())
    for name, tensor in encoder.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(again.state[name], tensor), name
    assert not baseline.training and published_network(encoder.train()).training
    assert published_network(encoder.double()).network.fc.weight.dtype == torch.float64


def test_measures_every_variant_and_prints_a_table(tmp_path, capsys, monkeypatch):
    measure = bench.measure
    monkeypatch.setattr(bench, "measure", lambda *numbers: measure(*numbers, seconds=(0.0, 0.0)))
    file = tmp_path / "x.json"
    words = f"encoder --width 8 --frames 8 --batch 2 --threads 1 --json {file}".split()
    assert main(words) == 0
    out, facts = capsys.readouterr().out, json.loads(file.read_text())
    lines = [(one["what"], one["bodies"], one["variant"]) for one in facts["lines"] if "gpu" not in one["what"]]
    assert lines[:7] == [
        *[("use", 1, name) for name in ("published", "encoder", "lean")],
        *[("training", 1, name) for name in ("published", "each", "once", "once, bf16")],
    ]
    assert lines[7:] == [
        *[("use", 2, name) for name in ("published", "encoder", "lean")],
        *[("training", 2, name) for name in ("published", "once", "once, bf16")],
    ]
    exact = [one for one in facts["lines"] if "bf16" not in one["variant"]]
    assert all(one["difference"] <= 1e-4 and one["ratio"] > 0 for one in exact)
    assert all(one["ratio"] == 1.0 for one in facts["lines"] if one["variant"] == "published")
    assert out.count("\n| ") == len(facts["lines"]) + 2
    for one in facts["lines"]:  # published: gradients take twice what it takes forward
        rate = 2 * one["products"] / one["seconds"] / 1e9
        assert one["share"] == pytest.approx(rate / (one["roof"]["rate"] / 1e9))
    forward, training = (facts["lines"][place]["products"] for place in (0, 3))
    assert training == 2 * 3 * forward  # of two clips
    assert "Best products here, in 1e9 operations a second: fp32 " in out and " of 16 x 16, " in out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hyperformer", {"heads": 1, "head_width": 12, "depth": 3, "persons": 1}),
        ("step_catformer", {"width": 8, "depth": 3, "text_width": 4}),
        ("edge_gcn", {"width": 8, "input_depth": 1, "main_blocks": 1}),
        ("mamp", {"width": 8, "depth": 1, "heads": 2}),
    ],
)
def test_other_encoders_in_use_against_their_released_form(capsys, monkeypatch, name, options):
    monkeypatch.setattr(bench, "SECONDS", (0.0, 0.0))
    words = ["encoder", "--encoder", name, "--options", json.dumps(options), "--layout", "utd_mhad_20"]
    assert main([*words, "--frames", "8", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    variants = len({1, options.get("persons", 2)}) * 3
    assert out.count("| use | 1 |") == variants and "refused" not in out and f"{name} of " in out


@pytest.mark.parametrize(
    ("name", "options"), [("tcn", {"width": 8}), ("ctrgcn", {"width": 8, "depth": 3, "causal": True})]
)
def test_an_encoder_without_a_plain_form_is_compared_with_itself(capsys, monkeypatch, name, options):
    monkeypatch.setattr(bench, "SECONDS", (0.0, 0.0))
    words = ["encoder", "--encoder", name, "--options", json.dumps(options), "--layout", "utd_mhad_20"]
    assert main([*words, "--frames", "8", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("| encoder |") == out.count("| lean |") == 2 and "published |" not in out and "refused" not in out
    assert f"There is no plain form of {name} as published: ratios and differences are to `encoder`." in out


def test_no_ratio_for_a_network_that_computes_something_else(monkeypatch):
    kept = published_network

    def wrong(encoder):
        network = kept(encoder)
        network.network.fc.bias.data.add_(1.0)
        return network

    for module in (bench, any_encoder):
        monkeypatch.setattr(module, "published_network", wrong)
    encoder = bench.lively_encoder(CTRGCNOptions(width=8, depth=3), 8)
    clips = any_encoder.random_clips(encoder, 2, 8, 1)
    lines = any_encoder.compare_in_use(encoder, clips[:1], 1, 0.0, 1) + bench._training(encoder, clips, 1, 0.0, 1, {})
    assert all(one["ratio"] is None for one in lines if one["variant"] in ("encoder", "lean", "each", "once"))
    facts = {"machine": bench.machine("torch"), "width": 8, "frames": 8, "joints": 25, "lines": lines}
    table = bench.encoder_table(facts)
    assert table.count("refused") >= 4 and "Best products" not in table


def test_the_gpu_s_part_runs_with_its_trunk_in_one_graph():
    encoder = bench.lively_encoder(CTRGCNOptions(width=8, depth=3), 8)
    x = torch.randn(3, 2, 8, 25, 3)
    x[:, 1] = 0.0
    lines = measure_gpu(encoder, x, 1, 0.0, device="cpu", backend="eager")
    assert [one["variant"] for one in lines] == ["published", "once", "once, bf16, compiled"]
    assert lines[1]["difference"] <= 1e-4 and lines[2]["difference"] > 0


def test_senseless_numbers_are_refused():
    for words in (["--batch", "1"], ["--frames", "0"], ["--threads", "0"]):
        with pytest.raises(UserError, match="at least"):
            bench.main(words)
