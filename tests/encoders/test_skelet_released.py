"""SkeleT-GCN equals the released code, unit by unit and as a whole: outputs, gradients, statistics, counts."""

from __future__ import annotations

import re

import pytest
import torch
from golden import Case, count_parameters, load_arrays, load_case, load_json
from released_skelet import (
    KINDS,
    POSITIONS,
    SYSTEM,
    TEMPORAL,
    build_skelet,
    build_spatial,
    build_temporal,
    golden_names,
    graph_options,
    in_our_form,
    load_official,
    network_case,
    official_weights,
    options_of,
    skip_without,
    skip_without_form,
)
from torch import Tensor, nn

from mmcl.encoders.bodies import Bodies
from mmcl.encoders.graph import normalise_columns, pool_matrices, pooled_graph, undirected_graph
from mmcl.encoders.skelet.blocks import Block
from mmcl.encoders.skelet.network import Skelet
from mmcl.encoders.skelet.official import convert_block, convert_pooling, convert_spatial, convert_temporal
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.encoders.skelet.persons import InstancePooling
from mmcl.encoders.skelet.temporal import MultiScale
from mmcl.skeletons.layout import load_layout

# Batch statistics of ten blocks in a row: there float32 costs the released code itself up to 1.8e-5 of the largest
# entry, as our network in float64 shows.
TRAINING = 3e-5
LAYOUT = load_layout("coco_wholebody_65")


def check_module(case: Case, module: nn.Module, part, stages, args, call=nn.Module.__call__) -> None:
    """Evaluation with the named stages, the folded form, then one training pass with statistics and gradients."""
    weights = official_weights(case)
    load_official(module, part, weights)
    seen: dict[str, Tensor] = {}
    hooks = [part.register_forward_hook(lambda _, __, y, name=name: seen.__setitem__(name, y))
             for name, part in stages.items()]  # fmt: skip
    with torch.no_grad():
        case.check(call(module.eval(), *args), case.tensor("eval"), "eval")
    for hook in hooks:
        hook.remove()
    for name, expected in case.group("stage").items():
        if name in seen:
            case.check(seen[name].reshape(expected.shape), expected, name)
    found = call(module.train(), *args)
    case.check(found.detach(), case.tensor("train"), "train", relative=TRAINING)
    (found * case.cotangent(found.shape)).sum().backward()
    buffers, parameters = dict(module.named_buffers()), dict(module.named_parameters())
    statistics = in_our_form(module, part, weights, case.group("after"))
    assert len(statistics) == sum("running" in name for name in buffers)
    for name, expected in statistics.items():
        case.check(buffers[name], expected, f"after {name}", relative=TRAINING)
    gradients = in_our_form(module, part, weights, case.group("grad"))
    largest = max((float(gradient.abs().max()) for gradient in gradients.values()), default=0.0)
    for name, expected in gradients.items():  # what only shifts a batch norm's input has a gradient of rounding errors
        own = max(float(expected.abs().max()), 1e-30)
        case.check(parameters[name].grad, expected, f"gradient of {name}", relative=max(1e-4, 1e-6 * largest / own))
    if hasattr(module, "fold"):
        load_official(module, part, weights)
        with torch.no_grad():
            module.eval().fold()
            case.check(call(module, *args), case.tensor("eval"), "folded")
        assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


@pytest.mark.parametrize("name", golden_names("gmf.json"))
def test_spatial_units(name: str | None) -> None:
    skip_without(name)
    case = load_case(SYSTEM, "gmf", name)
    unit = build_spatial(case.facts)
    assert count_parameters(unit) == case.facts["params"]
    stages = {"down": unit.shortcut, "conv_post": unit.mix}
    if unit.lead is not None:
        stages["conv_pre.0"], stages["conv_pre.1"] = unit.lead.conv, unit.lead.bn
    check_module(case, unit, convert_spatial, stages, (case.tensor("in"),))
    groups = [case.tensor(f"stage/basic_gcn_blocks.{group}") for group in range(case.facts["groups"])]
    load_official(again := build_spatial(case.facts), convert_spatial, official_weights(case))
    x = case.tensor("in")
    found = again.eval().graph(again.mapped(x))
    case.check(found, torch.cat(groups, dim=1), "groups")


