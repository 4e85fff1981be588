"""State dicts of the released student (DeepInMotion/ShapGCN, ``src/model``), under the names of :class:`EdgeGCN`.

Their tensors are (…, frames, joints) where ours are (…, joints, frames), and rows of a spatial convolution are (hop,
channel) where ours are (channel, hop).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mmcl.common.errors import UserError

KINDS = {"Basic": "basic", "Shuffle": "shuffle", "Sep": "separable", "Bottleneck": "bottleneck", "SG": "sandglass",
         "V3": "mobile"}  # fmt: skip
ATTENTIONS = {"ja": "joint", "stja": "joint_time", "pa": "part", "ca": "channel", "fa": "frame"}
INPUTS = {"J": "joint", "V": "velocity", "B": "bone", "A": "acceleration"}
_PLACES = (
    (r"input_stream\.(\d+)\.init_bn\.", r"branches.\1.norm."),
    (r"input_stream\.(\d+)\.stem_scn\.", r"branches.\1.stem_spatial."),
    (r"input_stream\.(\d+)\.stem_tcn\.", r"branches.\1.stem_temporal."),
    (r"input_stream\.(\d+)\.block-(\d+)_scn\.", r"branches.\1.blocks.\2.spatial."),
    (r"input_stream\.(\d+)\.block-(\d+)_tcn-(\d+)\.", r"branches.\1.blocks.\2.temporal.\3."),
    (r"input_stream\.(\d+)\.block-(\d+)_att\.", r"branches.\1.blocks.\2.attention."),
    (r"main_stream\.block-(\d+)_scn_main\.", r"main.\1.spatial."),
    (r"main_stream\.block-(\d+)_tcn_main\.", r"main.\1.temporal.0."),
    (r"main_stream\.block-(\d+)_att_main\.", r"main.\1.attention."),
    (r"classifier\.fc\.", "classifier."),
)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of an :class:`EdgeGCN` from that of a released student; its own adjacency comes along.

    Raises:
        UserError: a name that no released student has.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        place, rest = own_place(name)
        ours = convert_tensor(rest, tensor, "temporal." in place, hops_of(state, name))
        if ours is not None:
            found[place + ours[0]] = ours[1]
    return found


def own_place(name: str) -> tuple[str, str]:
    """Our name of the layer that a released tensor belongs to, with a dot behind, and what the tensor is called in it.

    Raises:
        UserError: there is no such layer.
    """
    plain = re.sub(r"^(module\.|_orig_mod\.)+", "", name)
    for pattern, target in _PLACES:
        if match := re.match(pattern, plain):
            return match.expand(target), plain[match.end() :]
    raise UserError(f"not a tensor of a released edge-importance student: '{name}'")


def hops_of(state: Mapping[str, Tensor], name: str) -> int:
    """Hops of the spatial convolution that a tensor belongs to; 1 where it belongs to none."""
    edge = state.get(re.sub(r"gcn\.(weight|bias)$", "edge", name))
    return len(edge) if edge is not None and "gcn." in name else 1


def convert_tensor(name: str, tensor: Tensor, temporal: bool, hops: int = 1) -> tuple[str, Tensor] | None:
    """Name and values of a layer's tensor, the name without that of its layer; None where it is a constant of ours.

    Args:
        name: released, without the layer's.
        tensor: its values.
        temporal: whether the layer is a temporal one.
        hops: of the spatial convolution that it belongs to.
    """
    if name.endswith("joints"):  # which part a joint belongs to
        return None
    if name.endswith(("gcn.weight", "gcn.bias")):
        tensor = tensor.unflatten(0, (hops, -1)).transpose(0, 1).flatten(0, 1)
    if tensor.dim() == 5:  # the classifier
        tensor = tensor.flatten(1)
    if tensor.dim() == 4:
        tensor = tensor.transpose(2, 3)
    if temporal and not name.startswith("residual."):
        name = re.sub(r"^conv\.(weight|bias)$", r"conv.0.\1", name)  # a basic layer's convolution and norm
        name = re.sub(r"^bn\.", "conv.1.", name)
        name = "steps." + re.sub(r"^squeez_excite\.", "squeez_excite.gate.", name)
    return re.sub(r"(^|\.)A$", r"\1adjacency", name), tensor.contiguous()
