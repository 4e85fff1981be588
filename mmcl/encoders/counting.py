"""How large and how costly an encoder is."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmcl.encoders.base import Encoder


def count_parameters(module: nn.Module) -> int:
    """Learnable numbers in a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def count_macs(encoder: Encoder, frames: int) -> int:
    """Multiply-accumulates of one clip: convolutions and matrix products, as papers count them.

    Papers on skeleton networks print this number (T = 64, two persons) as "FLOPs"; a multiply-accumulate is two.

    Args:
        encoder: counted as it is, with the persons, joints and channels it was built for.
        frames: T.
    """
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encoder(encoder.example(frames))
    finally:
        encoder.train(training)
    return counter.get_total_flops() // 2
