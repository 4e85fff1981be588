"""SkeleT-GCN equals the released code, unit by unit and as a whole: outputs, gradients, statistics, counts."""

from __future__ import annotations

import pytest
import torch
from golden import Case, case_names, count_parameters, load_arrays, load_case, load_json
from released_skelet import KINDS, POSITIONS, TEMPORAL, build_skelet, in_our_form, load_official
from torch import Tensor, nn

from mmcl.encoders.bodies import Bodies
from mmcl.encoders.graph import normalise_columns, pool_matrices, pooled_graph, undirected_graph
from mmcl.encoders.skelet.blocks import Block, SpatialUnit
from mmcl.encoders.skelet.graphs import GRAPHS
from mmcl.encoders.skelet.mapping import JointMap, Shortcut
from mmcl.encoders.skelet.network import Skelet
from mmcl.encoders.skelet.official import convert_block, convert_pooling, convert_spatial, convert_temporal
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.encoders.skelet.persons import InstancePooling
from mmcl.encoders.skelet.temporal import MultiScale, PlainScale
from mmcl.skeletons.layout import load_layout

SYSTEM = "skelet_gcn"
# Batch statistics of ten blocks in a row: there float32 costs the released code itself up to 1.8e-5 of the largest
# entry, as our network in float64 shows.
TRAINING = 3e-5
LAYOUT = load_layout("coco_wholebody_65")


def check_module(case: Case, module: nn.Module, part, stages, args, call=nn.Module.__call__) -> None:
    """Evaluation with the named stages, the folded form, then one training pass with statistics and gradients."""
    load_official(module, part, case.weights())
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
    statistics = in_our_form(module, part, case.weights(), case.group("after"))
    assert len(statistics) == sum("running" in name for name in buffers)
    for name, expected in statistics.items():
        case.check(buffers[name], expected, f"after {name}", relative=TRAINING)
    for name, expected in in_our_form(module, part, case.weights(), case.group("grad")).items():
        case.check(parameters[name].grad, expected, f"gradient of {name}", relative=1e-4)
    if hasattr(module, "fold"):
        load_official(module, part, case.weights())
        with torch.no_grad():
            module.eval().fold()
            case.check(call(module, *args), case.tensor("eval"), "folded")
        assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def gmf(facts: dict) -> SpatialUnit:
    """Our spatial unit for the arguments of a released "grouped mapping framework"."""
    pool = torch.zeros(facts["V_in"], facts["V_out"])
    same = facts["V_in"] == facts["V_out"]
    kind = KINDS[facts["M_adaptive"]]
    joints = JointMap(
        torch.eye(len(pool)) if same else pool, facts["groups"],
        "importance" if same and facts["importance_when_same"] else kind,
    )  # fmt: skip
    channels = facts["in_channels"], facts["out_channels"]
    more = {"subset_wise": facts["extra"].get("subset_wise", False)} if facts["gcn"] == "dggcn" else {}
    graph = GRAPHS[facts["gcn"]](
        *channels, facts["groups"], torch.zeros(2 * [facts["V_out"]]), facts["subsets"], **more
    )
    return SpatialUnit(channels[1], joints, graph, Shortcut(*channels, None if same else pool, kind))


def test_spatial_units() -> None:
    for name in case_names(SYSTEM, "gmf"):
        case = load_case(SYSTEM, "gmf", name)
        unit = gmf(case.facts)
        assert count_parameters(unit) == case.facts["params"]
        stages = {"down": unit.shortcut, "conv_post": unit.mix}
        check_module(case, unit, convert_spatial, stages, (case.tensor("in"),))
        groups = [value for key, value in case.group("stage").items() if key.startswith("basic")]
        load_official(again := gmf(case.facts), convert_spatial, case.weights())
        found = again.eval().graph(again.joints(case.tensor("in")))
        case.check(found, torch.cat(groups, dim=1), "groups")


