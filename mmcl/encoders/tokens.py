"""What networks over groups of consecutive frames share."""

from __future__ import annotations

import torch
from torch import Tensor


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
