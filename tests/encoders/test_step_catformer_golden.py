"""STEP-CATFormer against arrays of the released code: sets of joints, modules, text loss, whole networks."""

from __future__ import annotations

import re

import pytest
import torch
from golden import golden_folder, load_arrays, load_case, load_json

from mmcl.encoders.conversion import Conversion
from mmcl.encoders.counting import count_parameters
from mmcl.encoders.ctrgcn import official as ctrgcn
from mmcl.encoders.ctrgcn.network import CTRGCN, CTRGCNOptions
from mmcl.encoders.ctrgcn.spatial import SpatialUnit
from mmcl.encoders.ctrgcn.temporal import TemporalUnit
from mmcl.encoders.ctrgcn.units import Unit
from mmcl.encoders.graph import spatial_graph
from mmcl.encoders.step_catformer import StepCATFormer, StepCATFormerOptions, official
from mmcl.encoders.step_catformer.parts import FeedForward, HeadAttention, PartAttention, TransformerLayer
from mmcl.encoders.step_catformer.sets import PART_MODULES, TEXT_PARTS, bone_matrix, part_sets, text_parts
from mmcl.encoders.step_catformer.temporal import FrameAttention, GatedFeedForward, TemporalAttention, ValueBranches
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.part_texts.loss import text_losses

LAYOUTS = {25: "kinect_v2_25", 20: "ctrgcn_ucla_20"}  # the two that the released code has graphs of
HEADS = 8  # of the released modules, where a case does not say otherwise


def swap(x):
    """(B, C, T, V), as the released code has it, from (B, C, V, T), as CTR-GCN's units have it; or back."""
    return x.transpose(2, 3)


def frames_first(x):
    """(B, C, T, V) -> (B, T, V, C)."""
    return x.permute(0, 2, 3, 1)


def channels_first(x):
    """(B, T, V, C) -> (B, C, T, V)."""
    return x.permute(0, 3, 1, 2)


def same(x):
    return x


def part(function, inside=""):
    """A conversion of the state dict of one part."""

    def convert_part(state):
        conversion = Conversion("STEP-CATFormer", {f"theirs.{name}": tensor for name, tensor in state.items()})
        function(conversion, "ours", f"theirs{inside}")
        return {name.removeprefix("ours."): tensor for name, tensor in conversion.state.items()}

    return convert_part


def graph(x):
    """The released graph of an input (B, C, T, V)."""
    return spatial_graph(load_layout(LAYOUTS[x.shape[3]]))