def test_temporal_units() -> None:
    for name in case_names(SYSTEM, "tcn"):
        case = load_case(SYSTEM, "tcn", name)
        if name == "unit_tcn":  # a plain convolution with batch norm, which no network of the release uses alone
            continue
        kwargs = case.facts["kwargs"]
        if name.startswith("MSTCN"):
            unit = PlainScale(*case.facts["args"], stride=kwargs["stride"])
        else:
            unit = MultiScale(*case.facts["args"], stride=kwargs["stride"], joints=kwargs.get("num_joints"))
        x = case.tensor("in")
        check_module(case, unit, convert_temporal, {"transform": getattr(unit, "mix", unit)}, (x,))
        load_official(unit := again(unit, case), convert_temporal, case.weights())
        if "num_joints" in kwargs:
            x = torch.cat([x, x.mean(dim=3, keepdim=True)], dim=3)
        branches = [value for key, value in case.group("stage").items() if key.startswith("branches")]
        found = unit.eval().branches(x)
        case.check(
            found if name[0] == "m" or name[0] == "d" else unit.outer_bn(found), torch.cat(branches, 1), "branches"
        )


def again(unit, case: Case):
    kwargs = case.facts["kwargs"]
    if isinstance(unit, PlainScale):
        return PlainScale(*case.facts["args"], stride=kwargs["stride"])
    return MultiScale(*case.facts["args"], stride=kwargs["stride"], joints=kwargs.get("num_joints"))


def test_blocks() -> None:
    for name in case_names(SYSTEM, "blocks"):
        case = load_case(SYSTEM, "blocks", name)
        facts, kwargs = case.facts, case.facts["kwargs"]
        groups, subsets, joints, _ = facts["A_shape"]
        options = SkeletOptions(
            gcn=kwargs["gcn_type"], tcn=TEMPORAL[kwargs["tcn_type"]], subsets=subsets,
            mapping=KINDS[facts["M_adaptive"]],
        )  # fmt: skip
        shape = facts["M_shape"]
        pool = torch.zeros(shape) if shape and shape[0] != shape[1] else None
        block = Block(options, (facts["cin"], facts["cout"]), groups, pool, torch.zeros(joints, joints),
                      kwargs.get("t_factor"), first=not kwargs.get("residual", True))  # fmt: skip
        stages = {"gcn": block.spatial, "tcn": block.temporal}
        if block.shortcut is not None:
            stages["residual"] = block.shortcut
        check_module(case, block, convert_block, stages, (case.tensor("in"),))


def test_instance_pooling() -> None:
    for name in load_json(SYSTEM, "instance_pool"):
        for drop in (0, 1):
            case = load_case(SYSTEM, "instance_pool", f"{name}_dp{drop}")
            facts = load_json(SYSTEM, "instance_pool")[name]
            case = Case(case.name, facts, case.arrays)
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


@pytest.mark.parametrize("name", ["stgcnpp", "dgstgcn", "stgcnpp_ip"])
def test_networks(name: str) -> None:
    case = load_case(SYSTEM, f"backbone_{name}", name)
    x = case.tensor("in")
    encoder = build_skelet(case.facts["args"], persons=x.shape[1])
    assert count_parameters(encoder) - count_parameters(encoder.classifier) == case.facts["counts"]["total"]
    stages = {f"gcn.{number}": block for number, block in enumerate(encoder.blocks)}
    if encoder.pooling is not None:
        encoder.pooling.drop_path = 0.0
        stages["instance_pooling_block"] = encoder.pooling
    check_module(case, encoder, None, stages, (x,), backbone)
    normal = case.group("stage")["data_bn"]
    load_official(encoder, None, case.weights())
    found = encoder.eval().bodies(x)[1].permute(0, 2, 3, 1).flatten(1, 2)
    case.check(found, normal.view(found.shape), "data_bn")
    scores = encoder(x).detach()
    case.check(encoder.lean()(x), scores, "lean")
    case.check(encoder.outputs(x)["scores"], scores, "outputs")


