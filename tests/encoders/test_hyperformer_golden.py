"""Hyperformer against arrays of the released code: graph, attention term by term, units, whole networks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import Case, case_names, load_arrays, load_case, load_json

from mmcl.encoders.conversion import Conversion
from mmcl.encoders.counting import count_parameters
from mmcl.encoders.ctrgcn.official import convert_temporal
from mmcl.encoders.ctrgcn.temporal import TemporalUnit
from mmcl.encoders.hyperformer import Hyperformer, HyperformerOptions
from mmcl.encoders.hyperformer.attention import SpatialAttention
from mmcl.encoders.hyperformer.hypergraph import hop_distances, joint_labels
from mmcl.encoders.hyperformer.network import Unit
from mmcl.encoders.hyperformer.official import convert, convert_attention, convert_unit
from mmcl.skeletons.layout import load_layout

LAYOUTS = {25: "kinect_v2_25", 20: "ctrgcn_ucla_20"}  # the two that the released code has graphs of
GROUPS = 6  # of its projections
ALL_TERMS = {"qk", "hop", "q_e", "u_e"}


def swap(x):
    """(B, C, T, V), as the released code has it, from (B, C, V, T), as ours has it; or back."""
    return x.transpose(2, 3)


def graph(joints):
    """Distances and released hyperedges for a number of joints."""
    layout = load_layout(LAYOUTS[joints])
    return hop_distances(layout), joint_labels(layout, released=True)


def part(function, inside=""):
    """A conversion of the state dict of one part."""

    def convert_part(official):
        conversion = Conversion("Hyperformer", {f"theirs.{name}": tensor for name, tensor in official.items()})
        function(conversion, "ours", f"theirs{inside}")
        return {name.removeprefix("ours."): tensor for name, tensor in conversion.state.items()}

    return convert_part


def check_training(case: Case, module, convert_part, output="train"):
    """One forward in training, its gradients and the statistics behind it, where there are arrays of them."""
    module.train()
    found = swap(module(swap(case.tensor("in"))))
    case.check(found, case.tensor(output), output)
    case.check_group("after", module.state_dict(), convert_part)
    if case.group("grad"):
        (found * case.cotangent(found.shape)).sum().backward()
        case.check_group("grad", {name: p.grad for name, p in module.named_parameters()}, convert_part)


def test_distances_and_hyperedges_of_the_released_configuration():
    arrays = load_arrays("hyperformer", "graph")
    hops, labels = graph(len(arrays["hops"]))
    assert hops.tolist() == arrays["hops"].tolist()
    assert hops.max() + 1 == arrays["hop_table_rows"]
    assert labels == tuple(arrays["joint_label"])


def attention(name):
    case = load_case("hyperformer", "attention", name)
    facts = case.facts
    hops, _ = graph(case.arrays["in"].shape[3])
    module = SpatialAttention(facts["dim_in"], facts["dim"], facts["heads"], GROUPS, hops, facts["joint_label"])
    module.load_state_dict(part(convert_attention)(case.weights()))
    return case, module


def test_attention_stage_by_stage():
    for name in case_names("hyperformer", "attention"):
        case, module = attention(name)
        x = swap(case.tensor("in"))
        frames = x.permute(0, 2, 3, 1)
        normed, edges = module.norm(frames), module.edges(x)
        query, key_value = module.query(normed), module.key_value(normed)
        case.check(normed.transpose(1, 2), case.tensor("stage/layernorm"), "layernorm")
        for found, stage in ((edges, "hyperedge_feature"), (query, "q"), (key_value, "kv")):
            case.check(found.permute(0, 3, 2, 1), case.tensor(f"stage/{stage}"), stage)
        found = module.attend(query, key_value.chunk(2, dim=-1)[0], edges)
        case.check(found.transpose(1, 2), case.tensor("stage/attention_softmax"), "softmax")
        found = module(x)
        case.check(swap(found), case.tensor("eval"), "eval")
        skip = module.shortcut(frames).permute(0, 3, 1, 2) if case.facts["dim_in"] != case.facts["dim"] else x
        case.check(swap(found - skip), case.tensor("stage/attention_output"), "output")


def test_attention_term_by_term():
    for name in case_names("hyperformer", "attention"):
        for term in sorted(ALL_TERMS):
            case, module = attention(name)
            x = swap(case.tensor("in"))
            with torch.no_grad():
                normed, edges = module.norm(x.permute(0, 2, 3, 1)), module.edges(x)
                query, (key, _) = module.query(normed), module.key_value(normed).chunk(2, dim=-1)
                if term != "hop":
                    module.distance.zero_()
                if term != "u_e":
                    module.importance.zero_()
                query = query * (term != "u_e")
                key, edges = key * (term == "qk"), edges * (term in ("q_e", "u_e"))
                found = module.attend(query, key, edges)
            case.check(found.transpose(1, 2), case.tensor(f"attention_softmax_only_{term}"), term)


@pytest.mark.parametrize(("parameter", "array"), [("strength", "eval_alpha0"), ("relation", "eval_outer0")])
def test_attention_or_the_learnt_matrix_alone(parameter, array):
    for name in case_names("hyperformer", "attention"):
        case, module = attention(name)
        torch.nn.init.zeros_(getattr(module, parameter))
        case.check(swap(module(swap(case.tensor("in")))), case.tensor(array), array)


def temporal_cases():
    """All but unit_tcn, a convolution with a batch norm, which the network has with kernel 1 only; or None."""
    path = Path(os.environ.get("MMCL_TEST_GOLDEN") or os.devnull) / "hyperformer" / "tcn.json"
    names = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return [name for name in names if not name.startswith("unit_tcn")] or [None]


@pytest.mark.parametrize("name", temporal_cases())
def test_temporal_unit_is_that_of_ctrgcn(name):
    assert name in case_names("hyperformer", "tcn")  # skips where there is no folder
    case, convert_part = load_case("hyperformer", "tcn", name), part(convert_temporal, ".branches")
    if case.facts["cin"] != case.facts["cout"]:
        pytest.skip(f"{name}: TemporalUnit keeps its channels, as in all networks; released option cin != cout")
    module = TemporalUnit(case.facts["cout"], case.facts["stride"])
    module.load_state_dict(convert_part(case.weights()))
    found = swap(module.eval()(swap(case.tensor("in"))))
    case.check(found, case.tensor("eval"), "eval")
    branches = [case.tensor(f"stage/branches.{branch}") for branch in range(len(case.group("stage")))]
    case.check(found, torch.cat(branches, dim=1), "branches")
    check_training(case, module, convert_part)


def test_unit_in_evaluation_and_training():
    for name in case_names("hyperformer", "block"):
        case, convert_part = load_case("hyperformer", "block", name), part(convert_unit)
        facts = case.facts
        options = HyperformerOptions(heads=facts["heads"], head_width=facts["cout"] // facts["heads"])
        module = Unit(facts["cin"], facts["stride"], options, *graph(case.arrays["in"].shape[3]))
        module.load_state_dict(convert_part(case.weights()))
        x = swap(case.tensor("in"))
        attended = module.eval().attention(x)
        case.check(swap(attended), case.tensor("stage/vit1"), "vit1")
        case.check(swap(module.temporal(attended)), case.tensor("stage/tcn1"), "tcn1")
        case.check(swap(module.residual(x)), case.tensor("stage/residual"), "residual")
        case.check(swap(module(x)), case.tensor("eval"), "eval")
        check_training(case, module, convert_part)


def network(name):
    case = load_case("hyperformer", name)
    x = case.tensor("in").permute(0, 4, 2, 3, 1).contiguous()
    shapes = {entry["name"]: entry["shape"] for entry in case.facts["tensors"]}
    heads, width = shapes["l1.vit1.attn.outer"][0], shapes["fc.weight"][1]
    assert case.facts.get("heads", heads) == heads
    options = HyperformerOptions(
        heads=heads, head_width=width // heads, persons=x.shape[1], released=True, empty_bodies="each"
    )
    encoder = Hyperformer(load_layout(LAYOUTS[x.shape[3]]), case.facts["num_class"], options)
    encoder.load_state_dict(convert(case.weights()).state)
    return case, x, encoder.eval()


def test_small_network_stage_by_stage_and_in_training():
    case, x, encoder = network("network")
    bodies = encoder.normalise(x)
    N, M, _, V, C = x.shape
    found = bodies.unflatten(0, (N, M)).permute(0, 1, 3, 2, 4).reshape(N, M * V * C, -1)
    case.check(found, case.tensor("stage/data_bn"), "data_bn")
    for number, unit in enumerate(encoder.units, start=1):
        bodies = unit(bodies)
        case.check(swap(bodies), case.tensor(f"stage/l{number}"), f"l{number}")
    for form in (encoder, encoder.lean(x.shape[2])):
        case.check(form(x), case.tensor("logits_eval"), "eval")
    case.check(encoder.train()(x), case.tensor("logits_train"), "train")
    case.check_group("after", encoder.state_dict(), lambda official: convert(official).state)


def test_published_network_at_its_size():
    case, x, encoder = network("full")
    assert count_parameters(encoder) == case.facts["counts"]["total"]
    with torch.no_grad():
        bodies = encoder.normalise(x)
        for number, unit in enumerate(encoder.units, start=1):
            bodies = unit(bodies)
            if f"mean_over_TV/l{number}" in case.arrays:
                case.check(bodies.mean(dim=(2, 3)), case.tensor(f"mean_over_TV/l{number}"), f"l{number}")
        case.check(encoder(x), case.tensor("logits"), "eval")
        case.check(encoder.lean()(x), case.tensor("logits"), "lean")


def test_published_counts_module_by_module():
    for name, counts in load_json("hyperformer", "counts").items():
        if not name.startswith("hyperformer_"):
            continue
        classes, ucla = int(name.rpartition("K")[2]), "ucla" in name
        options = HyperformerOptions(persons=1 if ucla else 2)
        with torch.device("meta"):
            encoder = Hyperformer(load_layout(LAYOUTS[20 if ucla else 25]), classes, options)
        assert count_parameters(encoder) == counts["total"]
        found = [count_parameters(unit) for unit in encoder.units]
        assert found == [counts[f"l{number}"] for number in range(1, 11)]
        assert np.prod(encoder.classifier.weight.shape) + classes == counts["fc"]
