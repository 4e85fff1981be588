"""The edge-importance network for use only: batch norms and edge importance folded, empty bodies computed once.

A batch norm in front of a spatial convolution goes into it as one behind does, and what biases come to at each joint is
a constant. Tensors are (B, C, V, T).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.bodies import present_bodies
from mmcl.encoders.edge_gcn.attention import AttentionLayer
from mmcl.encoders.edge_gcn.blocks import Block, Branch
from mmcl.encoders.edge_gcn.inputs import InputFeatures
from mmcl.encoders.edge_gcn.layers import SpatialLayer, SqueezeExcite, TemporalLayer
from mmcl.encoders.lean import scale_and_shift


def folded(pair: nn.Module, inner: tuple[Tensor, Tensor] | None = None) -> nn.Module:
    """A convolution and its batch norm as one convolution; anything else is copied as it is.

    Args:
        pair: (convolution, batch norm), or another module.
        inner: scale and shift of a batch norm in front, where the convolution sees one frame and one joint.
    """
    if not (isinstance(pair, nn.Sequential) and len(pair) == 2 and isinstance(pair[1], nn.BatchNorm2d)):
        return pair
    conv = cast("nn.Conv2d", pair[0])
    scale, shift = scale_and_shift(pair[1])
    found = nn.Conv2d(
        conv.in_channels, conv.out_channels, cast("tuple[int, int]", conv.kernel_size),
        cast("tuple[int, int]", conv.stride), cast("tuple[int, int]", conv.padding), groups=conv.groups,
    )  # fmt: skip
    assert conv.bias is not None and found.bias is not None
    weight, bias = conv.weight, conv.bias
    if inner is not None:
        bias = bias + torch.einsum("oiab,i->o", weight, inner[1])
        weight = weight * inner[0][:, None, None]
    found.weight.data, found.bias.data = weight * scale[:, None, None, None], bias * scale + shift
    return found


class LeanSpatial(nn.Module):
    """A spatial layer; what is in front of it may be a batch norm."""

    rows: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, layer: SpatialLayer, inner: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        conv, (scale, shift) = layer.conv, scale_and_shift(layer.bn)
        assert conv.gcn.bias is not None
        graph = conv.adjacency * conv.edge
        weight = conv.gcn.weight.view(conv.channels_out, conv.hops, conv.channels_in)
        bias = conv.gcn.bias.view(conv.channels_out, conv.hops)
        if inner is not None:
            bias = bias + weight @ inner[1]
            weight = weight * inner[0]
        weight = weight * scale[:, None, None]
        bias = torch.einsum("ck,kw->cw", bias * scale[:, None], graph.sum(dim=1)) + shift[:, None]
        self.first, self.hops, self.channels = conv.channels_in < conv.channels_out, conv.hops, conv.channels_out
        rows = graph.transpose(1, 2).flatten(0, 1) if self.first else graph.flatten(0, 1).T
        weight = weight.transpose(1, 2).flatten(1) if self.first else weight.flatten(0, 1)
        for name, tensor in (("rows", rows), ("weight", weight[:, :, None, None]), ("bias", bias.unsqueeze(2))):
            self.register_buffer(name, tensor.detach().clone().contiguous())
        self.act, self.residual = layer.act, folded(layer.residual, inner)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T)."""
        if self.first:
            collected = torch.matmul(self.rows, x).unflatten(2, (self.hops, x.shape[2])).flatten(1, 2)
            y = F.conv2d(collected, self.weight)
        else:
            values = F.conv2d(x, self.weight).unflatten(1, (self.channels, self.hops)).flatten(2, 3)
            y = torch.matmul(self.rows, values)
        return self.act(y + self.bias) + self.residual(x)