def test_full_size() -> None:
    case = load_case(SYSTEM, "full_stgcnpp")
    encoder = build_skelet(case.facts["args"], persons=2)
    load_official(encoder, None, case.weights())
    head = load_case(SYSTEM, "full_stgcnpp")
    made = Case("head", {"tensors": head.facts["head_tensors"], "weight_seed": head.facts["head_seed"]}, {}).weights()
    weight, bias = made.values()
    encoder.classifier.weight.data, encoder.classifier.bias.data = weight, bias
    x = case.tensor("in")
    for network in (encoder.eval(), encoder.lean()):
        bodies = network.trunk(x)
        case.check(bodies, case.tensor("feature").view(bodies.shape), "feature")
        case.check(network(x), case.tensor("logits_of_own_head"), "logits")


def test_head() -> None:
    arrays = {key: torch.from_numpy(array) for key, array in load_arrays(SYSTEM, "head").items()}
    pooled = arrays["in_N_M_C_T_V"].mean(dim=(3, 4)).mean(dim=1)
    (weight,) = (array for key, array in arrays.items() if key.endswith("weight"))
    (bias,) = (array for key, array in arrays.items() if key.endswith("bias"))
    encoder = Skelet(LAYOUT, len(bias), SkeletOptions(width=32, groups=(1,), widen=(), halve=(), pool=()))
    encoder.classifier.weight.data, encoder.classifier.bias.data = weight, bias
    torch.testing.assert_close(encoder.head(pooled), arrays["logits"])
    torch.testing.assert_close(encoder.head(arrays["in_pooled_N_C"]), arrays["logits_pooled_input"])


def test_graphs_and_pools() -> None:
    arrays = {key: torch.from_numpy(array) for key, array in load_arrays(SYSTEM, "graph").items()}
    first, second = pool_matrices(LAYOUT)
    assert torch.equal(first, arrays["M/J65toJ27"]) and torch.equal(second, arrays["M/J27toJ11"])
    graph = undirected_graph(LAYOUT)
    assert torch.equal(graph, arrays["A_raw/J65"])
    torch.testing.assert_close(normalise_columns(graph), arrays["A/J65"], rtol=0, atol=1e-7)
    torch.testing.assert_close(normalise_columns(pooled_graph(graph, first)), arrays["A/J27"], rtol=0, atol=1e-6)
    encoder = Skelet(LAYOUT, 2, SkeletOptions(width=8))
    for block, expected in ((0, "A/J65"), (5, "A/J27")):
        found = encoder.blocks[block].spatial.graph.adjacency
        torch.testing.assert_close(found, arrays[expected].expand_as(found), rtol=0, atol=1e-6)
    assert {frozenset(edge) for edge in LAYOUT.edges + LAYOUT.links} == {frozenset(e) for e in arrays["edges"].tolist()}
    assert [list(pair) for pair in enumerate(LAYOUT.bone_parents)] == arrays["bone_pairs"].tolist()


def test_parameters_at_full_size() -> None:
    counts = load_json(SYSTEM, "counts")
    sizes = {
        "skelet_stgcnpp": {}, "skelet_dgstgcn": {"gcn": "dggcn", "tcn": "dgmstcn", "subsets": 8},
        "skelet_ctrgcn_cfg": {"input_norm": "person"},
        "skelet_ctrgcn_real": {"gcn": "unit_ctrgcn", "tcn": "ctr_mstcn", "input_norm": "person"},
        "skelet_stgcnpp+instance_pooling": {"instance_pooling": True},
        **{f"unit_ctrgcn+{tcn}+{bn}": {"gcn": "unit_ctrgcn", "tcn": TEMPORAL[tcn],
                                       "input_norm": {"VC": "joint", "MVC": "person"}[bn]}
           for tcn in TEMPORAL for bn in ("VC", "MVC")},
    }  # fmt: skip
    for name, options in sizes.items():
        with torch.device("meta"):
            encoder = Skelet(LAYOUT, 60, SkeletOptions(**options))
        assert count_parameters(encoder) - count_parameters(encoder.classifier) == counts[name]["total"], name
        for part, count in counts[name].items():
            if part.startswith("gcn."):
                assert count_parameters(encoder.blocks[int(part[4:])]) == count, (name, part)
        if encoder.pooling is not None:
            assert count_parameters(encoder.pooling) == 17_152
