"""Random numbers for a plain network: the textbook form, which the package's own form must equal."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def randomise(network: nn.Module, seed: int) -> Any:
    """Fill every tensor with values under which each matters; batch-norm statistics are those of a random batch."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith(("PA", ".A")):
            tensor.copy_(noise.abs() / tensor.shape[-1])
        elif tensor.dim() >= 2:
            tensor.copy_(noise * tensor[0].numel() ** -0.5)
        elif name.endswith("weight"):  # a batch norm's scale
            tensor.copy_(1.0 + 0.2 * noise)
        elif "running" not in name and tensor.is_floating_point():  # biases, alpha
            tensor.copy_(0.3 * noise)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    x = torch.randn(8, *network.shape(frames=16), generator=generator).to(network.fc.weight.dtype)
    with torch.no_grad():
        network.train()(x)
    for norm in norms:
        norm.momentum = 0.1
    return network
