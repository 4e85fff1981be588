"""SkeleT-GCN's released arrays: modules of ours with their weights, and their statistics and gradients in our form."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import Case, golden_folder, load_arrays, load_case
from torch import Tensor, nn

from mmcl.encoders.conversion import Conversion
from mmcl.encoders.graph import normalise_columns, pool_matrices, pooled_graph, undirected_graph
from mmcl.encoders.skelet.blocks import SpatialUnit, lead_of
from mmcl.encoders.skelet.graphs import GRAPHS
from mmcl.encoders.skelet.mapping import JointMap, Shortcut
from mmcl.encoders.skelet.network import Skelet
from mmcl.encoders.skelet.official import convert
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.encoders.skelet.temporal import MultiScale, PlainScale
from mmcl.skeletons.layout import load_layout

KINDS = {None: "fixed", "init": "learned", "offset": "offset", "importance": "importance"}
TEMPORAL = {"mstcn": "mstcn", "dgmstcn": "dgmstcn", "MSTCN": "ctr_mstcn"}
POSITIONS = {None: "none", "V": "joint", "VC": "channel"}

Convert = Callable[..., object]  # (conversion, module, beginning of our names, of theirs)

SYSTEM = "skelet_gcn"


def golden_names(kind: str) -> list:
    """For parametrisation: files of a pattern ("full_*.json"), cases of a .json or arrays of a .npz file; or None."""
    folder = Path(os.environ.get("MMCL_TEST_GOLDEN") or os.devnull) / SYSTEM
    found: list = []
    if "*" in kind:
        found = sorted(path.stem for path in folder.glob(kind))
    elif (folder / kind).is_file() and kind.endswith(".json"):
        found = list(json.loads((folder / kind).read_text(encoding="utf-8")))
    elif (folder / kind).is_file():
        with np.load(folder / kind) as file:
            found = list(file.files)
    return found or [None]


def skip_without(name: str | None) -> None:
    """Skip where there is nothing to compare with."""
    golden_folder(SYSTEM)
    if name is None:
        pytest.skip(f"MMCL_TEST_GOLDEN has no such arrays in {SYSTEM}")


def skip_without_form(options: dict) -> None:
    """Skip a temporal unit with an option that no network of the release has, and ours has no form of."""
    usual = {"dilations": ([1, 2],), "kernel_size": (5,), "residual": (False,)}
    for name, values in usual.items():
        if options.get(name) is not None and options[name] not in values:
            pytest.skip(f"Skelet has no form of the released option {name}={options[name]!r}")


def graph_options(gcn: str, given: dict, prefix: str = "") -> dict:
    """Our options of a graph convolution for the release's, whose own ``unit_gcn`` has "importance" by default."""
    options = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    if gcn == "dggcn":
        return {"subset_wise": options.get("subset_wise", False)}
    if gcn == "unit_gcn":
        return {"graphs": KINDS[options.get("adaptive", "importance")], "conv_pos": options.get("conv_pos", "pre")}
    return {}


def level_graphs() -> dict[int, Tensor]:
    """The graph that blocks start from, by the number of joints."""
    layout = load_layout("coco_wholebody_65")
    graph = undirected_graph(layout)
    total, graphs = torch.eye(len(graph)), {len(graph): normalise_columns(graph)}
    for pool in pool_matrices(layout):
        total = total @ pool
        graphs[pool.shape[1]] = normalise_columns(pooled_graph(graph, total))
    return graphs


def official_weights(case: Case) -> dict[str, Tensor]:
    """The state dict, with constants that the arrays leave out: identities M, and copies A of a level's graph."""
    found = case.weights()
    for entry in case.facts["tensors"]:
        name, shape = entry["name"], entry["shape"]
        kind = name.rpartition(".")[2]
        if name not in found and kind in ("A", "M"):
            constant = torch.eye(shape[-1]) if kind == "M" else level_graphs()[shape[-1]]
            found[name] = constant.expand(shape).clone()
    return found


def converted(module: nn.Module, part: Convert | None, official: dict[str, Tensor]) -> Conversion:
    """Official tensors in our form; ``part`` converts a part of a network, None a whole one."""
    if part is None:
        return convert(official, module)
    conversion = Conversion("SkeleT-GCN", official)
    part(conversion, module, "", "")
    return conversion


def load_official(module: nn.Module, part: Convert | None, official: dict[str, Tensor]) -> None:
    """Fill a module; nothing of ours may be left, and nothing official but counters and constant identities."""
    conversion = converted(module, part, official)
    missing, unexpected = module.load_state_dict(conversion.state, strict=False)
    assert not unexpected and all(name.startswith("classifier") for name in missing), (missing, unexpected)
    rest = [name for name in official if name not in conversion.used and not name.endswith("num_batches_tracked")]
    assert all(name.endswith("M") for name in rest), rest  # an identity, where importance weighs joints


