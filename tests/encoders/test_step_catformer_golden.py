"""STEP-CATFormer against arrays of the released code: sets of joints, modules, text loss, whole networks."""

from __future__ import annotations

import pytest
import torch
from golden import load_arrays, load_case, load_json

from mmcl.encoders.conversion import Conversion
from mmcl.encoders.counting import count_parameters
from mmcl.encoders.ctrgcn import official as ctrgcn
from mmcl.encoders.ctrgcn.network import CTRGCN, CTRGCNOptions
from mmcl.encoders.ctrgcn.spatial import RAW_RELATION, SpatialUnit
from mmcl.encoders.ctrgcn.temporal import TemporalUnit
from mmcl.encoders.ctrgcn.units import Unit
from mmcl.encoders.graph import spatial_graph
from mmcl.encoders.step_catformer import StepCATFormer, StepCATFormerOptions, official
from mmcl.encoders.step_catformer.parts import FeedForward, HeadAttention, PartAttention, TransformerLayer
from mmcl.encoders.step_catformer.sets import bone_matrix, part_sets, text_parts
from mmcl.encoders.step_catformer.temporal import FrameAttention, GatedFeedForward, TemporalAttention, ValueBranches
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.part_texts.loss import text_losses

LAYOUTS = {25: "kinect_v2_25", 20: "ctrgcn_ucla_20"}
HEADS = 8


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


def graph():
    return spatial_graph(load_layout(LAYOUTS[25]))


