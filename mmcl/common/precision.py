"""Which precision a value is computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def exact_product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in the precision of its factors, under autocast too.

    Bones and motion are differences of coordinates: in half precision they lose the digits that they are made of.
    """
    if not torch.is_autocast_enabled(b.device.type):  # graphs that are exported hold no context of autocast
        return a @ b
    with torch.autocast(b.device.type, enabled=False):
        return a @ b


def widen(x: Tensor) -> Tensor:
    """float32 of what autocast made narrower; float64, in which tests compare exactly, stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
