"""Released SkeleT-GCN state dicts are recognised, their options told by tensors; what no tensor tells is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from released_skelet import build_skelet, golden_names, network_case, official_weights, skip_without
from torch import Tensor

import mmcl
from mmcl.benchmarks.plain.skelet import PlainSkelet
from mmcl.common.errors import UserError
from mmcl.encoders.official import read_official
from mmcl.encoders.skelet.network import Skelet
from mmcl.encoders.skelet.official import convert
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.import_checkpoint import main
from mmcl.skeletons.layout import load_layout

LAYOUT = load_layout("coco_wholebody_65")


def small(**options) -> tuple[Skelet, dict[str, Tensor]]:
    """An encoder and its state dict under the released names, all numbers random."""
    torch.manual_seed(0)
    made = {"width": 8, "groups": (1, 1, 2, 2), "widen": (3,), "halve": (3,), "pool": (3,), "released": True, **options}
    encoder = Skelet(LAYOUT, 5, SkeletOptions(**made)).eval()
    state = PlainSkelet(encoder).state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "running_var" in name else 0.3 * torch.randn_like(tensor))
    if not encoder.options.subset_wise:
        idle_at_zero(state)
    encoder.load_state_dict(convert(state, encoder).state)
    for number, block in enumerate(encoder.blocks):  # the release saves its identities, too
        if block.spatial.joints is not None and block.spatial.joints.diagonal:
            state[f"gcn.{number}.gcn.M"] = torch.eye(block.spatial.joints.weight.shape[1]).repeat(
                block.spatial.graph.groups, 1, 1
            )
    return encoder, state


def idle_at_zero(state: dict[str, Tensor]) -> None:
    """Strengths behind the first are where they start: without ``subset_wise`` no gradient ever reaches them."""
    for name in state:
        if name.endswith((".alpha", ".beta")):
            state[name][1:] = 0.0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gcn": "dggcn", "tcn": "dgmstcn", "subsets": 2},
        {"gcn": "dggcn", "tcn": "mstcn", "subsets": 4, "subset_wise": True, "equal_levels": "map"},
        {"gcn": "unit_ctrgcn", "tcn": "ctr_mstcn", "input_norm": "person", "persons": 3},
        {"conv_pos": "post", "split_way": "conv+split", "equal_levels": "none"},
        {"split_way": "conv+repeat", "pool": (2, 4), "halve": (3, 4), "subsets": 1, "channels": 2},
    ],
    ids=str,
)
def test_options_are_told_by_tensors(options: dict) -> None:
    encoder, state = small(**options)
    named = {name if name.startswith("cls_head") else f"backbone.{name}": tensor for name, tensor in state.items()}
    found = read_official({f"module.{name}": tensor for name, tensor in named.items()} | {"extra": torch.ones(1)})
    assert (found.name, found.classes, found.joints, found.ignored) == ("skelet", 5, 65, ("extra",))
    assert found.options == encoder.options
    x = encoder.example(9, 2)
    torch.testing.assert_close(found.build()(x), encoder(x))


@pytest.mark.parametrize("options", [{"mapping": "fixed", "equal_levels": "map"}, {"graphs": "fixed"}], ids=str)
def test_constant_matrices_are_read_as_learned_ones(options: dict) -> None:
    """No tensor tells whether a matrix was trained; the network is the same."""
    encoder, state = small(**options)
    for number, block in enumerate(encoder.blocks):  # the release has a copy of a constant map for each group
        if (name := f"gcn.{number}.gcn.M") in state and state[name].dim() == 2:
            state[name] = state[name].repeat(block.spatial.graph.groups, 1, 1)
    x = encoder.example(9, 2)
    torch.testing.assert_close(read_official(state).build()(x), encoder(x))


@pytest.mark.parametrize("file", golden_names("backbone_*.json"))
def test_the_released_networks_are_read(file: str | None) -> None:
    skip_without(file)
    case = network_case(file)
    x = case.tensor("in")
    expected, state = case.tensor("eval"), official_weights(case)
    state["cls_head.fc_cls.weight"] = torch.ones(3, expected.shape[1 if expected.dim() == 2 else 2])
    state["cls_head.fc_cls.bias"] = torch.zeros(3)
    if not case.facts["args"].get("gcn_subset_wise"):
        idle_at_zero(state)
    found = read_official(state)
    encoder = build_skelet(case.facts["args"], persons=found.options.persons, classes=3)
    if not set(encoder.options.widen) <= set(encoder.options.halve):  # no tensor tells that a block only widens
        found = replace(found, options=replace(found.options, halve=encoder.options.halve))
    assert replace(found.options, released=False) == encoder.options
    maps = found.build().trunk(x)
    case.check(maps.mean(dim=(2, 3)) if expected.dim() == 2 else maps.view(expected.shape), expected, "eval")


def test_an_imported_checkpoint_is_a_bundle_with_its_scores(tmp_path, capsys) -> None:
    encoder, state = small()
    torch.save({"state_dict": state}, tmp_path / "skelet.pth")
    flags = ["--window", "16", "--centring", "none", "--scaling", "box", "--crop", "1.0"]
    assert main([str(tmp_path / "skelet.pth"), "--out", str(tmp_path / "bundle"), *flags]) == 0
    assert "SkeleT-GCN, 5 classes, 65 joints (coco_wholebody_65), 2 person(s)" in capsys.readouterr().out
    x = encoder.example(16, 3)
    torch.testing.assert_close(mmcl.load(tmp_path / "bundle").encoder(x), encoder(x))


def test_what_tensors_do_not_tell_is_refused_in_one_line() -> None:
    for options in ({"graphs": "offset"}, {"graphs": "importance"}, {"mapping": "offset"}, {"mapping": "importance"}):
        with pytest.raises(UserError, match=r"SkeleT-GCN: '.*(PA|WM)' is an offset or an importance, which no tensor"):
            read_official(small(**options)[1])
    state = small()[1]
    for change, words in (
        ({"gcn.1.gcn.WM": None}, r"1 unknown tensors \(gcn\.3\.gcn\.WM\)"),
        ({"gcn.2.tcn.branches.1.0.weight": None}, r"no tensor 'gcn\.2\.tcn\.branches\.1\.0\.weight'"),
        ({"gcn.1.gcn.M": 2 * state["gcn.1.gcn.M"]}, "'gcn.1.gcn.M' is no identity"),
        ({"gcn.1.extra": torch.ones(1)}, r"1 unknown tensors \(gcn\.1\.extra\)"),
        ({"cls_head.fc_cls.weight": None}, "no tensor 'cls_head.fc_cls.weight' with 2 axes"),
        ({"gcn.2.gcn.conv_post.weight": torch.ones(24, 24, 1, 1)}, "block 3 goes from 8 to 24 channels"),
        (
            {f"gcn.{block}.gcn.basic_gcn_blocks.0.A": torch.ones(3, 70, 70) for block in (2, 3)},
            "fewer joints than the 65",
        ),
        ({"gcn.1.gcn.bn.weight": torch.ones(3)}, "1 tensors are wrong"),
        ({"gcn.2.gcn.basic_gcn_blocks.1.A": torch.ones(3, 27)}, "tensors that belong together do not fit .*equal size"),
    ):
        changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
        with pytest.raises(UserError, match=words):
            read_official(changed).build()


def test_keras_weights_of_arn_lstm_are_called_that() -> None:
    words = "'f_phi_fc1/kernel:0' is a Keras weight of the released ARN-LSTM, .*read here are .*skelet"
    with pytest.raises(UserError, match=words):
        read_official({"f_phi_fc1/kernel:0": torch.ones(2, 2), "f_phi_fc1/bias:0": torch.ones(2)})
