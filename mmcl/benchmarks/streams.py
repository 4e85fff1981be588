"""What a frame of a stream costs a causal CTR-GCN, against a window of the network that sees whole clips."""

from __future__ import annotations

from dataclasses import replace

import torch

from mmcl.deploy.stepping import products_of_steps
from mmcl.encoders.counting import count_macs
from mmcl.encoders.ctrgcn.network import CTRGCN


def stream_cost(encoder: CTRGCN, window: int) -> dict[str, float]:
    """Multiply-accumulates of the causal network with an encoder's options, all bodies there.

    Args:
        encoder: that sees whole windows.
        window: frames.

    Returns:
        ``frame``: of a frame of a stream, the mean over a window. ``share``: the same, of what the encoder takes for a
        window. ``dearest``: of a frame of the dearest step, as such a share.
    """
    causal = CTRGCN(encoder.layout, encoder.classes, replace(encoder.options, causal=True)).eval()
    network = causal.continual()
    assert network is not None, "it is causal"
    steps = products_of_steps(network, torch.ones_like(causal.example(network.step))[0], window)
    whole, frame = count_macs(encoder, window), sum(steps) / len(steps) / network.step
    return {"frame": frame, "share": frame / whole, "dearest": max(steps) / network.step / whole}