def in_our_form(
    module: nn.Module, part: Convert | None, weights: dict[str, Tensor], some: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Official statistics or gradients, as far as all that make one of our tensors are there."""
    blank = {name: torch.full_like(tensor, torch.nan, dtype=torch.float32) for name, tensor in weights.items()}
    state = converted(module, part, {**blank, **some}).state
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isnan().any()}


def build_skelet(args: dict, persons: int, classes: int = 60) -> Skelet:
    """Our encoder from the constructor arguments of the released one."""
    same = args.get("same_transformation"), args.get("same_transformation_importance")
    options = SkeletOptions(
        **graph_options(args["gcn_type"], args, "gcn_"), split_way=args.get("split_way", "split"),
        width=args.get("base_channels", 64), groups=tuple(args["num_groups"]),
        widen=tuple(args.get("inflate_stages", (5, 8))), halve=tuple(args.get("down_stages", (5, 8))),
        pool=tuple(args["pooling_stages"]), gcn=args["gcn_type"], tcn=TEMPORAL[args["tcn_type"]],
        subsets=args["num_subsets"],
        mapping=KINDS[args["M_adaptive"]], equal_levels="none" if not same[0] else "importance" if same[1] else "map",
        input_norm={"VC": "joint", "MVC": "person"}[args["data_bn_type"]],
        instance_pooling=args.get("with_instance_pooling", False), positions=POSITIONS[args.get("ip_pe")],
        persons=persons, channels=args["in_channels"],
    )  # fmt: skip
    return Skelet(load_layout("coco_wholebody_65"), classes, options)


def build_spatial(facts: dict) -> SpatialUnit:
    """Our spatial unit for the arguments of a released "grouped mapping framework"."""
    pool = torch.zeros(facts["V_in"], facts["V_out"])
    same = facts["V_in"] == facts["V_out"]
    kind = KINDS[facts["M_adaptive"]]
    joints = None
    if {"M", "WM"} & {entry["name"] for entry in facts["tensors"]}:
        joints = JointMap(
            torch.eye(len(pool)) if same else pool, facts["groups"],
            "importance" if same and facts.get("importance_when_same") else kind,
        )  # fmt: skip
    if joints is not None and joints.base is not None:  # the arrays may give each group another constant
        joints.base = joints.base.repeat(facts["groups"], 1, 1)
    channels = facts["in_channels"], facts["out_channels"]
    inside, lead = lead_of(facts.get("split", "split"), channels[0], facts["groups"])
    options = graph_options(facts["gcn"], facts.get("extra", {}))
    if "graphs" in options:
        options["kind"] = options.pop("graphs")
    start = torch.zeros(2 * [facts["V_out"]])
    graph = GRAPHS[facts["gcn"]](inside, channels[1], facts["groups"], start, facts["subsets"], **options)
    return SpatialUnit(channels[1], joints, graph, Shortcut(*channels, None if same else pool, kind), lead)


def build_temporal(case: Case) -> MultiScale | PlainScale:
    """Our temporal unit for a released one."""
    args, kwargs = case.facts["args"], case.facts["kwargs"]
    stride = kwargs.get("stride", 1)
    if case.name.startswith("MSTCN"):
        return PlainScale(*args, stride=stride)
    return MultiScale(*args, stride=stride, joints=kwargs.get("num_joints"))


def network_case(file: str | None) -> Case:
    """The only case of a file; its arrays may have a prefix."""
    skip_without(file)
    prefixes = {key.partition("/")[0] for key in load_arrays(SYSTEM, file)}
    case = load_case(SYSTEM, file, None if "in" in prefixes else prefixes.pop())
    layout = load_layout("coco_wholebody_65")
    levels = [len(level) for level in layout.pools.values()]
    joints = list(case.facts["args"]["pooling_joints"])
    if joints != levels[: len(joints)]:
        pytest.skip(f"{layout.name} has pools of {levels}, not those of the released option pooling_joints={joints}")
    return case


def options_of(name: str) -> dict | None:
    """Our options for a name among the released counts; None for a network that we have no form of."""
    known = {
        "skelet_stgcnpp": {}, "skelet_dgstgcn": {"gcn": "dggcn", "tcn": "dgmstcn", "subsets": 8},
        "skelet_ctrgcn_cfg": {"input_norm": "person"},
        "skelet_ctrgcn_real": {"gcn": "unit_ctrgcn", "tcn": "ctr_mstcn", "input_norm": "person"},
    }  # fmt: skip
    first, *more = name.split("+")
    if first == "unit_ctrgcn" and len(more) == 2:
        norm = {"VC": "joint", "MVC": "person"}[more[1]]
        return {"gcn": first, "tcn": TEMPORAL[more[0]], "input_norm": norm}
    if first in known and set(more) <= {"instance_pooling"}:
        return {**known[first], "instance_pooling": bool(more)}
    return None