# official name -> (conversion, module of the input's channels C, layout of tensors here and back)
MODULES = {
    "unit_gcn": (
        part(ctrgcn.convert_spatial),
        lambda C, sd: SpatialUnit(C, len(sd["bn.weight"]), len(sd["convs.0.conv1.weight"]), graph(), True), swap, swap,
    ),
    "MultiScale_TemporalConv": (
        part(ctrgcn.convert_temporal, ".branches"), lambda C, sd: TemporalUnit(C, 2), swap, swap,
    ),
    "TCN_GCN_unit": (part(ctrgcn.convert_unit), lambda C, sd: Unit(C, C, 1, graph(), True, False), swap, swap),
    "Attention": (
        part(official.convert_attention), lambda C, sd: HeadAttention(len(sd["proj.bias"]), HEADS), same, same,
    ),
    "FeedForward": (
        part(official.convert_feed_forward), lambda C, sd: FeedForward(len(sd["fc2.bias"]), len(sd["fc1.bias"])),
        same, same,
    ),
    "Spatial_TransformerEncoder": (
        part(official.convert_layer), lambda C, sd: TransformerLayer(C, HEADS), frames_first, channels_first,
    ),
    "Multi_DTemporalConv_Branch": (
        part(official.convert_values, ".branches"), lambda C, sd: ValueBranches(C), same, same,
    ),
    "GDFN": (part(official.convert_gated), lambda C, sd: GatedFeedForward(C), same, same),
    "MDTA_T": (part(official.convert_frame_attention), lambda C, sd: FrameAttention(C, HEADS), same, same),
    "Temporal_TransformerEncoderv2": (
        part(official.convert_temporal_attention), lambda C, sd: TemporalAttention(25, C, HEADS),
        frames_first, channels_first,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_modules_in_evaluation_and_training(name):
    case = load_case("step_catformer", "modules", name)
    convert_part, make, arrive, leave = MODULES[name]
    weights = case.weights()
    inputs = [case.tensor(key) for key in sorted(case.arrays) if key.startswith("in")]
    module = make(inputs[0].shape[1], weights)
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
    """CTRGC alone: one subset of ours, the other two silenced; the batch norm behind passes everything on."""
    case = load_case("step_catformer", "modules", "CTRGC")
    weights, x = case.weights(), case.tensor("in0")
    silent = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    subsets = (weights, silent, silent)
    state = {f"convs.{i}.{name}": tensor for i, subset in enumerate(subsets) for name, tensor in subset.items()}
    width = len(weights["conv3.bias"])
    unit = SpatialUnit(x.shape[1], width, RAW_RELATION, graph(), True).eval()
    converted = part(ctrgcn.convert_spatial)(
        state | {"PA": graph()[[1, 1, 1]], "alpha": torch.tensor([0.7])}
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
    module = HeadAttention(x.shape[2], case.facts["heads"])
    module.load_state_dict(part(official.convert_cross_attention)(case.weights()))
    case.check(module(x[:, :1], x, x), case.tensor("eval"), "eval")


def test_sets_of_joints_and_bones():
    arrays = load_arrays("step_catformer", "graph")
    layout = load_layout(LAYOUTS[len(arrays["A_spatial"][0])])
    torch.testing.assert_close(spatial_graph(layout), torch.from_numpy(arrays["A_spatial"]).float())
    if "A_outward_binary" in arrays:
        outward = torch.from_numpy(arrays["A_outward_binary"]).float()
        for power in range(1, 10):
            expected = torch.eye(len(outward)) - torch.linalg.matrix_power(outward, power)
            assert torch.equal(bone_matrix(layout, power, released=True), expected)
    for key in (key for key in arrays if key.startswith("set/") and key.endswith("/large")):
        narrow, wide = part_sets(layout, released=True)[key.split("/")[1]]
        assert list(narrow) == arrays[key].tolist()
        assert list(wide) == arrays[key.replace("large", "small")].tolist()
    for key in (key for key in arrays if key.startswith("text_part/")):
        _, model, name = key.split("/")
        assert list(text_parts(layout, True, model == "bone_model")[name]) == arrays[key].tolist()


@pytest.mark.parametrize("name", ["hand", "leg", "hand_leg", "up_down"])
def test_part_modules_stage_by_stage(name):
    case = load_case("step_catformer", "part_modules", name)
    width = case.facts["output_dim"]
    sets = part_sets(load_layout(LAYOUTS[25]), released=True)[name]
    module = PartAttention(*sets, width, HEADS, crossed=name in ("hand_leg", "up_down"), released=True)
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


def network(name="network"):
    facts = load_json("step_catformer", name)
    case = load_case("step_catformer", name)
    x = case.tensor("in").permute(0, 4, 2, 3, 1).contiguous()
    options = StepCATFormerOptions(
        width=facts["base_channel"], bone_power=facts["k"], persons=x.shape[1], released=True, empty_bodies="each"
    )
    encoder = StepCATFormer(load_layout(LAYOUTS[x.shape[3]]), facts["num_class"], options)
    weights = case.weights()
    encoder.load_state_dict(official.convert(weights).state)
    return case, x, encoder.eval()


@torch.no_grad()
def test_small_network_stage_by_stage():
    case, x, encoder = network()
    assert count_parameters(encoder) == case.facts["counts"]["total"]
    torch.testing.assert_close(encoder.bones, case.tensor("A_vector").float())
    stages, behind = {}, encoder.refinement
    for key, module in {
        "l1": encoder.units[0], "l4": encoder.units[3], "l5": encoder.units[4], "l8": encoder.units[7],
        "l10": encoder.units[9], "fusion1": encoder.to_tokens[0], "fusion2": encoder.to_tokens[1],
        "fusion3": encoder.to_tokens[2], "fusion4": encoder.to_tokens[3],
    }.items():  # fmt: skip
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
    case.check(found["scores"], case.tensor("logits"), "scores")
    case.check(found["trunk_scores"], case.tensor("logits_trunk"), "trunk scores")
    case.check(found["text_scales"], case.tensor("logit_scale")[0], "scales")
    texts = [case.tensor("text_feature/ViT-B/32"),
             *(case.tensor(f"text_feature_part/{name}") for name in ("head", "hand", "hip", "foot"))]  # fmt: skip
    for number, expected in enumerate(texts):
        case.check(found["text_features"][:, number], expected, f"text feature {number}")
    case.check(encoder.lean(x.shape[2])(x), case.tensor("logits"), "lean")


@torch.no_grad()
def test_plain_trunk_at_its_size():
    case = load_case("step_catformer", "ctrgcn_full")
    x = case.tensor("in").permute(0, 4, 2, 3, 1).contiguous()
    encoder = CTRGCN(load_layout(LAYOUTS[25]), case.facts["num_class"], CTRGCNOptions(persons=x.shape[1])).eval()
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
    for classes, total in ((120, counts["Model_lst_4part_K120_total"]), (60, counts["Model_lst_4part_K60"]["total"])):
        with torch.device("meta"):
            encoder = StepCATFormer(load_layout(LAYOUTS[25]), classes)
        assert count_parameters(encoder) == total
    expected, behind = counts["Model_lst_4part_K60"], encoder.refinement
    modules = {f"l{number}": unit for number, unit in enumerate(encoder.units, start=1)}
    modules |= {f"fusion{number}": part for number, part in enumerate(encoder.to_tokens, start=1)}
    modules |= {
        "cross_hand": behind.parts["hand"], "cross_up_dowm": behind.parts["up_down"],
        "Temporal_TransformerEncoder1": behind.times[0], "mlp": behind.frame, "norm": behind.norm,
        "fusion_last": encoder.mix_tokens, "to_joint_embedding": behind.embed, "fc1": encoder.trunk_classifier,
    }  # fmt: skip
    for key, module in modules.items():
        assert count_parameters(module) == expected[key], key
    square = [name for name, p in encoder.named_parameters() if p.dim() == 2 and set(p.shape) == {6400}]
    assert len(square) == len(counts["6400x6400 matrices"])
