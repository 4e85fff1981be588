"""Which SkeleT-GCN a released state dict is of, told by its tensors alone.

Names are those of ``official.py``. Tensors do not tell three things, which are alike in all released configurations:
a block that widens is taken to halve the frames, too; with one graph, the convolution is taken to come before it; and
what is learned of joints, in blocks that keep them, is taken for a factor. Elsewhere nothing tells a factor from an
offset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.encoders.conversion import Conversion
from mmcl.encoders.official import OfficialNetwork, network_of
from mmcl.encoders.skelet.network import Skelet
from mmcl.encoders.skelet.official import HEAD, convert
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.skeletons.layout import Layout

PERSONS = 2  # bodies of a clip in all released configurations
TITLE = "SkeleT-GCN"
UNTOLD = "is an offset or an importance, which no tensor tells: convert it with mmcl.encoders.skelet.official.convert"


@dataclass(frozen=True)
class _Block:
    """What the tensors of a block tell: channels, groups, joints behind it, its residual's convolution."""

    name: str
    channels: int
    groups: int
    joints: int
    strided: bool


def read(found: Mapping[str, Tensor]) -> OfficialNetwork:
    """What a state dict holds, of the backbone with its head.

    Raises:
        UserError: it is some other network's, not whole, or has what only its configuration tells.
    """
    known = Conversion(TITLE, found)
    classes = known.shape(f"{HEAD}.weight", 2)[0]
    blocks = _blocks(known)
    joints = blocks[0].joints
    options = SkeletOptions(
        width=blocks[0].channels, groups=tuple(block.groups for block in blocks), **_stages(blocks),
        **_units(known, blocks), **_maps(known, blocks), **_input(known, joints), released=True,
    )  # fmt: skip
    with torch.device("meta"):
        encoder = Skelet(_levels(blocks), classes, options)
    try:
        conversion = convert(found, encoder)
    except (RuntimeError, IndexError) as error:
        why = str(error).partition("\n")[0]
        raise UserError(
            f"not an official {TITLE} checkpoint: tensors that belong together do not fit ({why})"
        ) from error
    conversion.used.update(_identities(known, blocks))
    return network_of("skelet", conversion, classes, joints, options)


def _blocks(known: Conversion) -> list[_Block]:
    """All blocks, from ``gcn.0`` on without a gap."""
    numbers = [int(match.group(1)) for name in known.found if (match := re.match(r"gcn\.(\d{1,3})\.gcn\.", name))]
    blocks = []
    for number in range(max(numbers, default=0) + 1):
        name = f"gcn.{number}."
        part = re.compile(re.escape(name) + r"gcn\.basic_gcn_blocks\.(\d{1,3})\.A")
        groups = sum(part.fullmatch(tensor) is not None for tensor in known.found)
        blocks.append(_Block(
            name, known.shape(f"{name}gcn.conv_post.weight", 4)[0], groups,
            known.shape(f"{name}gcn.basic_gcn_blocks.0.A", 3)[-1], f"{name}residual.down.0.weight" in known,
        ))  # fmt: skip
    return blocks


def _stages(blocks: list[_Block]) -> dict[str, Any]:
    """Where channels double, frames halve and joints become fewer; blocks are counted from 1."""
    pairs = list(enumerate(zip(blocks, blocks[1:], strict=False), start=2))
    for number, (before, block) in pairs:
        if block.channels not in (before.channels, 2 * before.channels):
            raise UserError(f"{TITLE}: block {number} goes from {before.channels} to {block.channels} channels, and "
                            "only blocks that double them can be read")  # fmt: skip
    return {
        "widen": tuple(number for number, (before, block) in pairs if block.channels != before.channels),
        "halve": tuple(number for number, (_, block) in pairs if block.strided),
        "pool": tuple(number for number, (before, block) in pairs if block.joints != before.joints),
    }


