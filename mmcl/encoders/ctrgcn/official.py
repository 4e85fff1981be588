"""Checkpoints of the official CTR-GCN and MMCL-Action code, turned into :class:`CTRGCN` tensor for tensor.

Their state dicts name a unit ``l5``, a subset's convolution ``l5.gcn1.convs.0.conv3``, a temporal branch
``l5.tcn1.branches.1``. MMCL-Action's training model adds its helpers (``mlp``, ``PosMatrix``, ``NegMatrix``,
``inception_v3``, ``FAM_Aligh``); they never took part in inference and are left behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.encoders.conversion import BATCH_NORM, COUNT, Conversion, time_last
from mmcl.encoders.ctrgcn.network import CTRGCNOptions, plan_units
from mmcl.encoders.ctrgcn.spatial import RAW_RELATION
from mmcl.encoders.ctrgcn.temporal import BRANCHES, KERNEL
from mmcl.encoders.graph import SUBSETS
from mmcl.encoders.official import OfficialNetwork

_NETWORK = re.compile(r"(l\d+|data_bn|fc)\.")

Shapes = dict[str, tuple[int, ...]]


def convert_official(tensors: Mapping[str, Tensor]) -> OfficialNetwork:
    """Recognise and convert an official CTR-GCN or MMCL-Action state dict.

    Args:
        tensors: as read by ``load_state_file``; a ``module.`` prefix on names is dropped.

    Raises:
        UserError: it is some other network; the message names tensors that are missing, misshapen or unknown.
    """
    found = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): tensor for name, tensor in tensors.items()}
    options, classes, joints = _infer(found)
    expected = _expected_shapes(options, classes, joints)
    _compare(found, expected)
    used = set(expected) | {name for name in found if name.endswith(COUNT) and _NETWORK.match(name)}
    ignored = tuple(sorted(set(found) - used))
    return OfficialNetwork("ctrgcn", "CTR-GCN", classes, joints, options, _convert(found, options), ignored)


def _infer(found: Mapping[str, Tensor]) -> tuple[CTRGCNOptions, int, int]:
    """Options, K and V from the shapes of a few tensors that every official checkpoint has."""

    def shape(name: str, axes: int) -> torch.Size:
        if name not in found or found[name].dim() != axes:
            raise UserError(f"not an official CTR-GCN checkpoint: no tensor '{name}' with {axes} axes")
        return found[name].shape

    adaptive = "l1.gcn1.A" not in found
    joints = shape("l1.gcn1.PA" if adaptive else "l1.gcn1.A", 3)[-1]
    width, channels = shape("l1.gcn1.convs.0.conv3.weight", 4)[:2]
    classes = shape("fc.weight", 2)[0]
    depth = max(int(match.group(1)) for name in found if (match := re.match(r"l(\d{1,3})\.", name)))
    if 0 in (joints, channels):
        raise UserError("not an official CTR-GCN checkpoint: it has tensors without joints or channels")
    persons = shape("data_bn.weight", 1)[0] // (joints * channels)
    return CTRGCNOptions(width, depth, persons, channels, adaptive=adaptive), classes, joints


def _expected_shapes(options: CTRGCNOptions, classes: int, joints: int) -> Shapes:
    """Name and shape of every tensor of the official network with these options."""
    shapes: Shapes = {}

    def conv(name: str, c_in: int, c_out: int, kernel: int = 1) -> None:
        shapes[f"{name}.weight"] = (c_out, c_in, kernel, 1)
        shapes[f"{name}.bias"] = (c_out,)

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{part}": (channels,) for part in BATCH_NORM})

    norm("data_bn", options.persons * joints * options.channels)
    for number, (c_in, c_out, stride) in enumerate(plan_units(options), start=1):
        gcn, tcn, b = f"l{number}.gcn1", f"l{number}.tcn1.branches", c_out // BRANCHES
        relation = RAW_RELATION if number == 1 else c_in // 8
        for subset in range(SUBSETS):
            for index, (a, z) in enumerate([(c_in, relation)] * 2 + [(c_in, c_out), (relation, c_out)], start=1):
                conv(f"{gcn}.convs.{subset}.conv{index}", a, z)
        shapes[f"{gcn}.{'PA' if options.adaptive else 'A'}"] = (SUBSETS, joints, joints)
        shapes[f"{gcn}.alpha"] = (1,)
        norm(f"{gcn}.bn", c_out)
        if c_in != c_out:
            conv(f"{gcn}.down.0", c_in, c_out)
            norm(f"{gcn}.down.1", c_out)
        for branch in range(BRANCHES):
            conv(f"{tcn}.{branch}.0", c_out, b)
            norm(f"{tcn}.{branch}.1", b)
        for branch in range(2):
            conv(f"{tcn}.{branch}.3.conv", b, b, KERNEL)
            norm(f"{tcn}.{branch}.3.bn", b)
        norm(f"{tcn}.2.4", b)
        if number > 1 and (c_in != c_out or stride != 1):
            conv(f"l{number}.residual.conv", c_in, c_out)
            norm(f"l{number}.residual.bn", c_out)
    shapes["fc.weight"] = (classes, options.width * 4)
    shapes["fc.bias"] = (classes,)
    return shapes


def _compare(found: Mapping[str, Tensor], expected: Shapes) -> None:
    missing = [name for name in expected if name not in found]
    wrong = [
        f"{name} {tuple(found[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    unknown = [name for name in found if _NETWORK.match(name) and name not in expected and not name.endswith(COUNT)]
    problems = [
        f"{len(names)} {kind} ({'; '.join(names[:4])}{'; …' if len(names) > 4 else ''})"
        for kind, names in (("missing", missing), ("of another shape", wrong), ("unknown", unknown))
        if names
    ]
    if problems:
        raise UserError(f"not an official CTR-GCN checkpoint: tensors {', '.join(problems)}")


def _convert(found: Mapping[str, Tensor], options: CTRGCNOptions) -> dict[str, Tensor]:
    conversion = Conversion("CTR-GCN", found)
    conversion.norm("data_bn", "data_bn")
    conversion.layer("classifier", "fc")
    for number in range(options.depth):
        convert_unit(conversion, f"units.{number}", f"l{number + 1}")
    return conversion.state


def convert_unit(conversion: Conversion, ours: str, official: str) -> None:
    """A unit with its residual, by its name here and there."""
    convert_spatial(conversion, f"{ours}.spatial", f"{official}.gcn1")
    convert_temporal(conversion, f"{ours}.temporal", f"{official}.tcn1.branches")
    convert_residual(conversion, f"{ours}.residual", f"{official}.residual")


def convert_spatial(conversion: Conversion, ours: str, official: str) -> None:
    """Three subsets become one, stacked as ``spatial.py`` says."""
    subsets = [f"{official}.convs.{subset}" for subset in range(SUBSETS)]
    conversion.tensor(f"{ours}.adjacency", f"{official}.{'A' if f'{official}.A' in conversion else 'PA'}")
    conversion.tensor(f"{ours}.strength", f"{official}.alpha")
    conversion.layer(
        f"{ours}.relate", *(f"{subset}.{conv}" for conv in ("conv1", "conv2") for subset in subsets),
        change=lambda tensor: tensor.flatten(2) if tensor.dim() > 1 else tensor,
    )  # fmt: skip
    for kind in ("weight", "bias"):
        values, expand = (
            [conversion.take(f"{subset}.{conv}.{kind}") for subset in subsets] for conv in ("conv3", "conv4")
        )
        conversion.state[f"{ours}.value.{kind}"] = torch.stack(values, dim=1).flatten(0, 1)  # rows: (channel, subset)
        stacked = torch.stack(expand)
        conversion.state[f"{ours}.expand_{kind}"] = stacked.flatten(2) if kind == "weight" else stacked
    conversion.norm(f"{ours}.bn", f"{official}.bn")
    if f"{official}.down.0.weight" in conversion:
        conversion.layer(f"{ours}.down.0", f"{official}.down.0")
        conversion.norm(f"{ours}.down.1", f"{official}.down.1")


def convert_temporal(conversion: Conversion, ours: str, official: str) -> None:
    """Four branches become one, stacked as ``temporal.py`` says; ``official`` names their list."""
    conversion.layer(f"{ours}.reduce", *(f"{official}.{branch}.0" for branch in range(BRANCHES)))
    conversion.norm(f"{ours}.inner_bn", *(f"{official}.{branch}.1" for branch in range(BRANCHES - 1)))
    for branch, name in enumerate(("near", "far")):
        conversion.layer(f"{ours}.{name}", f"{official}.{branch}.3.conv", change=time_last)
    outer = (f"{official}.0.3.bn", f"{official}.1.3.bn", f"{official}.2.4", f"{official}.3.1")
    conversion.norm(f"{ours}.outer_bn", *outer)


def convert_residual(conversion: Conversion, ours: str, official: str) -> None:
    """A shortcut that changes shape; others hold nothing."""
    if f"{official}.conv.weight" in conversion:
        conversion.layer(f"{ours}.0", f"{official}.conv")
        conversion.norm(f"{ours}.1", f"{official}.bn")
