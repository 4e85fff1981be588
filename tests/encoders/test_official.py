"""Official checkpoints: same scores after conversion, in every wrapping they come in, and clear refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from plain_network import randomise
from safetensors.torch import save_file

from mmcl.benchmarks.plain.ctrgcn import PlainCTRGCN
from mmcl.benchmarks.plain.form import PLAIN_FORMS
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.encoders.ctrgcn.network import CTRGCNOptions
from mmcl.encoders.ctrgcn.official import convert_official
from mmcl.encoders.official import read_official
from mmcl.encoders.state_file import load_state_file
from mmcl.skeletons.layout import load_layout


def official(classes=6, joints=25, persons=2, width=16, stages=(2, 2, 1), adaptive=True):
    network = PlainCTRGCN(classes, joints, persons, width=width, stages=stages, adaptive=adaptive)
    return randomise(network, seed=3).eval()


def mmcl_extras(width):
    return {
        "mlp.0.weight": torch.ones(64, 3),
        "mlp.0.bias": torch.ones(64),
        "PosMatrix": torch.ones(120),
        "NegMatrix": torch.ones(120),
        "inception_v3.Conv2d_1a_3x3.conv.weight": torch.ones(32, 3, 3, 3),
        "inception_v3.fc.weight": torch.ones(1000, 8),
        "FAM_Aligh.mlp.0.weight": torch.ones(4 * width, 1000),
    }


def assert_same_scores(network, encoder, joints, persons):
    x = torch.randn(3, 3, 16, joints, persons, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected, scores = network(x), encoder(x.permute(0, 4, 2, 3, 1))
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": {"weights": state}},
        lambda state: {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")},
    ],
)
def test_same_scores_however_the_file_is_wrapped(tmp_path, wrap):
    network = official()
    torch.save(wrap(network.state_dict()), tmp_path / "runs-65-1.pt")
    found = convert_official(load_state_file(tmp_path / "runs-65-1.pt"))
    assert (found.classes, found.joints, found.ignored) == (6, 25, ())
    assert found.options == CTRGCNOptions(width=16, depth=5)
    encoder = found.build()
    assert encoder.layout.name == "kinect_v2_25" and not encoder.training
    assert_same_scores(network, encoder, 25, 2)


def test_mmcl_helpers_are_left_behind_and_named(tmp_path):
    network, extras = official(), mmcl_extras(16)
    torch.save({f"module.{k}": v for k, v in {**network.state_dict(), **extras}.items()}, tmp_path / "mmcl.pth")
    found = convert_official(load_state_file(tmp_path / "mmcl.pth"))
    assert set(found.ignored) == set(extras)
    assert_same_scores(network, found.build(), 25, 2)


def test_published_network_from_safetensors(tmp_path):
    network = official(classes=10, joints=20, persons=1, width=64, stages=(4, 3, 3))
    save_file(network.state_dict(), tmp_path / "ucla.safetensors")
    found = convert_official(load_state_file(tmp_path / "ucla.safetensors"))
    assert found.options == CTRGCNOptions(persons=1)
    encoder = found.build()
    assert encoder.layout.name == "ctrgcn_ucla_20"
    assert_same_scores(network, encoder, 20, 1)


def test_fixed_adjacency_and_a_layout_of_the_callers():
    network = official(joints=17, adaptive=False)
    found = convert_official(network.state_dict())
    assert not found.options.adaptive
    with pytest.raises(UserError, match="17 joints: name the layout"):
        found.build()
    with pytest.raises(UserError, match="kinect_v2_25 has 25"):
        found.build(load_layout("kinect_v2_25"))
    assert_same_scores(network, found.build(load_layout("coco_17")), 17, 2)


def test_half_precision_files_become_float32():
    state = {name: t.half() if t.is_floating_point() else t for name, t in official().state_dict().items()}
    assert all(t.dtype in (torch.float32, torch.int64) for t in convert_official(state).state.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("l3.tcn1.branches.1.3.conv.weight"), r"1 missing \(l3.tcn1.branches.1.3.conv.weight\)"),
        (lambda s: s.update({"l2.gcn1.alpha": torch.zeros(2)}), r"l2.gcn1.alpha \(2,\), expected \(1,\)"),
        (lambda s: s.update({"l2.gcn1.gate.weight": torch.zeros(2)}), r"unknown \(l2.gcn1.gate.weight\)"),
        (lambda s: s.pop("l1.gcn1.PA"), "l1.gcn1.PA"),
        (lambda s: s.pop("fc.weight"), "fc.weight"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("l2.")], "missing .*l2.gcn1.convs.0.conv1.weight"),
        (lambda s: s.update({"data_bn.weight": torch.zeros(75)}), "data_bn"),
        (lambda s: s.update({"l1.gcn1.convs.0.conv3.weight": torch.zeros(64, 0, 1, 1)}), "without joints or channels"),
        (lambda s: s.update({"l999999999.x": torch.zeros(1)}), r"unknown \(l999999999.x\)"),
        (lambda s: (s.clear(), s.update({"conv1.weight": torch.zeros(64, 3, 7, 7)})), "l1.gcn1.PA"),
    ],
)
def test_other_networks_are_refused_by_tensor_name(change, words):
    state = dict(official().state_dict())
    change(state)
    with pytest.raises(UserError, match=words):
        convert_official(state)


def small(name):
    """A plain network of another kind with its encoder's options, all numbers random."""
    options = {
        "hyperformer": {"heads": 2, "head_width": 12, "depth": 3, "released": True},
        "step_catformer": {"width": 8, "depth": 3, "text_width": 6, "released": True},
    }[name]
    encoder = build_encoder(name, load_layout("kinect_v2_25"), 5, options)
    return randomise(PLAIN_FORMS[name](encoder)[0], 2).eval(), encoder.options


