"""SkeleT-GCN's released arrays: modules of ours with their weights, and their statistics and gradients in our form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmcl.encoders.conversion import Conversion
from mmcl.encoders.skelet.network import Skelet
from mmcl.encoders.skelet.official import convert
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.skeletons.layout import load_layout

KINDS = {None: "fixed", "init": "learned", "offset": "offset", "importance": "importance"}
TEMPORAL = {"mstcn": "mstcn", "dgmstcn": "dgmstcn", "MSTCN": "ctr_mstcn"}
POSITIONS = {None: "none", "V": "joint", "VC": "channel"}

Convert = Callable[..., object]  # (conversion, module, beginning of our names, of theirs)


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
        width=args.get("base_channels", 64), groups=tuple(args["num_groups"]),
        widen=tuple(args.get("inflate_stages", (5, 8))), halve=tuple(args.get("down_stages", (5, 8))),
        pool=tuple(args["pooling_stages"]), gcn=args["gcn_type"], tcn=TEMPORAL[args["tcn_type"]],
        subsets=args["num_subsets"], subset_wise=args.get("gcn_subset_wise", False),
        mapping=KINDS[args["M_adaptive"]], equal_levels="none" if not same[0] else "importance" if same[1] else "map",
        input_norm={"VC": "joint", "MVC": "person"}[args["data_bn_type"]],
        instance_pooling=args.get("with_instance_pooling", False), positions=POSITIONS[args.get("ip_pe")],
        persons=persons, channels=args["in_channels"],
    )  # fmt: skip
    return Skelet(load_layout("coco_wholebody_65"), classes, options)