@pytest.mark.parametrize("name", [name for name in golden_names("tcn.json") if name is None or "unit" not in name])
def test_temporal_units(name: str | None) -> None:
    """All but unit_tcn, a plain convolution with batch norm, which no network of the release uses alone."""
    skip_without(name)
    case = load_case(SYSTEM, "tcn", name)
    skip_without_form(case.facts["kwargs"])
    unit, x = build_temporal(case), case.tensor("in")
    check_module(case, unit, convert_temporal, {"transform": getattr(unit, "mix", unit)}, (x,))
    load_official(unit := build_temporal(case), convert_temporal, official_weights(case))
    if "num_joints" in case.facts["kwargs"]:
        x = torch.cat([x, x.mean(dim=3, keepdim=True)], dim=3)
    branches = [case.tensor(f"stage/branches.{branch}") for branch in range(len(unit.widths))]
    found = unit.eval().branches(x)
    case.check(found if isinstance(unit, MultiScale) else unit.outer_bn(found), torch.cat(branches, 1), "branches")


@pytest.mark.parametrize("name", golden_names("blocks.json"))
def test_blocks(name: str | None) -> None:
    skip_without(name)
    case = load_case(SYSTEM, "blocks", name)
    facts, kwargs = case.facts, case.facts["kwargs"]
    first = not kwargs.get("residual", True)
    groups, subsets, joints, _ = facts["A_shape"]
    shape = facts["M_shape"]
    equal = "importance" if kwargs.get("same_transformation_importance") else "map"
    options = SkeletOptions(
        gcn=kwargs["gcn_type"], tcn=TEMPORAL[kwargs["tcn_type"]], subsets=subsets, mapping=KINDS[facts["M_adaptive"]],
        equal_levels=equal if shape else "none", split_way=kwargs.get("split_way", "conv+split"),
        **graph_options(kwargs["gcn_type"], kwargs, "gcn_"),
    )  # fmt: skip
    pool = torch.zeros(shape) if shape and shape[0] != shape[1] else None
    block = Block(options, (facts["cin"], facts["cout"]), groups, pool, torch.zeros(joints, joints),
                  kwargs.get("t_factor"), first=first)  # fmt: skip
    stages = {"gcn": block.spatial, "tcn": block.temporal}
    if block.shortcut is not None:
        stages["residual"] = block.shortcut
    check_module(case, block, convert_block, stages, (case.tensor("in"),))


def test_instance_pooling() -> None:
    known = load_json(SYSTEM, "instance_pool")
    prefixes = {key.partition("/")[0] for key in load_arrays(SYSTEM, "instance_pool")}
    assert {prefix.rpartition("_dp")[0] for prefix in prefixes} == set(known)
    for prefix in sorted(prefixes):
        name, _, drop = prefix.rpartition("_dp")
        case = Case(prefix, known[name], load_case(SYSTEM, "instance_pool", prefix).arrays)
        facts = case.facts
        pooling = InstancePooling(
            facts["in_channels"], facts["base"], facts["joints"], POSITIONS[facts["pe"]],
            drop_path=float(drop), by_batch=True,
        )  # fmt: skip
        x = case.tensor("in").permute(0, 1, 4, 2, 3)  # (N, M, T, V, C)
        bodies = Bodies(torch.ones(x.shape[:2], dtype=torch.bool), None)
        args = x.flatten(0, 1), bodies
        check_module(case, pooling, convert_pooling, {}, args)