@pytest.mark.parametrize("name", ["hyperformer", "step_catformer"])
def test_other_networks_are_recognised_by_their_tensors(name):
    network, options = small(name)
    state = {f"module.{key}": tensor for key, tensor in network.state_dict().items()} | {"optimiser": torch.ones(2)}
    found = read_official(state)
    assert (found.name, found.classes, found.joints, found.options) == (name, 5, 25, options)
    assert found.ignored == ("optimiser",)
    assert_same_scores(network, found.build(), 25, 2)
    bones = replace(found, options=replace(options, bone_power=1)) if name == "step_catformer" else None
    if bones is not None:  # no tensor tells the bone model's checkpoint from the joint model's
        network.bones.copy_(bones.build().bones)
        assert_same_scores(network, bones.build(), 25, 2)


@pytest.mark.parametrize("name", ["hyperformer", "step_catformer"])
def test_their_checkpoints_must_be_whole(name):
    state = small(name)[0].state_dict()
    norm = "l2.tcn1.branches.2.4.weight"
    for change, words in (
        ({norm: None}, f"no tensor '{norm}'"),
        ({norm: torch.ones(3)}, "1 tensors are wrong .units.1.temporal.outer_bn"),
        ({"l2.extra.weight": torch.ones(3)}, "1 unknown tensors .l2.extra.weight"),
        ({"fc.weight": torch.ones(3)}, "no tensor 'fc.weight' with 2 axes"),
    ):
        changed = {key: tensor for key, tensor in (state | change).items() if tensor is not None}
        with pytest.raises(UserError, match=f"not an official .*{words}"):
            read_official(changed).build()
    assert read_official(official().state_dict()).name == "ctrgcn"
    with pytest.raises(UserError, match="25 joints, but the layout coco_17 has 17"):
        read_official(state).build(load_layout("coco_17"))


class Payload:
    def __reduce__(self):
        return (print, ("this ran",))


def test_unreadable_files_are_refused(tmp_path, capsys):
    def refuse(name, words, content=None):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=words):
            load_state_file(tmp_path / name)

    refuse("absent.pt", "no checkpoint file")
    refuse("table.csv", ".pt, .pth or .safetensors", b"a,b")
    refuse("text.pt", "torch can read|plain tensors", b"not a checkpoint at all")
    refuse("empty.pth", "torch can read|plain tensors", b"")
    refuse("text.safetensors", "safetensors", b"not a checkpoint at all")
    torch.save({"state_dict": Payload()}, tmp_path / "evil.pt")
    refuse("evil.pt", "pickled objects are refused")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    refuse("list.pt", "no named tensors")
    torch.save(official().state_dict(), tmp_path / "cut.pt")
    refuse("cut.pt", "torch can read|plain tensors", (tmp_path / "cut.pt").read_bytes()[:5000])
    assert "this ran" not in capsys.readouterr().out
