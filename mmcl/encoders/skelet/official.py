"""Checkpoints of the released SkeleT-GCN code, turned into ours tensor for tensor.

Its state dicts name a block ``gcn.4``, the spatial unit ``gcn.4.gcn``, the graph convolution of a group
``gcn.4.gcn.basic_gcn_blocks.0``, a temporal branch ``gcn.4.tcn.branches.1``. Groups, branches, queries and keys are
stacked here. What kind of units there are is the encoder's to say: it is built first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.encoders.conversion import Conversion
from mmcl.encoders.skelet.blocks import Block, SpatialUnit
from mmcl.encoders.skelet.graphs import DynamicGraph, GraphUnit, RefinedGraph, StaticGraph
from mmcl.encoders.skelet.mapping import JointMap, Shortcut
from mmcl.encoders.skelet.network import Skelet
from mmcl.encoders.skelet.persons import InstancePooling
from mmcl.encoders.skelet.temporal import MultiScale, PlainScale

HEAD = "cls_head.fc_cls"
BACKBONE = "backbone."


def convert(found: Mapping[str, Tensor], encoder: Skelet) -> Conversion:
    """A whole network's state dict; one of the backbone alone leaves the classifier out.

    Args:
        found: official names, with or without ``backbone.``.
        encoder: of the size that the checkpoint has; nothing of it changes.

    Raises:
        UserError: a tensor is missing.
    """
    conversion = Conversion("SkeleT-GCN", {name.removeprefix(BACKBONE): tensor for name, tensor in found.items()})
    conversion.norm("data_bn.bn", "data_bn")
    if encoder.pooling is not None:
        convert_pooling(conversion, encoder.pooling, "pooling.", "instance_pooling_block.")
    for number, block in enumerate(encoder.blocks):
        convert_block(conversion, cast("Block", block), f"blocks.{number}.", f"gcn.{number}.")
    if f"{HEAD}.weight" in conversion:
        conversion.layer("classifier", HEAD)
    return conversion


def convert_pooling(conversion: Conversion, pooling: InstancePooling, ours: str, official: str) -> None:
    """Instance pooling, by the beginning of its names here and there."""
    for name, layer in (("encode", "point_encoder"), ("compare", "concat_pool_fc"), ("fuse", "group_pool_fc")):
        conversion.layer(f"{ours}{name}", f"{official}{layer}.0")
        conversion.norm(f"{ours}{name}_bn", f"{official}{layer}.1")
    if pooling.positions is not None:
        conversion.tensor(f"{ours}positions", f"{official}pos_embedding", lambda tensor: tensor[0])


def convert_block(conversion: Conversion, block: Block, ours: str, official: str) -> None:
    """A block with its residual."""
    convert_spatial(conversion, block.spatial, f"{ours}spatial.", f"{official}gcn.")
    convert_temporal(conversion, block.temporal, f"{ours}temporal.", f"{official}tcn.")
    if block.shortcut is not None:
        convert_shortcut(conversion, block.shortcut, f"{ours}shortcut.", f"{official}residual.")


def convert_spatial(conversion: Conversion, unit: SpatialUnit, ours: str, official: str) -> None:
    """A spatial unit: map, graph convolution of each group, mixing, residual."""
    groups = [f"{official}basic_gcn_blocks.{group}." for group in range(unit.graph.groups)]
    convert_graph(conversion, unit.graph, f"{ours}graph.", groups)
    if unit.lead is not None:
        conversion.layer(f"{ours}lead.conv", f"{official}conv_pre.0")
        conversion.norm(f"{ours}lead.bn", f"{official}conv_pre.1")
    conversion.layer(f"{ours}mix", f"{official}conv_post")
    conversion.norm(f"{ours}bn", f"{official}bn")
    if unit.joints is not None:
        convert_map(conversion, unit.joints, f"{ours}joints.", official)
    convert_shortcut(conversion, unit.shortcut, f"{ours}shortcut.", f"{official}down.")


def convert_map(conversion: Conversion, joints: JointMap, ours: str, official: str) -> None:
    """A map of joints; of a matrix that is not learned the release has a copy for each group, here they share one."""
    if joints.weight is not None:
        name = "M" if joints.kind == "learned" else "WM"
        conversion.tensor(
            f"{ours}weight", official + name, lambda tensor: tensor.view(joints.groups, *tensor.shape[-2:])
        )
    if joints.base is not None and joints.base.dim() == 3:
        conversion.tensor(f"{ours}base", f"{official}M")
    elif joints.base is not None:
        conversion.tensor(f"{ours}base", f"{official}M", lambda tensor: _common(conversion, f"{official}M", tensor))


def convert_shortcut(conversion: Conversion, shortcut: Shortcut, ours: str, official: str) -> None:
    """A residual's map and convolution, where it has them."""
    if shortcut.joints is not None:
        convert_map(conversion, shortcut.joints, f"{ours}joints.", official)
    if shortcut.conv is not None:
        conversion.layer(f"{ours}conv", f"{official}down.0")
        conversion.norm(f"{ours}bn", f"{official}down.1")


