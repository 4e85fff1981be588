"""Checkpoints of the official STEP-CATFormer code (``model/ctrgcn.py``), turned into ours tensor for tensor.

The trunk's units are those of CTR-GCN's own checkpoints. Of several text models' heads (``linear_head``) the first is
taken. Bones of the input and lists of joints are no tensors there: they come from the layout and the options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mmcl.encoders.conversion import Conversion
from mmcl.encoders.ctrgcn.official import convert_unit
from mmcl.encoders.official import OfficialNetwork, network_of
from mmcl.encoders.step_catformer.network import StepCATFormerOptions
from mmcl.encoders.step_catformer.sets import PART_MODULES

_PARTS = dict(zip(PART_MODULES, ("cross_hand", "cross_leg", "cross_hand_leg", "cross_up_dowm"), strict=True))
_TEXT_PARTS = (0, 1, 3, 2)  # the official heads of head, hand, hip, foot


def read(found: Mapping[str, Tensor]) -> OfficialNetwork:
    """What a state dict holds, as the joint model: that it is the bone model's, no tensor tells.

    Raises:
        UserError: it is some other network's, or not whole.
    """
    conversion = Conversion("STEP-CATFormer", found)
    adaptive = "l1.gcn1.A" not in found
    joints = conversion.shape("l1.gcn1.PA" if adaptive else "l1.gcn1.A", 3)[-1]
    width, channels = conversion.shape("l1.gcn1.convs.0.conv3.weight", 4)[:2]
    heads = conversion.shape("Temporal_TransformerEncoder1.attn.temperature", 4)[1]
    options = StepCATFormerOptions(
        width, depth_of(found), heads, text_width=conversion.shape("part_list.0.weight", 2)[0], channels=channels,
        persons=conversion.shape("data_bn.weight", 1)[0] // (joints * channels), adaptive=adaptive, released=True,
    )  # fmt: skip
    classes = conversion.shape("fc.weight", 2)[0]
    return network_of("step_catformer", convert(found), classes, joints, options, spare=("linear_head",))


def depth_of(found: Mapping[str, Tensor]) -> int:
    """How many units there are."""
    return max((int(match.group(1)) for name in found if (match := re.match(r"l(\d{1,3})\.gcn1\.", name))), default=1)


def convert(found: Mapping[str, Tensor]) -> Conversion:
    """A whole network's state dict, of any width and depth.

    Raises:
        UserError: a tensor is missing.
    """
    conversion = Conversion("STEP-CATFormer", found)
    conversion.norm("data_bn", "data_bn")
    for number in range(1, depth_of(found) + 1):
        convert_unit(conversion, f"units.{number - 1}", f"l{number}")
    for depth in range(4):
        conversion.layer(f"to_tokens.{depth}.0", f"fusion{depth + 1}.conv")
        conversion.norm(f"to_tokens.{depth}.1", f"fusion{depth + 1}.bn")
    conversion.layer("mix_tokens", "fusion_last")
    conversion.layer("refinement.embed", "to_joint_embedding")
    conversion.tensor("refinement.positions", "pos_embedding", lambda tensor: tensor[0])
    for ours, official in _PARTS.items():
        convert_part_attention(conversion, f"refinement.parts.{ours}", official)
    for number in range(2):
        convert_temporal_attention(conversion, f"refinement.times.{number}", f"Temporal_TransformerEncoder{number + 1}")
    conversion.layer("refinement.norm", "norm")
    for layer in (0, 2, 3, 5):
        conversion.layer(f"refinement.frame.{layer}", f"mlp.{layer}")
    texts = next((name.rpartition(".")[0] for name in found if name.startswith("linear_head.")), "linear_head")
    for number, official in enumerate((texts, *(f"part_list.{part}" for part in _TEXT_PARTS))):
        conversion.layer(f"text_heads.{number}", official)
    conversion.tensor("text_scales", "logit_scale", lambda tensor: tensor[0])
    conversion.layer("trunk_classifier", "fc1")
    conversion.layer("classifier", "fc")
    return conversion


def convert_part_attention(conversion: Conversion, ours: str, official: str) -> None:
    """One part module; a crossed one has two projections a set."""
    crossed = f"{official}.transformer_enc_small1.weight" in conversion
    for name, theirs in (("narrow", "large"), ("wide", "small")):  # "large" is the set, "narrow" its channels
        projection = f"{official}.transformer_enc_{theirs}"
        conversion.linear(f"{ours}.{name}_in", f"{projection}{'1' if crossed else ''}")
        if crossed:
            conversion.linear(f"{ours}.{name}_other", f"{projection}2")
        convert_layer(conversion, f"{ours}.{name}_layer", f"{projection}_T")
        conversion.layer(f"{ours}.{name}_norm", f"{official}.mlp_head_{theirs}.0")
        conversion.layer(f"{ours}.{name}_out", f"{official}.mlp_head_{theirs}.1")
    for name, first in (("narrow", 3), ("wide", 0)):  # there, back, attention of each, in one list
        there, back, attention = (f"{official}.cross_attn_layers.0.{first + place}" for place in range(3))
        conversion.layer(f"{ours}.{name}_exchange.there", there)
        conversion.layer(f"{ours}.{name}_exchange.back", back)
        conversion.layer(f"{ours}.{name}_exchange.norm", f"{attention}.norm")
        convert_cross_attention(conversion, f"{ours}.{name}_exchange.attention", f"{attention}.fn")
    conversion.layer(f"{ours}.frame_norm", f"{official}.norm2")
    convert_feed_forward(conversion, f"{ours}.frame", f"{official}.feedforward")


def convert_layer(conversion: Conversion, ours: str, official: str) -> None:
    """A transformer layer over the joints of a set."""
    norms = {"query_norm": "normq_sp", "key_norm": "normk_sp", "value_norm": "normv_sp", "inner_norm": "norm2"}
    for name, theirs in norms.items():
        conversion.layer(f"{ours}.{name}", f"{official}.{theirs}")
    convert_attention(conversion, f"{ours}.attention", f"{official}.attention_sp")
    convert_feed_forward(conversion, f"{ours}.feed_forward", f"{official}.feedforward")


def convert_attention(conversion: Conversion, ours: str, official: str) -> None:
    """Attention over the joints of a set."""
    for name, theirs in {"query": "W_q", "key": "W_k", "value": "W_v", "output": "proj"}.items():
        conversion.layer(f"{ours}.{name}", f"{official}.{theirs}")


def convert_cross_attention(conversion: Conversion, ours: str, official: str) -> None:
    """Attention of a class token."""
    for name, theirs in {"query": "to_q", "key": "to_k", "value": "to_v", "output": "to_out.0"}.items():
        conversion.layer(f"{ours}.{name}", f"{official}.{theirs}")


def convert_feed_forward(conversion: Conversion, ours: str, official: str) -> None:
    """Two linear layers."""
    for name, theirs in {"inner": "fc1", "outer": "fc2"}.items():
        conversion.layer(f"{ours}.{name}", f"{official}.{theirs}")


def convert_temporal_attention(conversion: Conversion, ours: str, official: str) -> None:
    """One temporal module."""
    conversion.tensor(f"{ours}.merge", f"{official}.add_coeff")
    norms = {"query_norm": "norm_q", "key_norm": "norm_k", "value_norm": "norm_v", "inner_norm": "norm2"}
    for name, theirs in norms.items():
        conversion.layer(f"{ours}.{name}", f"{official}.{theirs}")
    convert_frame_attention(conversion, f"{ours}.attention", f"{official}.attn")
    convert_gated(conversion, f"{ours}.feed_forward", f"{official}.ffn")
    conversion.norm(f"{ours}.before", f"{official}.transform.0")
    conversion.layer(f"{ours}.point", f"{official}.transform.2")
    conversion.norm(f"{ours}.after", f"{official}.bn")


def convert_frame_attention(conversion: Conversion, ours: str, official: str) -> None:
    """Cosine attention between frames."""
    conversion.tensor(f"{ours}.temperature", f"{official}.temperature", lambda tensor: tensor[0])
    convert_values(conversion, f"{ours}.value", f"{official}.v.branches")
    layers = {"query": "q", "query_near": "q_conv", "key": "k", "key_near": "k_conv", "output": "project_out"}
    for name, theirs in layers.items():
        conversion.layer(f"{ours}.{name}", f"{official}.{theirs}")


def convert_values(conversion: Conversion, ours: str, official: str) -> None:
    """The four branches; ``official`` names their list."""
    conversion.layer(f"{ours}.reduce", f"{official}.0.0", f"{official}.1.0")
    conversion.layer(f"{ours}.reduce_peak", f"{official}.2.0")
    conversion.layer(f"{ours}.point", f"{official}.3.0")
    conversion.norm(f"{ours}.norm", *(f"{official}.{branch}.1" for branch in range(3)))
    conversion.layer(f"{ours}.near", f"{official}.0.3.conv")
    conversion.layer(f"{ours}.far", f"{official}.1.3.conv")


def convert_gated(conversion: Conversion, ours: str, official: str) -> None:
    """The gated feed-forward network."""
    for name, theirs in {"inner": "project_in", "near": "conv", "outer": "project_out"}.items():
        conversion.layer(f"{ours}.{name}", f"{official}.{theirs}")
