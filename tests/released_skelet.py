"""SkeleT-GCN's released names: which official tensors make one of ours, and modules of ours from official arguments."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mmcl.encoders.skelet.blocks import Block, SpatialUnit
from mmcl.encoders.skelet.graphs import DynamicGraph, RefinedGraph, StaticGraph
from mmcl.encoders.skelet.mapping import JointMap, Shortcut
from mmcl.encoders.skelet.network import Skelet
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.encoders.skelet.persons import InstancePooling
from mmcl.encoders.skelet.temporal import MultiScale, TemporalUnit
from mmcl.skeletons.layout import load_layout

Sources = dict[str, list[str]]  # our tensor -> official ones, joined along the first axis
NORM = ("weight", "bias", "running_mean", "running_var")
KINDS = {None: "fixed", "init": "learned", "offset": "offset", "importance": "importance"}
TEMPORAL = {"mstcn": "mstcn", "dgmstcn": "dgmstcn", "MSTCN": "ctr_mstcn"}
POSITIONS = {None: "none", "V": "joint", "VC": "channel"}


def norm(own: str, *official: str) -> Sources:
    return {f"{own}.{part}": [f"{name}.{part}" for name in official] for part in NORM}


def conv(own: str, *official: str) -> Sources:
    return {f"{own}.{part}": [f"{name}.{part}" for name in official] for part in ("weight", "bias")}


def map_sources(joints: JointMap, own: str, official: str) -> Sources:
    found = {}
    if joints.kind != "fixed":
        found[f"{own}.weight"] = [official + ("M" if joints.kind == "learned" else "WM")]
    if joints.base is not None:
        found[f"{own}.base"] = [official + "M"]
    return found


def shortcut_sources(shortcut: Shortcut, own: str, official: str) -> Sources:
    found = {} if shortcut.joints is None else map_sources(shortcut.joints, f"{own}.joints", official)
    if shortcut.conv is not None:
        found |= conv(f"{own}.conv", f"{official}down.0") | norm(f"{own}.bn", f"{official}down.1")
    return found


def graph_sources(graph: nn.Module, own: str, official: str) -> Sources:
    groups = [f"{official}basic_gcn_blocks.{g}." for g in range(graph.groups)]
    found = {f"{own}.adjacency": [f"{g}A" for g in groups]} | norm(f"{own}.bn", *(f"{g}bn" for g in groups))
    if isinstance(graph, StaticGraph):
        return found | conv(f"{own}.value", *(f"{g}conv" for g in groups))
    if isinstance(graph, DynamicGraph):
        found |= {f"{own}.{name}": [f"{g}{name}" for g in groups] for name in ("alpha", "beta")}
        found |= conv(f"{own}.value", *(f"{g}pre.0" for g in groups))
        found |= norm(f"{own}.value_bn", *(f"{g}pre.1" for g in groups))
        found |= conv(f"{own}.mix", *(f"{g}post" for g in groups))
        return found | conv(f"{own}.relate", *(f"{g}{name}" for g in groups for name in ("conv1", "conv2")))
    assert isinstance(graph, RefinedGraph)
    found[f"{own}.alpha"] = [f"{g}alpha" for g in groups]
    subsets = range(graph.subsets)
    order = [f"{g}convs.{k}.{name}" for g in groups for name in ("conv1", "conv2") for k in subsets]
    found |= conv(f"{own}.relate", *order)
    for name, number in (("value", 3), ("expand", 4)):
        found |= conv(f"{own}.{name}", *(f"{g}convs.{k}.conv{number}" for g in groups for k in subsets))
    if isinstance(graph.down, nn.Conv2d):
        found |= conv(f"{own}.down", *(f"{g}down.0" for g in groups))
        found |= norm(f"{own}.down_bn", *(f"{g}down.1" for g in groups))
    return found


def spatial_sources(unit: SpatialUnit, own: str, official: str) -> Sources:
    found = graph_sources(unit.graph, f"{own}graph", official)
    found |= conv(f"{own}mix", f"{official}conv_post") | norm(f"{own}bn", f"{official}bn")
    if unit.joints is not None:
        found |= map_sources(unit.joints, f"{own}joints", official)
    return found | shortcut_sources(unit.shortcut, f"{own}shortcut", f"{official}down.")


def temporal_sources(unit: TemporalUnit, own: str, official: str) -> Sources:
    last = len(unit.widths) - 1
    mixed = isinstance(unit, MultiScale)
    point = f"{official}branches.{last}" + ("" if mixed else ".0")
    found = conv(f"{own}reduce", *(f"{official}branches.{b}.0" for b in range(last)), point)
    found |= norm(f"{own}inner_bn", *(f"{official}branches.{b}.1" for b in range(last)))
    for branch in range(last - 1):
        found |= conv(f"{own}scales.{branch}", f"{official}branches.{branch}.3.conv")
    if not mixed:
        ends = [f"{official}branches.{b}" for b in range(last + 1)]
        tails = [*(f"{end}.3.bn" for end in ends[:-2]), f"{ends[-2]}.4", f"{ends[-1]}.1"]
        return found | norm(f"{own}outer_bn", *tails)
    found |= norm(f"{own}outer_bn", f"{official}transform.0") | conv(f"{own}mix", f"{official}transform.2")
    if unit.strength is not None:
        found[f"{own}strength"] = [f"{official}add_coeff"]
    return found | norm(f"{own}bn", f"{official}bn")


def block_sources(block: Block, own: str, official: str) -> Sources:
    found = spatial_sources(block.spatial, f"{own}spatial.", f"{official}gcn.")
    found |= temporal_sources(block.temporal, f"{own}temporal.", f"{official}tcn.")
    if block.shortcut is not None:
        found |= shortcut_sources(block.shortcut, f"{own}shortcut", f"{official}residual.")
    return found


def pooling_sources(pooling: InstancePooling, own: str, official: str) -> Sources:
    found: Sources = {}
    for name, layer in (("encode", "point_encoder"), ("compare", "concat_pool_fc"), ("fuse", "group_pool_fc")):
        found |= conv(f"{own}{name}", f"{official}{layer}.0") | norm(f"{own}{name}_bn", f"{official}{layer}.1")
    if pooling.positions is not None:
        found[f"{own}positions"] = [f"{official}pos_embedding"]
    return found


def network_sources(encoder: Skelet) -> Sources:
    found = norm("data_bn.bn", "data_bn")
    if encoder.pooling is not None:
        found |= pooling_sources(encoder.pooling, "pooling.", "instance_pooling_block.")
    for number, block in enumerate(encoder.blocks):
        found |= block_sources(block, f"blocks.{number}.", f"gcn.{number}.")
    return found


def own_tensors(module: nn.Module, sources: Sources, official: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our tensors, from those official ones (weights, statistics or gradients) that are all there."""
    shapes = {name: tensor.shape for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    for own, names in sources.items():
        if all(name in official for name in names):
            yield own, torch.cat([official[name].flatten() for name in names])[: shapes[own].numel()].view(shapes[own])


def load_official(module: nn.Module, sources: Sources, official: dict[str, Tensor]) -> None:
    """Fill a module; nothing of ours may be left, and nothing official but counters and constant graphs."""
    missing, unexpected = module.load_state_dict(dict(own_tensors(module, sources, official)), strict=False)
    kept = [name for name in missing if not name.endswith("num_batches_tracked") and "classifier" not in name]
    assert not kept and not unexpected, (kept, unexpected)
    used = {name for names in sources.values() for name in names}
    rest = [name for name in official if name not in used and not name.endswith("num_batches_tracked")]
    assert all(name.endswith("M") for name in rest), rest  # an identity, where importance weighs joints


def build_skelet(args: dict, persons: int, classes: int = 60) -> Skelet:
    """Our encoder from the constructor arguments of the released one."""
    same = args.get("same_transformation"), args.get("same_transformation_importance")
    blocks = tuple(args["num_groups"])
    options = SkeletOptions(
        width=args.get("base_channels", 64), groups=blocks, widen=tuple(args.get("inflate_stages", (5, 8))),
        halve=tuple(args.get("down_stages", (5, 8))), pool=tuple(args["pooling_stages"]), gcn=args["gcn_type"],
        tcn=TEMPORAL[args["tcn_type"]], subsets=args["num_subsets"], subset_wise=args.get("gcn_subset_wise", False),
        mapping=KINDS[args["M_adaptive"]],
        equal_levels="none" if not same[0] else "importance" if same[1] else "map",
        input_norm={"VC": "joint", "MVC": "person"}[args["data_bn_type"]],
        instance_pooling=args.get("with_instance_pooling", False), positions=POSITIONS[args.get("ip_pe")],
        persons=persons, channels=args["in_channels"],
    )  # fmt: skip
    return Skelet(load_layout("coco_wholebody_65"), classes, options)
