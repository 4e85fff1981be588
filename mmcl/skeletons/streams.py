"""The streams of skeleton action recognition: joint, bone, their motion, k-bone, and confidence.

Every stream is computed from joints, on the device the batch is on, and never stored. Definitions follow CTR-GCN
(arXiv 2107.12213) and 2s-AGCN: bone = joint - parent, or what ``bones`` of the layout names in its place (the root's
bone is zero); motion = forward difference in time, last frame zero. k-bone is the vector to the k-th ancestor (InfoGCN,
CVPR 2022); it is zero where the tree ends first.
A bone of which one end is missing is zero, and so is the motion into or out of a frame that does not show the joint.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.masks import Skeletons

STREAMS = ("joint", "bone", "joint_motion", "bone_motion", "confidence")
_PATTERN = re.compile(r"joint(_motion)?|(?:([2-9])_)?bone(_motion)?|confidence")


def check_stream(stream: str) -> str:
    """Return the name if it is a stream.

    Raises:
        UserError: it is none of :data:`STREAMS` and no ``k_bone`` / ``k_bone_motion`` with k from 2 to 9.
    """
    if not isinstance(stream, str) or not _PATTERN.fullmatch(stream):
        raise UserError(
            f"unknown stream '{stream}': choose one of {', '.join(STREAMS)}, or 2_bone … 9_bone (+ _motion)"
        )
    return stream


def ancestors(layout: Layout, stream: str) -> Tensor | None:
    """(V,) the joint at the other end of each bone, towards the root; None for a stream without bones.

    It is the joint itself where the tree ends first, so that the bone has no length.
    """
    match = _PATTERN.fullmatch(check_stream(stream))
    if match is None or "bone" not in stream:
        return None
    found, parents = [], layout.bone_parents
    for joint in range(layout.joint_count):
        ancestor = joint
        for _ in range(int(match.group(2) or 1)):
            if parents[ancestor] == ancestor:
                ancestor = joint
                break
            ancestor = parents[ancestor]
        found.append(ancestor)
    return torch.tensor(found)


def to_stream(clips: Skeletons, stream: str, ends: Tensor | None = None) -> Tensor:
    """Turn preprocessed joints (N, M, C, T, V) into a stream of the same shape; ``confidence`` has one channel.

    Args:
        clips: joints with their mask.
        stream: a name that :func:`check_stream` accepts.
        ends: from :func:`ancestors`, needed for bone streams.
    """
    x, mask = clips.joints, clips.mask
    if stream == "confidence":
        return (mask.to(x) if clips.confidence is None else clips.confidence)[:, :, None]
    if "bone" in stream:
        if ends is None:
            raise ValueError("a bone stream needs to know where its bones end")
        mask = mask & mask.index_select(3, ends)
        x = torch.where(mask[:, :, None], x - x.index_select(4, ends), 0)
    return motion(x, mask) if stream.endswith("motion") else x


def motion(x: Tensor, mask: Tensor) -> Tensor:
    """Forward difference over time of (N, M, C, T, V); the last frame is zero."""
    both = (mask[:, :, 1:] & mask[:, :, :-1])[:, :, None]
    step = torch.where(both, x[:, :, :, 1:] - x[:, :, :, :-1], 0)
    return torch.cat([step, torch.zeros_like(x[:, :, :, :1])], dim=3)


def channels(streams: tuple[str, ...], dimensions: int) -> int:
    """How many channels streams have together."""
    return sum(1 if stream == "confidence" else dimensions for stream in streams)
