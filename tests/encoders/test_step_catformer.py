"""STEP-CATFormer: sets of joints by hand, function and gradients of the plain form, outputs, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from plain_network import randomise

from mmcl.benchmarks.plain.form import published_network
from mmcl.benchmarks.plain.step_catformer import plain_form
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_parameters
from mmcl.encoders.step_catformer import StepCATFormer, StepCATFormerOptions
from mmcl.encoders.step_catformer.official import convert
from mmcl.encoders.step_catformer.sets import PART_MODULES, TEXT_PARTS, bone_matrix, part_sets, text_parts
from mmcl.skeletons.layout import Layout, layout_names, load_layout
from mmcl.tasks.part_texts.loss import text_losses

# A trunk of three with the root in the middle, one arm of two above, one leg of two below.
BODY = Layout.from_dict(
    {"name": "seven", "joints": ["neck", "hand", "elbow", "root", "knee", "hip", "pelvis"],
     "parents": {"neck": "root", "elbow": "neck", "hand": "elbow", "pelvis": "root", "hip": "pelvis", "knee": "hip"},
     "parts": {"trunk": ["neck", "root", "pelvis"], "left_arm": ["elbow", "hand"], "left_leg": ["hip", "knee"]}}
)  # fmt: skip
SMALL = {"width": 8, "depth": 4, "text_width": 6}


def build(layout=BODY, classes=4, seed=0, **options):
    """An encoder with random numbers everywhere, in double precision and evaluation."""
    encoder = StepCATFormer(layout, classes, StepCATFormerOptions(**SMALL | options)).double()
    network, convert_state = plain_form(encoder)
    encoder.load_state_dict(convert_state(randomise(network.double(), seed).state_dict()))
    return encoder.eval()


def clips(encoder, count, frames, *absent):
    """Random clips; ``absent`` names (clip, person) of bodies that are not there."""
    x = torch.randn(encoder.example(frames, count).shape, dtype=torch.float64,
                    generator=torch.Generator().manual_seed(1))  # fmt: skip
    for place in absent:
        x[place] = 0.0
    return x


def test_sets_and_bones_of_a_small_skeleton_by_hand():
    neck, hand, elbow, root, knee, hip, pelvis = range(7)
    assert part_sets(BODY) == {
        "hand": ((hand, elbow), (hip, knee, neck, root, pelvis)),
        "leg": ((hand, elbow, neck, root), (hip, knee, pelvis)),
        "hand_leg": ((neck, hand, elbow), (hip, knee, root, pelvis)),  # the root is as near to the leg as to the arm
        "up_down": ((neck, hand, elbow), (hip, knee, root, pelvis)),
    }
    assert text_parts(BODY) == {
        "head": (neck,), "hand": (hand, elbow), "hip": (root, pelvis, hip), "foot": (knee, hip),
    }  # fmt: skip
    x = torch.arange(7.0).square()
    assert (bone_matrix(BODY, 1) @ x).tolist() == [0 - 9, 1 - 4, 4 - 0, 9, 16 - 25, 25 - 36, 36 - 9]
    assert (bone_matrix(BODY, 2) @ x).tolist() == [0, 1 - 0, 4 - 9, 9, 16 - 36, 25 - 9, 36]
    assert torch.equal(bone_matrix(BODY, 0), torch.zeros(7, 7)) and torch.equal(bone_matrix(BODY, 9), torch.eye(7))
    assert torch.equal(build(bone_power=0).bones, build(bone_power=9).bones)  # as an option, 0 leaves the input


def test_every_layout_with_arms_and_legs_has_sets_that_are_the_whole_body():
    for name in layout_names():
        layout = load_layout(name)
        joints = set(range(layout.joint_count))
        for narrow, wide in part_sets(layout).values():
            assert set(narrow) | set(wide) == joints and len(narrow) + len(wide) == len(joints)
        parts = text_parts(layout)
        assert tuple(parts) == TEXT_PARTS and all(parts.values())
        head = {layout.joints.index(joint) for joint in ("head", "nose") if joint in layout.joints}
        assert head & set(parts["head"]) and not head & set(parts["hip"]), name


def test_published_parameter_counts():
    with torch.device("meta"):
        encoder = build_encoder("step_catformer", load_layout("kinect_v2_25"), 60)
    assert count_parameters(encoder) == 417_977_435


@pytest.mark.parametrize(("training", "options"), [(False, {"released": True}), (True, {"bone_power": 1})])
def test_equals_the_plain_form_with_gradients_and_statistics(training, options):
    encoder = build(empty_bodies="each", **options).train(training)
    published = published_network(encoder)
    x = clips(encoder, 3, 9, (1, 1), (2, 0))
    expected, found = published(x), encoder(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    cotangent = torch.randn(expected.shape, dtype=torch.float64)
    for scores in (expected, found):
        (scores * cotangent).sum().backward()
    official = published.network.state_dict(keep_vars=True)
    gradients = convert({
        name: torch.zeros_like(tensor) if getattr(tensor, "grad", None) is None else tensor.grad
        for name, tensor in official.items()
    }).state  # fmt: skip
    for name, parameter in encoder.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-6, atol=1e-9, msg=name)
    ours = encoder.state_dict()
    for name, tensor in convert({name: tensor.detach() for name, tensor in official.items()}).state.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(ours[name], tensor, rtol=1e-9, atol=1e-9, msg=name)


def test_joints_are_put_back_unless_as_released():
    """Swapping two joints of a set, weights and all, changes nothing but their places."""
    part = build(bone_power=0).refinement.parts["hand"]
    x = torch.randn(2, 3, 7, 32, dtype=torch.float64)
    narrow, wide = part.exchange(*part.layers(x, x))
    frame = torch.cat([wide, narrow], dim=2)
    for place, joint in enumerate((*part.wide.tolist(), *part.narrow.tolist())):
        torch.testing.assert_close(frame[:, :, part.order][:, :, joint], frame[:, :, place])
    released = build(released=True).refinement.parts["hand"]
    assert released.order.tolist() == list(range(7))


@pytest.mark.parametrize("frames", [12, 7])
@pytest.mark.parametrize("options", [{}, {"bone_power": 1, "released": True, "persons": 3}])
def test_lean_form_equals_the_plain_form_whoever_is_there(frames, options):
    encoder = build(**options)
    lean = encoder.lean(12)
    assert not lean(clips(encoder, 1, frames)).requires_grad
    assert not any("BatchNorm" in type(module).__name__ for module in lean.modules())
    for absent in ((), ((0, 1), (2, 0)), ((0, 0), (0, 1), (1, 0), (1, 1))):
        x = clips(encoder, 3, frames, *absent)
        with torch.no_grad():
            torch.testing.assert_close(lean(x), published_network(encoder)(x), rtol=1e-9, atol=1e-9)


def test_outputs_by_name():
    encoder = build()
    x = clips(encoder, 2, 9, (1, 1))
    found = encoder.outputs(x)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "features": (2, 32), "scores": (2, 4), "tokens": (2, 2, 3, 7, 32), "trunk_scores": (2, 4), "parts": (2, 4, 32),
        "text_features": (2, 5, 6), "text_scales": (5,),
    }  # fmt: skip
    torch.testing.assert_close(found["tokens"].mean(dim=(1, 2, 3)), encoder.features(x))
    torch.testing.assert_close(found["scores"], encoder(x))
    bodies, _ = encoder.see(encoder.normalise(x))
    trunk = bodies.unflatten(0, (2, 2)).mean(dim=(1, 4))  # (N, D, V)
    torch.testing.assert_close(found["trunk_scores"], encoder.trunk_classifier(trunk.mean(dim=2)))
    hands = trunk[:, :, list(text_parts(BODY)["hand"])].mean(dim=2)
    torch.testing.assert_close(found["parts"][:, 1], hands)
    torch.testing.assert_close(found["text_features"][:, 2], encoder.text_heads[2](hands))


def test_all_losses_reach_every_parameter():
    encoder = build().train()
    found = encoder.outputs(clips(encoder, 3, 8))
    labels, texts = torch.tensor([0, 1, 1]), torch.randn(3, 5, 6, dtype=torch.float64)
    loss = sum(torch.nn.functional.cross_entropy(found[name], labels) for name in ("scores", "trunk_scores"))
    loss = loss + text_losses(found["text_features"], texts, labels, found["text_scales"]).mean()
    loss.backward()
    assert all(parameter.grad.any() for parameter in encoder.parameters())
    encoder.zero_grad(set_to_none=True)
    encoder(clips(encoder, 2, 8)).sum().backward()  # what is not asked gets a gradient, too: of nothing
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert not encoder.text_heads[0].weight.grad.any()


def test_text_loss_by_hand():
    """Two clips of two classes with features that are their texts: cosines are the identity."""
    features, labels, scale = torch.eye(2)[:, None], torch.tensor([3, 5]), torch.tensor([2.0]).log()
    target, found = torch.softmax(torch.tensor([10.0, 0.0]), 0), torch.log_softmax(torch.tensor([2.0, 0.0]), 0)
    expected = (target * (target.log() - found)).sum()[None]
    torch.testing.assert_close(text_losses(features, 3 * features, labels, scale), expected)
    released = torch.log_softmax(torch.tensor([2.0, 0.0]).log()[0] * torch.tensor([1.0, 0.0]), 0)
    expected = (target * (target.log() - released)).sum()[None]
    torch.testing.assert_close(text_losses(features, features, labels, scale, released=True), expected)


def test_every_parameter_is_at_one_depth_but_the_heads():
    encoder = build()
    placed = [
        id(p) for level in encoder.depth() for part in level
        for p in ([part] if isinstance(part, torch.nn.Parameter) else part.parameters())
    ]  # fmt: skip
    expected = {id(p) for name, p in encoder.named_parameters() if not encoder.in_head(name)}
    assert len(placed) == len(set(placed)) and set(placed) == expected


def test_tokens_come_from_the_published_depths():
    assert StepCATFormer(BODY, 3, StepCATFormerOptions(width=8)).token_units == [0, 4, 7, 9]
    assert build(depth=3).token_units == [0, 1, 2, 2]
    x = clips(build(depth=3), 2, 8)
    torch.testing.assert_close(build(depth=3).lean()(x), build(depth=3)(x), rtol=1e-9, atol=1e-9)


def test_training_is_one_graph_without_breaks():
    encoder = build(empty_bodies="each", depth=3).train()
    x = clips(encoder, 3, 8)
    expected = encoder(x)
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 12}, "multiple of 8 and of its heads"),
        ({"width": 8, "heads": 3}, "multiple of 8 and of its heads"),
        ({"depth": 2}, "depth must be at least 3"),
        ({"bone_power": -1}, "bone_power must be at least 0"),
        ({"text_width": 0}, "text_width must be at least 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"empty_bodies": "never"}, "once or each"),
    ],
)
def test_refuses(options, words):
    with pytest.raises(UserError, match=words):
        build_encoder("step_catformer", BODY, 3, options)


def test_refuses_a_layout_without_limbs():
    limbless = Layout.from_dict({"name": "stick", "joints": ["a", "b"], "parents": {"b": "a"}, "parts": {"rod": ["a"]}})
    with pytest.raises(UserError, match="parts of stick are rod: name parts 'left_arm'"):
        build_encoder("step_catformer", limbless, 3, SMALL)
    assert len(PART_MODULES) == 4
