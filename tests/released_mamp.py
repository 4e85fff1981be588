"""The encoder and the decoder of MAMP with the released networks' weights, by official names; what STARS drew."""

import re
from typing import Any

from torch import Tensor

from mmcl.encoders.mamp.network import MAMP
from mmcl.encoders.mamp.options import MAMPOptions
from mmcl.skeletons.layout import Layout
from mmcl.tasks.masked_motion.decoder import MotionDecoder
from mmcl.tasks.neighbour_contrast.contrast import NeighbourQueue

BLOCK = {"attn.qkv": "attention.qkv", "attn.proj": "attention.project", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2"}
HEADS = {
    "head.fc.0": "classifier.0", "head.fc.1": "classifier.1",  # the linear probe
    "head.fc1": "classifier.0", "head.bn": "classifier.1", "head.fc2": "classifier.3",  # fine-tuning
}  # fmt: skip
ENCODER = {"joints_embed.proj": "embed", "temp_embed": "positions.time", "pos_embed": "positions.joint"}
DECODER = {
    "decoder_embed": "embed", "decoder_temp_embed": "positions.time", "decoder_pos_embed": "positions.joint",
    "mask_token": "missing", "decoder_norm": "norm", "decoder_pred": "predict",
}  # fmt: skip


def chain(joints: int) -> Layout:
    """A layout of joints in a row: MAMP does not look at edges."""
    names = [f"j{number}" for number in range(joints)]
    return Layout.from_dict({"name": "row", "joints": names, "parents": dict(zip(names[1:], names, strict=False))})


def own_name(official: str) -> tuple[str, str] | None:
    """("encoder" or "decoder", our name) of an official tensor; None for one that is of neither."""
    table = DECODER if official.startswith(("decoder_", "mask_token")) else ENCODER | HEADS
    if match := re.match(r"(decoder_)?blocks\.(\d+)\.(.+)", official):
        rest = match.group(3)
        for theirs, ours in BLOCK.items():
            rest = rest.replace(theirs, ours)
        return ("decoder" if match.group(1) else "encoder"), f"blocks.{match.group(2)}.{rest}"
    if official.startswith("norm."):
        return "encoder", official
    for theirs in sorted(table, key=len, reverse=True):
        if official == theirs or official.startswith(theirs + "."):
            return ("decoder" if table is DECODER else "encoder"), table[theirs] + official[len(theirs) :]
    return None


def own_state(official: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """Our state dict of one part. Positions, which carry axes of length 1, lose them.

    Attention of ours always adds a bias: of a network that was made without one (``qkv_bias: false``) it is 0.
    """
    biases = {name.replace(".weight", ".bias"): tensor.new_zeros(len(tensor))
              for name, tensor in official.items() if name.endswith("attn.qkv.weight")}  # fmt: skip
    official, state = biases | official, {}
    for name, tensor in official.items():
        found = own_name(name)
        if found is not None and found[0] == part:
            alone = found[1] in ("missing", "positions.time", "positions.joint")
            state[found[1]] = tensor.squeeze() if alone else tensor
    return state


def build_mamp(config: dict[str, Any], classes: int = 1, **options: Any) -> MAMP:
    """Our encoder in float64 for the arguments of a released one."""
    made = MAMPOptions(
        width=config["dim_feat"], depth=config["depth"], heads=config["num_heads"], expansion=config["mlp_ratio"],
        patch_frames=config["t_patch_size"], frames=config["num_frames"], channels=config["dim_in"], **options,
    )  # fmt: skip
    return MAMP(chain(config["num_joints"]), classes, made).double()


def build_decoder(config: dict[str, Any]) -> MotionDecoder:
    """Our decoder in float64 for the arguments of a released network."""
    return MotionDecoder(
        width_in=config["dim_feat"], width=config["decoder_dim_feat"], depth=config["decoder_depth"],
        heads=config["num_heads"], expansion=config["mlp_ratio"],
        patches=config["num_frames"] // config["t_patch_size"], joints=config["num_joints"],
        values=config["t_patch_size"] * config["dim_in"],
    ).double()  # fmt: skip


def as_batch(x: Tensor) -> Tensor:
    """The released (N, C, T, V, M) -> ours (N, M, T, V, C)."""
    return x.permute(0, 4, 2, 3, 1)


def released_choice(
    queue: NeighbourQueue, projected: Tensor, owners: Tensor, used: Tensor, among: int
) -> Tensor | None:
    """Which of the ``among`` nearest vectors each clip took, read off the (D, N) that were used; None: the nearest.

    What the released code drew among several is no array of its own.
    """
    if among <= 1:
        return None
    places = queue.similarity(projected.detach(), owners).topk(among, dim=1).indices
    return (queue.vectors[places] - used.T[:, None]).norm(dim=2).argmin(dim=1)