def backbone(encoder: Skelet, x: Tensor) -> Tensor:
    """The released backbone's output: (N, M, D, T', V'), or with instance pooling (N, D)."""
    found = encoder.trunk(x)
    return found.mean(dim=(2, 3)) if encoder.pooling is not None else found.unflatten(0, x.shape[:2])


@pytest.mark.parametrize("file", golden_names("backbone_*.json"))
def test_networks(file: str | None) -> None:
    case = network_case(file)
    x = case.tensor("in")
    encoder = build_skelet(case.facts["args"], persons=x.shape[1])
    assert count_parameters(encoder) - count_parameters(encoder.classifier) == case.facts["counts"]["total"]
    stages = {f"gcn.{number}": block for number, block in enumerate(encoder.blocks)}
    if encoder.pooling is not None:
        encoder.pooling.drop_path = 0.0
        stages["instance_pooling_block"] = encoder.pooling
    check_module(case, encoder, None, stages, (x,), backbone)
    normal = case.group("stage")["data_bn"]
    load_official(encoder, None, official_weights(case))
    found = encoder.eval().bodies(x)[1].permute(0, 2, 3, 1).flatten(1, 2)
    case.check(found, normal.view(found.shape), "data_bn")
    scores = encoder(x).detach()
    case.check(encoder.lean()(x), scores, "lean")
    case.check(encoder.outputs(x)["scores"], scores, "outputs")


@pytest.mark.parametrize("file", golden_names("full_*.json"))
def test_full_size(file: str | None) -> None:
    case = network_case(file)
    x = case.tensor("in")
    head = {"tensors": case.facts["head_tensors"], "weight_seed": case.facts["head_seed"]}
    weight, bias = Case("head", head, {}).weights().values()
    encoder = build_skelet(case.facts["args"], persons=x.shape[1], classes=len(bias))
    assert count_parameters(encoder) - count_parameters(encoder.classifier) == case.facts["counts"]["total"]
    load_official(encoder, None, official_weights(case))
    encoder.classifier.weight.data, encoder.classifier.bias.data = weight, bias
    means = case.group("mean_over_TV")
    for network in (encoder.eval(), encoder.lean()):
        seen: dict[str, Tensor] = {}
        hooks = [network.blocks[int(name.removeprefix("gcn."))].register_forward_hook(
            lambda _, __, y, name=name, seen=seen: seen.__setitem__(name, y.mean(dim=(2, 3))))
            for name in means]  # fmt: skip
        bodies = network.trunk(x)
        for hook in hooks:
            hook.remove()
        for name, expected in means.items():
            case.check(seen[name], expected, f"mean of {name}")
        case.check(bodies, case.tensor("feature").view(bodies.shape), "feature")
        case.check(network(x), case.tensor("logits_of_own_head"), "logits")


def test_head() -> None:
    arrays = {key: torch.from_numpy(array) for key, array in load_arrays(SYSTEM, "head").items()}
    pooled = arrays["in_N_M_C_T_V"].mean(dim=(3, 4)).mean(dim=1)
    (weight,) = (array for key, array in arrays.items() if key.endswith("weight"))
    (bias,) = (array for key, array in arrays.items() if key.endswith("bias"))
    encoder = Skelet(LAYOUT, len(bias), SkeletOptions(width=weight.shape[1], groups=(1,), widen=(), halve=(), pool=()))
    encoder.classifier.weight.data, encoder.classifier.bias.data = weight, bias
    torch.testing.assert_close(encoder.head(pooled), arrays["logits"])
    torch.testing.assert_close(encoder.head(arrays["in_pooled_N_C"]), arrays["logits_pooled_input"])


def level_of(key: str) -> list[int]:
    """Numbers of joints that a key tells."""
    return [int(number) for number in re.findall(r"J(\d+)", key)]