def _units(known: Conversion, blocks: list[_Block]) -> dict[str, Any]:
    """The kinds of graph convolutions and temporal units."""
    first, tcn = "gcn.0.gcn.basic_gcn_blocks.0.", "gcn.0.tcn."
    subsets = known.shape(f"{first}A", 3)[0]
    made: dict[str, Any] = {"subsets": subsets, "tcn": "dgmstcn" if f"{tcn}add_coeff" in known else "mstcn"}
    if f"{tcn}transform.2.weight" not in known:
        made["tcn"] = "ctr_mstcn"
    if f"{first}convs.0.conv1.weight" in known:
        made["gcn"] = "unit_ctrgcn"
    elif f"{first}pre.0.weight" in known:
        # A strength that no gradient ever reaches stays at the zero where it starts.
        idle = [known.found[name][1:] for name in known.found if re.search(r"gcn_blocks\.\d+\.(alpha|beta)$", name)]
        made |= {"gcn": "dggcn", "subset_wise": any(bool(rest.any()) for rest in idle)}
    elif subsets > 1 and known.shape(f"{first}conv.weight", 4)[0] == blocks[0].channels // blocks[0].groups:
        made["conv_pos"] = "post"
    if f"{first}PA" in known:
        raise UserError(f"{TITLE}: '{first}PA' {UNTOLD}")
    leads = [block for block in blocks if f"{block.name}gcn.conv_pre.0.weight" in known]
    if leads:
        out, channels_in = known.shape(f"{leads[0].name}gcn.conv_pre.0.weight", 4)[:2]
        made["split_way"] = "conv+repeat" if out == channels_in // leads[0].groups else "conv+split"
    return made


def _maps(known: Conversion, blocks: list[_Block]) -> dict[str, Any]:
    """What blocks do that keep their joints. What is learned at the others has the form of what is not."""
    pairs = list(zip(blocks, blocks[1:], strict=False))
    for before, block in pairs:
        if before.joints != block.joints and f"{block.name}gcn.WM" in known:
            raise UserError(f"{TITLE}: '{block.name}gcn.WM' {UNTOLD}")
    kept = [block for before, block in pairs if before.joints == block.joints] or blocks[:1]
    if f"{kept[0].name}gcn.WM" in known:
        return {"equal_levels": "importance"}
    return {"equal_levels": "map" if f"{kept[0].name}gcn.M" in known else "none"}


def _input(known: Conversion, joints: int) -> dict[str, Any]:
    """Coordinates, persons, and whether persons are fused."""
    made: dict[str, Any] = {"instance_pooling": "instance_pooling_block.point_encoder.0.weight" in known}
    if made["instance_pooling"]:
        channels = known.shape("instance_pooling_block.point_encoder.0.weight", 2)[1]
        if "instance_pooling_block.pos_embedding" in known:
            width = known.shape("instance_pooling_block.pos_embedding", 3)[2]
            made["positions"] = "joint" if width == 1 else "channel"
    else:
        channels = known.shape("gcn.0.gcn.down.down.0.weight", 4)[1]
    persons = known.shape("data_bn.weight", 1)[0] // (joints * channels)
    norm = {"input_norm": "person", "persons": persons} if persons > 1 else {"persons": PERSONS}
    return made | norm | {"channels": channels}


def _levels(blocks: list[_Block]) -> Layout:
    """A layout of as many joints and levels, of which nothing but these numbers counts."""
    names = [[f"{level}.{joint}" for joint in range(level)] for level in dict.fromkeys(b.joints for b in blocks)]
    pools = {
        str(len(few)): {new: {old: 1.0} for new, old in zip(few, many, strict=False)}
        for many, few in zip(names, names[1:], strict=False)
    }
    parents = dict(zip(names[0][1:], names[0], strict=False))
    return Layout.from_dict({"name": "checkpoint", "joints": names[0], "parents": parents, "pools": pools})


def _identities(known: Conversion, blocks: list[_Block]) -> set[str]:
    """Constants M that importances of joints multiply: the release makes identities of them, and so does mmcl."""
    weighed = [f"{block.name}gcn." for block in blocks if f"{block.name}gcn.WM" in known]
    found = {f"{name}M" for name in weighed if f"{name}M" in known}
    for name in found:
        matrix = known.found[name]
        if matrix.dim() != 3 or not torch.equal(matrix, torch.eye(matrix.shape[-1]).expand_as(matrix).to(matrix)):
            raise UserError(f"not an official {TITLE} checkpoint: '{name}' is no identity for each group")
    return found
