"""What networks over groups of consecutive frames share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class TokenEncoder(ABC):
    """An encoder that can work on a part of the tokens of a body, which is what training with masks needs.

    Attributes:
        token_width: D of a token.
        patch_frames: consecutive frames of one joint that make a token.
    """

    token_width: int
    patch_frames: int

    @abstractmethod
    def tokenise(self, bodies: Tensor) -> Tensor:
        """(B, T, V, C) -> (B, L, D): all tokens of bodies with their positions, L = T' * V, joints running faster.

        T' is T / ``patch_frames``, rounded up: a last patch that is not full repeats the last frame.
        """

    @abstractmethod
    def encode(self, tokens: Tensor) -> Tensor:
        """(B, L', D) -> (B, L', D): any subset of the tokens of bodies, in any order, through the network."""


def whole_groups(bodies: Tensor, frames: int) -> Tensor:
    """Repeat the last frame until the number of frames is a multiple of ``frames``.

    Args:
        bodies: (B, T, V, C).
        frames: of a group.

    Returns:
        (B, T', V, C), T' the next multiple.
    """
    missing = -bodies.shape[1] % frames
    return torch.cat([bodies, bodies[:, -1:].expand(-1, missing, -1, -1)], dim=1) if missing else bodies