def test_blocks_start_at_the_graphs_of_their_levels() -> None:
    arrays = {key: torch.from_numpy(array) for key, array in load_arrays(SYSTEM, "graph").items()}
    encoder = Skelet(LAYOUT, 2, SkeletOptions(width=8))
    levels = {LAYOUT.joint_count, *map(len, LAYOUT.pools.values())}
    keys = [key for key in arrays if key.startswith("A/") and level_of(key)[0] in levels and arrays[key].dim() == 2]
    assert keys
    for key in keys:
        graphs = [block.spatial.graph.adjacency for block in encoder.blocks]
        graphs = [graph for graph in graphs if graph.shape[-1] == len(arrays[key])]
        assert graphs
        for found in graphs:
            torch.testing.assert_close(found, arrays[key].expand_as(found), rtol=0, atol=1e-6)


@pytest.mark.parametrize("key", golden_names("graph.npz"))
def test_graphs_and_pools(key: str | None) -> None:
    skip_without(key)
    expected = torch.from_numpy(load_arrays(SYSTEM, "graph")[key])
    counts = [LAYOUT.joint_count, *map(len, LAYOUT.pools.values())]
    pools, graph, at = pool_matrices(LAYOUT), undirected_graph(LAYOUT), level_of(key)
    joints = int(expected.max()) + 1 if key.startswith(("edges", "bone_pairs")) else max(at, default=0)
    if joints != LAYOUT.joint_count and joints not in counts:
        pytest.skip(f"{key}: the encoder knows the release's {LAYOUT.joint_count} points, not {joints}")

    def product(start: int, end: int) -> Tensor:
        between = pools[counts.index(start) : counts.index(end)]
        return between[0] if len(between) == 1 else torch.linalg.multi_dot(between)

    if key.startswith("edges"):
        assert {frozenset(edge) for edge in LAYOUT.edges + LAYOUT.links} == {frozenset(e) for e in expected.tolist()}
    elif key.startswith("bone_pairs"):
        assert [list(pair) for pair in enumerate(LAYOUT.bone_parents)] == expected.tolist()
    elif key.startswith("hop_distance"):
        assert torch.equal(expected.isfinite(), graph > 0) and not expected.diagonal().any()
        assert (expected[expected.isfinite()] <= 1).all()
    elif len(at) == 2 and expected.shape == (max(at), min(at)):
        found = product(max(at), min(at))
        torch.testing.assert_close(found, expected, rtol=0, atol=0 if found is pools[counts.index(max(at))] else 1e-6)
    elif len(at) == 2 and expected.shape == (min(at), max(at)):
        found = torch.linalg.pinv(product(max(at), min(at)).double())
        torch.testing.assert_close(found.to(expected), expected, rtol=0, atol=1e-6)
    elif key == f"A_raw/J{LAYOUT.joint_count}":
        assert torch.equal(graph, expected)
    elif key == f"A/J{LAYOUT.joint_count}":
        torch.testing.assert_close(normalise_columns(graph), expected, rtol=0, atol=1e-7)
    elif key.startswith("A/") and expected.shape == (joints, joints):
        found = normalise_columns(pooled_graph(graph, product(LAYOUT.joint_count, joints)))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    else:
        pytest.skip(f"the encoder makes no matrix of the kind of {key}")


@pytest.mark.parametrize("name", golden_names("counts.json"))
def test_parameters_at_full_size(name: str | None) -> None:
    skip_without(name)
    counts, options = load_json(SYSTEM, "counts")[name], options_of(name)
    if options is None:
        pytest.skip(f"{name} is no SkeleT-GCN of ours: another network that the release compares with")
    with torch.device("meta"):
        encoder = Skelet(LAYOUT, 60, SkeletOptions(**options))
    assert count_parameters(encoder) - count_parameters(encoder.classifier) == counts["total"]
    for part, count in counts.items():
        if part.startswith("gcn."):
            assert count_parameters(encoder.blocks[int(part[4:])]) == count, part
    if encoder.pooling is not None:
        assert count_parameters(encoder.pooling) == counts["instance_pooling_block"]
