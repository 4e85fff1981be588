"""Checkpoints of the official Hyperformer code (``model/Hyperformer.py``), turned into ours tensor for tensor.

Its state dicts name a unit ``l5``, the attention ``l5.vit1``, a temporal branch ``l5.tcn1.branches.1``. They hold
neither the skeleton's distances nor its hyperedges: those come from the layout and the option ``released``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mmcl.encoders.conversion import Conversion
from mmcl.encoders.ctrgcn.official import convert_residual, convert_temporal
from mmcl.encoders.hyperformer.network import HyperformerOptions
from mmcl.encoders.official import OfficialNetwork, network_of


def read(found: Mapping[str, Tensor]) -> OfficialNetwork:
    """What a state dict holds, with the released hyperedges.

    Raises:
        UserError: it is some other network's, or not whole.
    """
    conversion = Conversion("Hyperformer", found)
    heads, head_width = conversion.shape("l1.vit1.attn.w1", 2)
    joints = conversion.shape("l1.vit1.attn.outer", 3)[-1]
    (channels,) = conversion.shape("l1.vit1.norm1.weight", 1)
    options = HyperformerOptions(
        heads, head_width, groups=heads * head_width // conversion.shape("l1.vit1.attn.proj.weight", 4)[1],
        depth=depth_of(found), released=True, persons=conversion.shape("data_bn.weight", 1)[0] // (joints * channels),
        channels=channels,
    )  # fmt: skip
    classes = conversion.shape("fc.weight", 2)[0]
    return network_of("hyperformer", convert(found), classes, joints, options)


def depth_of(found: Mapping[str, Tensor]) -> int:
    """How many units there are."""
    return max((int(match.group(1)) for name in found if (match := re.match(r"l(\d{1,3})\.vit1\.", name))), default=1)


def convert(found: Mapping[str, Tensor]) -> Conversion:
    """A whole network's state dict, of any width and depth.

    Raises:
        UserError: a tensor is missing.
    """
    conversion = Conversion("Hyperformer", found)
    conversion.norm("data_bn", "data_bn")
    conversion.layer("classifier", "fc")
    for number in range(1, depth_of(found) + 1):
        convert_unit(conversion, f"units.{number - 1}", f"l{number}")
    return conversion


def convert_unit(conversion: Conversion, ours: str, official: str) -> None:
    """A unit with its residual, by its name here and there."""
    convert_attention(conversion, f"{ours}.attention", f"{official}.vit1")
    convert_temporal(conversion, f"{ours}.temporal", f"{official}.tcn1.branches")
    convert_residual(conversion, f"{ours}.residual", f"{official}.residual")


def convert_attention(conversion: Conversion, ours: str, official: str) -> None:
    """The attention with its norm and skip."""
    conversion.layer(f"{ours}.norm", f"{official}.norm1")
    for name, layer in {"query": "attn.q", "key_value": "attn.kv", "hyperedge": "pe_proj"}.items():
        conversion.linear(f"{ours}.{name}", f"{official}.{layer}")
    for name, tensor in {"distance": "rpe", "importance": "w1", "relation": "outer", "strength": "alpha"}.items():
        conversion.tensor(f"{ours}.{name}", f"{official}.attn.{tensor}")
    conversion.layer(f"{ours}.mix", f"{official}.attn.proj")
    if f"{official}.skip_proj.weight" in conversion:
        conversion.linear(f"{ours}.shortcut", f"{official}.skip_proj")
