"""CHARON's STTFormer and its decoder with the released networks' weights, by their official names."""

import re
from typing import Any

from released_mamp import chain
from torch import Tensor

from mmcl.encoders.sttformer.decoder import TupleDecoder
from mmcl.encoders.sttformer.network import STTFormer
from mmcl.encoders.sttformer.options import STTFormerOptions

LAYER = {
    "values": "scale", "att_bias": "bias", "to_qkvs": "query_key", "out_nets": "joints", "ff_net": "dense",
    "out_nett": "time", "ress": "joints_skip", "rest": "time_skip",
}  # fmt: skip
UNUSED = re.compile(r"decoder\.(skel_token|input_map|classifier|pes)|(decoder_)?pes\.")


def own_name(official: str) -> tuple[str, str] | None:
    """("encoder" or "decoder", our name) of an official tensor; None for what the released network does not use."""
    if UNUSED.match(official):
        return None
    if match := re.match(r"(decoder\.)?blocks\.(\d+)\.([a-z_]+)(.*)", official):
        part = "decoder" if match.group(1) else "encoder"
        return part, f"layers.{match.group(2)}.{LAYER[match.group(3)]}{match.group(4)}"
    if official == "mask_tokens":
        return "decoder", "missing"
    if official.startswith("output_map."):
        return "decoder", official.replace("output_map", "coordinates")
    return "encoder", official.replace("skel_token", "absent")


def own_state(official: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """Our state dict of one part. Vectors, which carry axes of length 1, lose them."""
    state = {}
    for name, tensor in official.items():
        found = own_name(name)
        if found is not None and found[0] == part:
            tail = found[1].rpartition(".")[2]
            if found[1] in ("missing", "absent"):
                tensor = tensor.flatten()
            elif tail in ("scale", "bias") and tensor.dim() == 4:
                tensor = tensor[0]
            state[found[1]] = tensor
    return state


def build_sttformer(config: dict[str, Any], **options: Any) -> tuple[STTFormer, TupleDecoder]:
    """Our encoder and decoder in float64 for the arguments of released ones."""
    given, sizes = config["kwargs"], config["encoder"]
    made = STTFormerOptions(
        width=sizes[0][0], layers=tuple((out, query) for _, out, query in sizes), heads=given["num_heads"],
        tuple_frames=given["len_parts"], channels=given["num_channels"], **{"released": True, **options},
    )  # fmt: skip
    encoder = STTFormer(chain(given["num_joints"]), given["num_classes"], made).double()
    decoder = TupleDecoder(encoder, tuple((out, query) for _, out, query in config["decoder"])).double()
    return encoder, decoder


def load_official(encoder: STTFormer, decoder: TupleDecoder, official: dict[str, Tensor]) -> None:
    """Copy the released networks' state dict into ours; every one of our tensors is set."""
    encoder.load_state_dict(own_state(official, "encoder"))
    decoder.load_state_dict(own_state(official, "decoder"))
