"""The streams of skeleton action recognition: joint, bone, their motion, and k-bone.

Every stream is computed from joints, on the device the batch is on, and never stored. Definitions follow CTR-GCN
(arXiv 2107.12213) and 2s-AGCN: bone = joint - parent (the root's bone is zero); motion = forward difference in time,
last frame zero. k-bone is the vector to the k-th ancestor (InfoGCN, CVPR 2022); it is zero where the tree ends first.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout

STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
_PATTERN = re.compile(r"joint(_motion)?|(?:([2-9])_)?bone(_motion)?")


def check_stream(stream: str) -> str:
    """Return the name if it is a stream.

    Raises:
        UserError: it is none of :data:`STREAMS` and no ``k_bone`` / ``k_bone_motion`` with k from 2 to 9.
    """
    if not _PATTERN.fullmatch(stream):
        raise UserError(
            f"unknown stream '{stream}': choose one of {', '.join(STREAMS)}, or 2_bone … 9_bone (+ _motion)"
        )
    return stream


def bone_matrix(layout: Layout, hops: int = 1) -> Tensor:
    """(V, V) matrix B with B @ joints = joint minus its ancestor ``hops`` steps towards the root."""
    matrix, parents = torch.eye(layout.joint_count), layout.bone_parents
    for joint in range(layout.joint_count):
        ancestor = joint
        for _ in range(hops):
            if parents[ancestor] == ancestor:  # the tree ends here: no such bone
                ancestor = joint
                break
            ancestor = parents[ancestor]
        matrix[joint, ancestor] -= 1.0
    return matrix


def motion(x: Tensor) -> Tensor:
    """Forward difference over time of (N, M, T, V, C); the last frame is zero."""
    step = x[:, :, 1:] - x[:, :, :-1]
    return torch.cat([step, torch.zeros_like(x[:, :, :1])], dim=2)


def to_stream(joints: Tensor, stream: str, bones: Tensor | None = None) -> Tensor:
    """Turn joints (N, M, T, V, C) into a stream of the same shape.

    Args:
        joints: preprocessed joints.
        stream: a name that :func:`check_stream` accepts.
        bones: the matrix of :func:`bone_matrix`, needed for bone streams.
    """
    x = joints
    if "bone" in stream:
        if bones is None:
            raise ValueError("a bone stream needs its bone matrix")
        x = bones.to(x) @ x
    return motion(x) if stream.endswith("motion") else x


def stream_bones(layout: Layout, stream: str) -> Tensor | None:
    """The bone matrix that a stream needs, or None for joint streams."""
    match = _PATTERN.fullmatch(check_stream(stream))
    if match is None or "bone" not in stream:
        return None
    return bone_matrix(layout, int(match.group(2) or 1))
