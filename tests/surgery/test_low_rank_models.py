"""Any encoder is compressed, kept as data, loaded, used, exported, and compressed again."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.encoders import ENCODERS
from mmcl.encoders.base import lean_form
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_macs, count_parameters
from mmcl.encoders.factored import factored_layers
from mmcl.models.bundle import build_network, describe, load_bundle, write_bundle
from mmcl.models.description import parse_description
from mmcl.models.model import Model
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.surgery.base import build_surgery
from mmcl.surgery.low_rank.measure import latencies
from mmcl.surgery.low_rank.table import layer_table

NTU, WINDOW = load_layout("kinect_v2_25"), 16
SIZES = {  # wide enough that factors save something, and with what a surgery has to look out for
    "arn_lstm": {
        "streams": ["inter"], "frames": 8, "step": 8, "relation_widths": [32, 24], "dense_widths": [24],
        "lstm_width": 24,
    },
    "edge_gcn": {"inputs": ["acceleration"], "width": 8, "input_depth": 1, "main_blocks": 1},
    "hyperformer": {"heads": 3, "head_width": 8, "groups": 2, "depth": 3},
    "mamp": {"width": 8, "depth": 2, "heads": 2, "expansion": 2, "frames": 16, "head": "mlp", "hidden": 8},
}  # fmt: skip
FULL = {"policy": "ratio", "amount": 1.0, "skip": False, "temporal": True, "head": True}


def lived_in(name: str) -> Model:
    """A small network with statistics and biases that are not those of a new one."""
    torch.manual_seed(0)
    encoder = build_encoder(name, NTU, 5, SIZES.get(name, ENCODERS[name].tiny))
    preprocess = Preprocess(NTU, NTU, encoder.options.persons, PreprocessOptions(window=WINDOW))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for _ in range(3):
            encoder.train()(preprocess(torch.randn(4, 2, 20, 25, 3)))
    return Model(describe(name, encoder.eval(), preprocess, list("abcde")), encoder, preprocess)


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: lived_in(name) for name in ENCODERS}


@pytest.fixture(scope="module")
def clips() -> Tensor:
    joints = torch.randn(3, 2, 24, 25, 3, generator=torch.Generator().manual_seed(1))
    joints[0, 1] = 0.0
    return joints


def close(one: Tensor, two: Tensor, tolerance: float = 1e-4) -> None:
    assert (one - two).abs().max() <= tolerance * two.abs().max().clamp(min=1.0)


@pytest.mark.parametrize("name", ENCODERS)
def test_at_full_rank_a_network_is_the_same_function_in_every_form(name: str, models, clips) -> None:
    model = models[name]
    full = build_surgery("low_rank", FULL).run(model)
    found = [layer for _, layer in factored_layers(full.encoder)]
    assert len(found) >= 4 and any(name.startswith("classifier") for name, _ in factored_layers(full.encoder))
    assert not full.encoder.altered
    expected, x = model(clips), model.preprocess(clips)
    close(full(clips), expected)
    with torch.no_grad():
        close(full.encoder(x), expected)
    merged = build_surgery("low_rank", {"policy": "merge"}).run(full)
    assert not any(True for _ in factored_layers(merged.encoder))
    assert type(lean_form(merged.encoder)) is type(lean_form(model.encoder))
    close(merged(clips), expected)
    old, new = model.encoder.state_dict(), full.encoder.state_dict()
    kept = {key for key in old if key in new}
    assert all(torch.equal(old[key], new[key]) for key in kept)
    assert {key for key in old if key.endswith(("bias", "running_mean", "running_var", "num_batches_tracked"))} <= kept


@pytest.mark.parametrize("name", ENCODERS)
def test_a_smaller_network_is_kept_as_data_and_trained(name: str, models, clips, tmp_path) -> None:
    model = models[name]
    small = build_surgery("low_rank", {"policy": "parameters", "amount": 0.9}).run(model)
    assert small.description.counts["parameters"] <= 0.9 * model.description.counts["parameters"]
    assert small.description.counts["parameters"] == count_parameters(small.encoder)
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_bundle(folder, small)
    loaded = load_bundle(folder)
    close(loaded(clips), small(clips), 1e-5)
    encoder = loaded.encoder.train()
    encoder(model.preprocess(clips)).logsumexp(dim=1).sum().backward()
    beside = tuple(encoder.beside_parts)
    idle = [key for key, p in encoder.named_parameters() if p.grad is None and not key.startswith(beside or ("-",))]
    assert not [key for key in idle if ".down" in key or ".up." in key]
    rows = layer_table(model.encoder, small.encoder)
    assert sum(row.before - row.after for row in rows) == (
        model.description.counts["parameters"] - small.description.counts["parameters"]
    )  # fmt: skip
    assert all(row.energy == pytest.approx(1 - row.error**2, abs=1e-5) for row in rows)


def test_compressed_twice_with_a_budget_of_multiply_accumulates(models, clips) -> None:
    model = models["hyperformer"]
    once = build_surgery("low_rank", {"policy": "macs", "amount": 0.8}).run(model)
    macs = model.description.counts["macs"]
    assert 0.6 * macs < once.description.counts["macs"] == count_macs(once.encoder, WINDOW) <= 0.8 * macs
    twice = build_surgery("low_rank", {"policy": "ratio", "amount": 0.2}).run(once)
    counts = [one.description.counts["parameters"] for one in (model, once, twice)]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == 3
    read = parse_description(json.loads(json.dumps(twice.description.to_json())), "twice")
    built, _ = build_network(read, "twice")
    built.load_state_dict(twice.encoder.state_dict())
    with torch.no_grad():
        close(built.eval()(model.preprocess(clips)), twice(clips))
    assert [operation.name for operation in read.surgeries] == ["low_rank", "low_rank"]
    assert len([*twice.record.lineage()]) == 3


def test_factors_of_a_huge_network_are_used_as_they_are(models, clips, monkeypatch) -> None:
    small = build_surgery("low_rank", {"policy": "rank", "amount": 1}).run(models["ctrgcn"])
    assert type(lean_form(small.encoder)) is type(lean_form(models["ctrgcn"].encoder))
    expected = small(clips)
    monkeypatch.setattr("mmcl.encoders.base.LARGEST", 100)
    plain = lean_form(small.encoder)
    assert type(plain) is type(small.encoder) and any(True for _ in factored_layers(plain))
    with torch.no_grad():
        close(plain(small.preprocess(clips)), expected)


def test_what_is_of_low_rank_is_found_again_and_not_by_random_directions(models, clips) -> None:
    small = build_surgery("low_rank", {"amount": 0.4}).run(models["hyperformer"])
    merged = build_surgery("low_rank", {"policy": "merge"}).run(small)
    found = {
        basis: build_surgery("low_rank", {"amount": 0.4, "basis": basis}).run(merged) for basis in ("svd", "random")
    }
    close(found["svd"](clips), merged(clips))
    assert (found["random"](clips) - merged(clips)).abs().max() > 0.05 * merged(clips).abs().max()
    assert {one.description.counts["parameters"] for one in found.values()} == {count_parameters(small.encoder)}


def test_a_budget_of_milliseconds_is_measured(models, monkeypatch) -> None:
    """Time is what a model takes here; in its place stands a count, which no other process disturbs."""
    seen: list[int] = []

    def counted(models, seconds):
        seen.append(count_parameters(models[0].encoder))
        return [type("Timing", (), {"seconds": seen[-1] / 1e6})]

    model = models["edge_gcn"]
    whole = model.description.counts["parameters"]
    monkeypatch.setattr("mmcl.surgery.low_rank.surgery.graph_latencies", counted)
    small = build_surgery("low_rank", {"policy": "milliseconds", "amount": 0.9 * whole / 1e3}).run(model)
    assert seen[0] == whole and min(seen) < small.description.counts["parameters"] <= 0.9 * whole
    monkeypatch.undo()
    assert 0 < latencies([model], 0.05)[0].seconds < 60


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        ({"layers": {"units.9.query": [1]}}, "no layer 'units.9.query'"),
        ({"layers": {"units.0.attention.norm": [1]}}, "no layer"),
        ({"layers": {"": [1]}}, "no layer ''"),
        ({"layers": {"x" * 10_000: [1]}}, "no layer"),
        ({"layers": {"units.1.attention.query": [10**9]}}, "rank of 1000000000 does not fit"),
        ({"layers": {"units.1.attention.query": [0]}}, "does not fit"),
        ({"layers": {"units.1.attention.query": [-1]}}, "does not fit"),
        ({"layers": {"units.1.attention.query": [1] * 5}}, "parts do not fit"),
        ({"layers": {"units.1.attention.mix": [1, 1]}}, "parts do not fit"),
        ({"layers": {"units.1.attention.query": [True]}}, "must be"),
        ({"layers": {"units.1.attention.query": [1.0]}}, "must be"),
        ({"layers": {"units.1.attention.query": "1"}}, "must be"),
        ({"layers": [1]}, "must be"), ({"layers": {}, "code": "rm"}, "no option code"), ({"layers": None}, "must be"),
    ],
)  # fmt: skip
def test_a_structure_that_a_stranger_wrote_is_refused(structure: dict, words: str, models) -> None:
    content = models["hyperformer"].description.to_json()
    content["surgeries"] = [{"name": "low_rank", "options": {}, "structure": structure}]
    with pytest.raises(UserError, match=words):
        build_network(parse_description(content, "edited"), "edited")


def test_what_cannot_be_done_is_said(models) -> None:
    model = models["hyperformer"]
    with pytest.raises(UserError, match="no factored layer to merge"):
        build_surgery("low_rank", {"policy": "merge"}).run(model)
    with pytest.raises(UserError, match="no layer would hold fewer numbers"):
        build_surgery("low_rank", {"amount": 1.0}).run(model)
    with pytest.raises(UserError, match="within 1e\\+09 macs as it is"):
        build_surgery("low_rank", {"policy": "macs", "amount": 1e9}).run(model)
    with pytest.raises(UserError, match=r"rank 1 in every layer that may be factored .*--temporal.*--option head=true"):
        build_surgery("low_rank", {"policy": "parameters", "amount": 10}).run(model)
    with pytest.raises(UserError, match="'outputs' looks at training clips"):
        build_surgery("low_rank", {"basis": "outputs"}).run(model)
