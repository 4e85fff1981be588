"""The plain form of an encoder: found by the encoder's name, and given its weights.

A plain form computes nothing with the package's own networks, and so it is an independent reference. Their weights are
copied into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.common.registry import Registry
from mmcl.encoders.base import Encoder
from mmcl.encoders.building import encoder_name

Convert = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]  # an official state dict -> an encoder's

PLAIN_FORMS = Registry(
    "plain form",
    {
        "arn_lstm": "mmcl.benchmarks.plain.arn_lstm:PlainARNLSTM",
        "ctrgcn": "mmcl.benchmarks.plain.ctrgcn:plain_form",
        "edge_gcn": "mmcl.benchmarks.plain.edge_gcn:PlainEdgeGCN",
        "hyperformer": "mmcl.benchmarks.plain.hyperformer:plain_form",
        "mamp": "mmcl.benchmarks.plain.mamp:PlainMAMP",
        "skelet": "mmcl.benchmarks.plain.skelet:plain_form",
        "step_catformer": "mmcl.benchmarks.plain.step_catformer:plain_form",
        "sttformer": "mmcl.benchmarks.plain.sttformer:PlainSTTFormer",
    },
)


class Published(nn.Module):
    """A plain network that takes clips as an encoder does.

    Args:
        network: on official input.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, K)."""
        return self.network(x.permute(0, 4, 2, 3, 1))


def has_plain_form(encoder: Encoder) -> bool:
    """Whether :func:`published_network` has a plain form of this encoder."""
    return not getattr(encoder.options, "causal", False) and encoder_name(encoder) in PLAIN_FORMS


def published_network(encoder: Encoder) -> nn.Module:
    """The plain form with the weights, running statistics, mode, device and precision of an encoder.

    Raises:
        UserError: there is no plain form of this encoder.
    """
    if getattr(encoder.options, "causal", False):
        raise UserError("a causal network has no published form to compare with")
    form = PLAIN_FORMS[encoder_name(encoder)](encoder)
    if isinstance(form, nn.Module):  # has the encoder's tensors already
        return form.train(encoder.training)
    network, convert = form
    # Conversion only stacks and reorders, so serial numbers sent through it tell where each official number has gone.
    serials, total = {}, 0
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            serials[name] = torch.arange(total, total + tensor.numel(), dtype=torch.float64).view(tensor.shape)
            total += tensor.numel()
    ours, some = encoder.state_dict(), next(encoder.parameters())
    flat = torch.empty(total, dtype=some.dtype)
    for name, places in convert(serials).items():
        if not name.endswith("num_batches_tracked"):
            flat[places.long()] = ours[name].cpu()
    network.to(some).load_state_dict({name: flat[places.long()] for name, places in serials.items()}, strict=False)
    return Published(network).train(encoder.training)
