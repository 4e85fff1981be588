"""How large and how costly an encoder is."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmcl.encoders.base import Encoder


def count_parameters(module: nn.Module) -> int:
    """Numbers in the parameters of a module, whether they are trained at the moment or not."""
    return sum(parameter.numel() for parameter in module.parameters())


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
        return count_products(encoder, torch.ones_like(encoder.example(frames)))  # zeros would be absent persons
    finally:
        encoder.train(training)


def count_products(network: nn.Module, *inputs: Any) -> int:
    """Multiply-accumulates of one call, convolutions and matrix products only.

    Attention is computed in plain products for it: the counter does not know a processor's fused kernel.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, which takes as long as a prediction

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return counter.get_total_flops() // 2