def stride(x, y):
    """Along time, from (B, C, T, V) to (B, C, ceil(T / stride), V)."""
    return -(-x.shape[2] // y.shape[2])


def first(sd, x, y):
    """Whether a unit is the network's first: it has no residual, though the shape changes."""
    return x.shape != y.shape and not any(name.startswith("residual") for name in sd)


def heads(case):
    return case.facts.get("heads", HEADS)


# official name -> (conversion, module for weights, input x, output y and H heads, layout of tensors here and back)
MODULES = {
    "unit_gcn": (
        part(ctrgcn.convert_spatial),
        lambda sd, x, y, H: SpatialUnit(
            x.shape[1], len(sd["bn.weight"]), len(sd["convs.0.conv1.weight"]), graph(x), True), swap, swap,
    ),
    "MultiScale_TemporalConv": (
        part(ctrgcn.convert_temporal, ".branches"), lambda sd, x, y, H: TemporalUnit(y.shape[1], stride(x, y)),
        swap, swap,
    ),
    "TCN_GCN_unit": (
        part(ctrgcn.convert_unit), lambda sd, x, y, H: Unit(
            x.shape[1], y.shape[1], stride(x, y), graph(x), True, first=first(sd, x, y)), swap, swap,
    ),
    "Attention": (
        part(official.convert_attention), lambda sd, x, y, H: HeadAttention(len(sd["proj.bias"]), H), same, same,
    ),
    "FeedForward": (
        part(official.convert_feed_forward),
        lambda sd, x, y, H: FeedForward(len(sd["fc2.bias"]), len(sd["fc1.bias"])), same, same,
    ),
    "Spatial_TransformerEncoder": (
        part(official.convert_layer), lambda sd, x, y, H: TransformerLayer(x.shape[1], H),
        frames_first, channels_first,
    ),
    "Multi_DTemporalConv_Branch": (
        part(official.convert_values, ".branches"), lambda sd, x, y, H: ValueBranches(x.shape[1]), same, same,
    ),
    "GDFN": (part(official.convert_gated), lambda sd, x, y, H: GatedFeedForward(x.shape[1]), same, same),
    "MDTA_T": (
        part(official.convert_frame_attention),
        lambda sd, x, y, H: FrameAttention(x.shape[1], sd["temperature"].numel()), same, same,
    ),
    "Temporal_TransformerEncoderv2": (
        part(official.convert_temporal_attention), lambda sd, x, y, H: TemporalAttention(
            x.shape[3], x.shape[1], sd["attn.temperature"].numel()), frames_first, channels_first,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_modules_in_evaluation_and_training(name):
    case = load_case("step_catformer", "modules", name)
    convert_part, make, arrive, leave = MODULES[name]
    weights = case.weights()
    inputs = [case.tensor(key) for key in sorted(case.arrays) if key.startswith("in")]
    module = make(weights, inputs[0], case.tensor("eval"), heads(case))
    module.load_state_dict(convert_part(weights))
    # The last of four inputs are tokens, which have channels first in our form, too.
    inputs = list(map(arrive, inputs)) if len(inputs) < 4 else [*map(arrive, inputs[:3]), inputs[3]]
    case.check(leave(module.eval()(*inputs)), case.tensor("eval"), "eval")
    if name == "MDTA_T":
        for key, found in (("q_conv", module.query_near(module.query(inputs[0]))), ("v", module.value(inputs[2]))):
            case.check(found, case.tensor(f"stage/{key}"), key)
    if "train" in case.arrays:
        found = leave(module.train()(*inputs))
        case.check(found, case.tensor("train"), "train")
        if case.group("after"):
            case.check_group("after", module.state_dict(), convert_part)
        if case.group("grad"):
            (found * case.cotangent(found.shape)).sum().backward()
            case.check_group("grad", {name: p.grad for name, p in module.named_parameters()}, convert_part)


def test_one_subset_of_the_graph_convolution():
    """CTRGC alone, with alpha 0.7: one subset of ours, the others silenced; the batch norm passes everything on."""
    case = load_case("step_catformer", "modules", "CTRGC")
    weights, x = case.weights(), case.tensor("in0")
    silent = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    subsets = (weights, silent, silent)
    state = {f"convs.{i}.{name}": tensor for i, subset in enumerate(subsets) for name, tensor in subset.items()}
    width = len(weights["conv3.bias"])
    unit = SpatialUnit(x.shape[1], width, len(weights["conv1.bias"]), graph(x), True).eval()
    converted = part(ctrgcn.convert_spatial)(
        state | {"PA": graph(x)[[1, 1, 1]], "alpha": torch.tensor([case.facts.get("alpha", 0.7)])}
        | {f"bn.{key}": torch.full((width,), value) for key, value in
           {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items()}
    )  # fmt: skip
    unit.load_state_dict(converted, strict=False)
    y = swap(x)
    values = unit.value(y).reshape(x.shape[0], width, -1, x.shape[2])
    topology = unit.topology(y).transpose(1, 2).flatten(2, 3)
    found = torch.einsum("bcvu,bcvt->bcut", topology, values)
    case.check(swap(found), case.tensor("eval"), "eval")


def test_class_token_attention():
    case = load_case("step_catformer", "modules", "CrossAttention")
    x = case.tensor("in0")
    module = HeadAttention(x.shape[2], heads(case))
    module.load_state_dict(part(official.convert_cross_attention)(case.weights()))
    case.check(module(x[:, :1], x, x), case.tensor("eval"), "eval")


def test_sets_of_joints_and_bones():
    arrays = load_arrays("step_catformer", "graph")
    layout = load_layout(LAYOUTS[len(arrays["A_spatial"][0])])
    torch.testing.assert_close(spatial_graph(layout), torch.from_numpy(arrays["A_spatial"]).float())
    if "A_outward_binary" in arrays:
        outward = torch.from_numpy(arrays["A_outward_binary"]).float()
        for power in range(10):
            expected = torch.eye(len(outward)) - torch.linalg.matrix_power(outward, power)
            assert torch.equal(bone_matrix(layout, power, released=True), expected)
    for key in (key for key in arrays if key.startswith("I_minus_A_out_power/")):
        expected, power = torch.from_numpy(arrays[key]).float(), int(key.rpartition("/")[2])
        assert torch.equal(bone_matrix(layout, power, released=True), expected), key
    for key in (key for key in arrays if key.startswith("set/") and key.endswith("/large")):
        narrow, wide = part_sets(layout, released=True)[key.split("/")[1]]
        assert list(narrow) == arrays[key].tolist()
        assert list(wide) == arrays[key.replace("large", "small")].tolist()
    for key in (key for key in arrays if key.startswith("text_part/")):
        _, model, name = key.split("/")
        assert list(text_parts(layout, True, model == "bone_model")[name]) == arrays[key].tolist()


@pytest.mark.parametrize("name", PART_MODULES)
def test_part_modules_stage_by_stage(name):
    case = load_case("step_catformer", "part_modules", name)
    width = case.facts["output_dim"]
    sets = part_sets(load_layout(LAYOUTS[case.arrays["in0"].shape[3]]), released=True)[name]
    module = PartAttention(*sets, width, heads(case), crossed=name in ("hand_leg", "up_down"), released=True)
    module.load_state_dict(part(official.convert_part_attention)(case.weights()))
    inputs = [frames_first(case.tensor(key)) for key in ("in0", "in1")]
    with torch.no_grad():
        narrow, wide = module.layers(*inputs)
        case.check(channels_first(narrow), case.tensor("stage/transformer_enc_large_T"), "narrow layer")
        case.check(channels_first(wide), case.tensor("stage/transformer_enc_small_T"), "wide layer")
        narrow, wide = module.exchange(narrow, wide)
        case.check(narrow.flatten(0, 1), case.tensor("stage/mlp_head_large"), "narrow out")
        case.check(wide.flatten(0, 1), case.tensor("stage/mlp_head_small"), "wide out")
        normed = module.frame_norm(torch.cat([wide, narrow], dim=2).flatten(2))
        case.check(normed, case.tensor("stage/norm2"), "norm")
        case.check(module.frame(normed), case.tensor("stage/feedforward"), "feed-forward")
        case.check(channels_first(module(*inputs)), case.tensor("eval"), "eval")


def network(name):
    """A case, its input and the encoder with its weights; sizes are those of the weights."""
    if not (golden_folder("step_catformer") / f"{name}.npz").exists():
        pytest.skip(f"MMCL_TEST_GOLDEN has no arrays of step_catformer/{name}")
    case = load_case("step_catformer", name)
    x = case.tensor("in").permute(0, 4, 2, 3, 1).contiguous()
    shapes = {entry["name"]: entry["shape"] for entry in case.facts["tensors"]}
    options = StepCATFormerOptions(
        width=shapes["fc.weight"][1] // 4, bone_power=case.facts.get("k", 8), persons=x.shape[1],
        heads=max(shapes["Temporal_TransformerEncoder1.attn.temperature"]), released=True, empty_bodies="each",
        text_width=shapes["part_list.0.weight"][0],
    )  # fmt: skip
    assert case.facts.get("base_channel", options.width) == options.width
    encoder = StepCATFormer(load_layout(LAYOUTS[x.shape[3]]), case.facts["num_class"], options)
    encoder.load_state_dict(official.convert(case.weights()).state)
    return case, x, encoder.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["network", "full"])
def test_network_stage_by_stage(name):
    case, x, encoder = network(name)
    if name == "network" or "counts" in case.facts:
        assert count_parameters(encoder) == case.facts["counts"]["total"]
    if name == "network" or "A_vector" in case.arrays:
        torch.testing.assert_close(encoder.bones, case.tensor("A_vector").float())
    assert case.group("stage") or name == "full"
    stages, behind = {}, encoder.refinement
    units = {f"l{number}": unit for number, unit in enumerate(encoder.units, start=1)}
    tokens = {f"fusion{number}": module for number, module in enumerate(encoder.to_tokens, start=1)}
    for key, module in {**units, **tokens}.items():
        module.register_forward_hook(lambda _, __, y, key=key: stages.update({key: swap(y)}))
    for key, module in {
        "cross_hand": behind.parts["hand"], "cross_leg": behind.parts["leg"],
        "cross_hand_leg": behind.parts["hand_leg"], "cross_up_dowm": behind.parts["up_down"],
        "Temporal_TransformerEncoder1": behind.times[0], "Temporal_TransformerEncoder2": behind.times[1],
    }.items():  # fmt: skip
        module.register_forward_hook(lambda _, __, y, key=key: stages.update({key: channels_first(y)}))
    encoder.mix_tokens.register_forward_hook(lambda _, __, y: stages.update({"fusion_last": y}))
    behind.embed.register_forward_hook(lambda _, __, y: stages.update({"to_joint_embedding": y.flatten(0, 1)}))
    behind.frame.register_forward_hook(lambda _, __, y: stages.update({"mlp": y}))
    found = encoder.outputs(x)
    for key, expected in case.group("stage").items():
        case.check(stages[key], expected, key)
    for key, expected in case.group("mean_over_TV").items():
        case.check(stages[key].mean(dim=(2, 3)), expected, f"mean of {key}")
    case.check(found["scores"], case.tensor("logits"), "scores")
    case.check(found["trunk_scores"], case.tensor("logits_trunk"), "trunk scores")
    if name == "network" or "logit_scale" in case.arrays:
        case.check(found["text_scales"], case.tensor("logit_scale")[0], "scales")
    whole = next((key for key in case.arrays if key.startswith("text_feature") and "_part" not in key), "text_feature")
    keys = [whole, *(f"text_feature_part/{part}" for part in TEXT_PARTS)]
    assert name == "full" or set(keys) <= set(case.arrays)
    for number, key in enumerate(keys):
        if key in case.arrays:
            case.check(found["text_features"][:, number], case.tensor(key), key)
    case.check(encoder.lean(x.shape[2])(x), case.tensor("logits"), "lean")


@torch.no_grad()
def test_plain_trunk_at_its_size():
    case = load_case("step_catformer", "ctrgcn_full")
    x = case.tensor("in").permute(0, 4, 2, 3, 1).contiguous()
    encoder = CTRGCN(
        load_layout(LAYOUTS[x.shape[3]]), case.facts["num_class"], CTRGCNOptions(persons=x.shape[1])
    ).eval()
    encoder.load_state_dict(ctrgcn.convert_official(case.weights()).state)
    case.check(encoder(x), case.tensor("logits"), "scores")
    bodies = encoder.normalise(x)
    for number, unit in enumerate(encoder.units, start=1):
        bodies = unit(bodies)
        if f"mean_over_TV/l{number}" in case.arrays:
            case.check(bodies.mean(dim=(2, 3)), case.tensor(f"mean_over_TV/l{number}"), f"l{number}")


def test_text_loss_and_its_gradient():
    arrays = {key: torch.from_numpy(array) for key, array in load_arrays("step_catformer", "text_loss").items()}
    feature = arrays["feature"].requires_grad_()
    loss = text_losses(
        feature[:, None], arrays["text"][:, None], arrays["labels"], arrays["scale_used"].view(1), released=True
    )
    torch.testing.assert_close(loss, arrays["loss"].view(1))
    loss.backward()
    torch.testing.assert_close(feature.grad, arrays["grad_feature"])


def test_published_counts_module_by_module():
    counts = load_json("step_catformer", "counts")
    names = {name: int(match[1]) for name in counts if (match := re.match(r"Model_lst_4part_K(\d+)", name))}
    assert names
    for name, classes in names.items():
        with torch.device("meta"):
            encoder = StepCATFormer(load_layout(LAYOUTS[25]), classes)
        if name.endswith("_total"):
            assert count_parameters(encoder) == counts[name]
        else:
            assert count_parameters(encoder) == counts[name]["total"]
            check_counts(encoder, counts[name])
    square = [name for name, p in encoder.named_parameters() if p.dim() == 2 and set(p.shape) == {6400}]
    assert len(square) == len(counts["6400x6400 matrices"])


def check_counts(encoder, expected):
    """Module by module."""
    behind = encoder.refinement
    modules = {f"l{number}": unit for number, unit in enumerate(encoder.units, start=1)}
    modules |= {f"fusion{number}": part for number, part in enumerate(encoder.to_tokens, start=1)}
    modules |= {
        "cross_hand": behind.parts["hand"], "cross_up_dowm": behind.parts["up_down"],
        "Temporal_TransformerEncoder1": behind.times[0], "mlp": behind.frame, "norm": behind.norm,
        "fusion_last": encoder.mix_tokens, "to_joint_embedding": behind.embed, "fc1": encoder.trunk_classifier,
    }  # fmt: skip
    for key, module in modules.items():
        assert count_parameters(module) == expected[key], key
