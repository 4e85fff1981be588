"""The way from an encoder's feature into another space, or from there to the encoder's."""

from __future__ import annotations

from torch import nn


def projection(width_in: int, width_out: int) -> nn.Sequential:
    """The paper's M_align: Linear, ReLU, Linear, at the width of the space it maps to."""
    return nn.Sequential(nn.Linear(width_in, width_out), nn.ReLU(), nn.Linear(width_out, width_out))