class LeanAttention(nn.Module):
    """An attention layer whose batch norm is a factor of what weighs and a constant."""

    scale: Tensor
    shift: Tensor

    def __init__(self, layer: AttentionLayer) -> None:
        super().__init__()
        scale, shift = scale_and_shift(layer.bn)
        self.register_buffer("scale", scale.detach().clone()[:, None, None])
        self.register_buffer("shift", shift.detach().clone()[:, None, None])
        self.att, self.act = layer.att, layer.act

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, C, V, T)."""
        return self.act(x * (self.att(x) * self.scale) + self.shift) + x


def lean_temporal(layer: TemporalLayer) -> TemporalLayer:
    """The layer itself, with its batch norms folded; gates inside keep theirs."""
    for name, step in layer.steps.items():
        layer.steps[name] = step if isinstance(step, SqueezeExcite) else folded(step)
    layer.residual = folded(layer.residual)
    return layer


def lean_block(block: Block) -> nn.Sequential:
    """A block's layers in their lean forms."""
    temporal = [lean_temporal(cast("TemporalLayer", layer)) for layer in block.temporal]
    return nn.Sequential(LeanSpatial(block.spatial), *temporal, LeanAttention(block.attention))


class LeanEdgeGCN(nn.Module):
    """An encoder's function in evaluation, (N, M, T, V, C) -> (N, K), for use only.

    Args:
        persons: M.
        inputs: what makes inputs of joints.
        branches: of the encoder; these and all other modules are taken over, so hand over copies.
        main: blocks behind them.
        classifier: from features to scores.
    """

    def __init__(
        self, persons: int, inputs: InputFeatures, branches: Iterable[Branch], main: Iterable[Block],
        classifier: nn.Linear,
    ) -> None:  # fmt: skip
        super().__init__()
        self.persons, self.inputs, self.classifier = persons, inputs, classifier
        self.feature_width, self.classes = classifier.in_features, classifier.out_features
        self.branches = nn.ModuleList(
            nn.Sequential(
                LeanSpatial(branch.stem_spatial, scale_and_shift(branch.norm)), lean_temporal(branch.stem_temporal),
                *(lean_block(cast("Block", block)) for block in branch.blocks),
            )
            for branch in branches
        )  # fmt: skip
        self.main = nn.Sequential(*(lean_block(block) for block in main))
        self.empty: Tensor | None = None
        self.empty_for: tuple[int, torch.device, torch.dtype] | None = None
        self.eval().requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D)."""
        bodies = x.flatten(0, 1).unsqueeze(1)
        if torch.compiler.is_compiling():  # a number of rows that depends on the data would break the graph
            return self.trunk(self.inputs(bodies)).unflatten(0, (-1, self.persons)).mean(dim=1)
        present = present_bodies(bodies)[:, 0]
        found = self.empty_feature(bodies).repeat(len(bodies), 1)
        if present.any():
            found[present] = self.trunk(self.inputs(bodies[present])).to(found.dtype)
        return found.unflatten(0, (-1, self.persons)).mean(dim=1)

    def empty_feature(self, bodies: Tensor) -> Tensor:
        """(1, D): the feature of an empty body, which is kept for the number of frames last asked for.

        It is computed without autocast, since it is kept for calls with and without.
        """
        wanted = (bodies.shape[2], bodies.device, self.classifier.weight.dtype)
        if self.empty is None or self.empty_for != wanted:
            with torch.autocast(bodies.device.type, enabled=False):
                nobody = torch.zeros_like(bodies[:1], dtype=self.classifier.weight.dtype)
                self.empty, self.empty_for = self.trunk(self.inputs(nobody)), wanted
        return self.empty

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.empty = None  # other constants make another feature of an empty body

    def trunk(self, inputs: list[Tensor]) -> Tensor:
        """(B, 2 C, V, T) for each input -> (B, D)."""
        x = torch.cat([branch(one) for branch, one in zip(self.branches, inputs, strict=True)], dim=1)
        return self.main(x).mean(dim=(2, 3))

    def head(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K) unnormalised scores."""
        return self.classifier(features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, K) unnormalised scores."""
        return self.head(self.features(x))