def convert_graph(conversion: Conversion, graph: GraphUnit, ours: str, groups: list[str]) -> None:
    """The graph convolutions of all groups, stacked."""

    def stack(name: str, tensor: str) -> None:
        conversion.state[ours + name] = torch.stack([conversion.take(group + tensor) for group in groups])

    stack("adjacency", "A")
    conversion.norm(f"{ours}bn", *(f"{group}bn" for group in groups))
    if isinstance(graph, StaticGraph):
        conversion.layer(f"{ours}value", *(f"{group}conv" for group in groups))
        if graph.change is not None:
            stack("change", "PA")
    elif isinstance(graph, DynamicGraph):
        stack("alpha", "alpha")
        stack("beta", "beta")
        conversion.layer(f"{ours}value", *(f"{group}pre.0" for group in groups))
        conversion.norm(f"{ours}value_bn", *(f"{group}pre.1" for group in groups))
        conversion.layer(f"{ours}mix", *(f"{group}post" for group in groups))
        both = [f"{group}{name}" for group in groups for name in ("conv1", "conv2")]
        conversion.layer(f"{ours}relate", *both, change=_without_joints)
    else:
        stack("alpha", "alpha")
        _convert_refined(conversion, graph, ours, groups)


def _convert_refined(conversion: Conversion, graph: RefinedGraph, ours: str, groups: list[str]) -> None:
    subsets = range(graph.subsets)
    both = [f"{group}convs.{k}.{name}" for group in groups for name in ("conv1", "conv2") for k in subsets]
    conversion.layer(f"{ours}relate", *both, change=_without_joints)
    conversion.layer(f"{ours}value", *(f"{group}convs.{k}.conv3" for group in groups for k in subsets))
    expand = [f"{group}convs.{k}.conv4" for group in groups for k in subsets]
    conversion.layer(f"{ours}expand", *expand, change=_without_joints)
    if isinstance(graph.down, nn.Conv2d):
        conversion.layer(f"{ours}down", *(f"{group}down.0" for group in groups))
        conversion.norm(f"{ours}down_bn", *(f"{group}down.1" for group in groups))


def convert_temporal(conversion: Conversion, unit: MultiScale | PlainScale, ours: str, official: str) -> None:
    """A temporal unit, its branches stacked."""
    last = len(unit.widths) - 1
    branches = [f"{official}branches.{branch}" for branch in range(last + 1)]
    point = branches[-1] if isinstance(unit, MultiScale) else f"{branches[-1]}.0"
    conversion.layer(f"{ours}reduce", *(f"{branch}.0" for branch in branches[:-1]), point)
    conversion.norm(f"{ours}inner_bn", *(f"{branch}.1" for branch in branches[:-1]))
    for number, branch in enumerate(branches[:-2]):
        conversion.layer(f"{ours}scales.{number}", f"{branch}.3.conv")
    if isinstance(unit, PlainScale):
        ends = [*(f"{branch}.3.bn" for branch in branches[:-2]), f"{branches[-2]}.4", f"{branches[-1]}.1"]
        conversion.norm(f"{ours}outer_bn", *ends)
        return
    conversion.norm(f"{ours}outer_bn", f"{official}transform.0")
    conversion.layer(f"{ours}mix", f"{official}transform.2")
    conversion.norm(f"{ours}bn", f"{official}bn")
    if unit.strength is not None:
        conversion.tensor(f"{ours}strength", f"{official}add_coeff")


def _common(conversion: Conversion, name: str, matrices: Tensor) -> Tensor:
    """(V, W) that all groups share, of (V, W) or (G, V, W): the release repeats what is not learned."""
    first, *rest = matrices.view(-1, *matrices.shape[-2:])
    if not all(torch.allclose(other, first, equal_nan=True) for other in rest):
        raise UserError(f"a {conversion.what} checkpoint with other constants than the release makes: groups of {name}")
    return first


def _without_joints(tensor: Tensor) -> Tensor:
    """A 1x1 convolution over (time, joint) as one over joints; biases as they are."""
    return tensor.squeeze(3) if tensor.dim() == 4 else tensor
