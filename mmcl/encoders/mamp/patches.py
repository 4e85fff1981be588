"""Patches: a few consecutive frames of one joint are one token, in the order patch, joint."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEVIATION = 0.02  # of the positions' initial values


def patchify(bodies: Tensor, frames: int) -> Tensor:
    """(B, T, V, C) -> (B, T / frames, V, frames * C): the values of each patch, frame by frame."""
    return bodies.unflatten(1, (-1, frames)).transpose(2, 3).flatten(3)


class Positions(nn.Module):
    """Learned vectors for the place of a patch in time and for its joint, which are added to tokens.

    Args:
        patches: along time, for which the vectors in time are made. They are interpolated for another number, as MAMP
            does with a checkpoint for another window (bicubic).
        joints: V.
        width: D.
    """

    def __init__(self, patches: int, joints: int, width: int) -> None:
        super().__init__()
        self.time = nn.Parameter(nn.init.trunc_normal_(torch.empty(patches, width), std=DEVIATION))
        self.joint = nn.Parameter(nn.init.trunc_normal_(torch.empty(joints, width), std=DEVIATION))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T', V, D) -> (B, T', V, D)."""
        count = tokens.shape[1]
        if count == len(self.time):
            return tokens + self.joint + self.time[:, None]
        grid = F.interpolate(self.time.T[None, :, :, None], size=(count, 1), mode="bicubic", align_corners=False)
        return tokens + self.joint + grid[0, :, :, 0].T[:, None]
