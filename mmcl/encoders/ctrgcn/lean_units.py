"""Units of CTR-GCN with their constants folded, for the form for use only (``encoders/lean.py``).

Batch norms are folded into the products beside them, alpha and the adjacency into one weight, a shortcut's convolution
into the product that reads the same input. A batch norm behind a maximum is applied behind it, since its scale may be
negative. Tensors are (B, C, V, T), or (B, C, P) with P = V * T where only channels are mixed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.ctrgcn.spatial import SpatialUnit
from mmcl.encoders.ctrgcn.temporal import KERNEL, TemporalUnit
from mmcl.encoders.graph import SUBSETS
from mmcl.encoders.lean import Folded, alone, folded, mix, scale_and_shift


class LeanSpatial(Folded):
    """A spatial unit."""

    relate_weight: Tensor
    relate_bias: Tensor
    expand: Tensor
    constant: Tensor
    value_weight: Tensor
    value_bias: Tensor
    shift: Tensor

    def __init__(self, unit: SpatialUnit) -> None:
        super().__init__()
        assert unit.relate.bias is not None
        self.joints, self.channels, self.relation = unit.joints, unit.channels, unit.relation
        self.shortcut = not isinstance(unit.down, nn.Identity)
        scale, shift = scale_and_shift(unit.bn)
        weight, value_bias = folded(unit.value, scale.repeat_interleave(SUBSETS), torch.zeros(()))
        if isinstance(unit.down, nn.Sequential):
            down = folded(unit.down[0], *scale_and_shift(unit.down[1]))
            weight, value_bias = torch.cat([weight, down[0]]), torch.cat([value_bias, down[1]])
        # tanh(z) = 2 sigmoid(2 z) - 1, and the sigmoid is several times faster: the constants go into the weights.
        alpha_weight = unit.strength * unit.expand_weight
        bias = unit.strength * unit.expand_bias.unsqueeze(2) - alpha_weight.sum(dim=2, keepdim=True)
        graph = unit.adjacency.transpose(1, 2).reshape(SUBSETS, 1, -1)
        self.keep(
            relate_weight=2.0 * unit.relate.weight[:, :, 0], relate_bias=2.0 * unit.relate.bias[:, None],
            expand=torch.cat([2.0 * alpha_weight, torch.ones_like(bias), bias], dim=2),
            constant=torch.cat([graph, torch.ones_like(graph)], dim=1),
            value_weight=weight[:, :, 0], value_bias=value_bias, shift=shift[:, None],
        )  # fmt: skip

    def topology(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, 3 V, V), entry [v, u] being what joint u collects from joint v."""
        B, V = x.shape[0], self.joints
        related = mix(self.relate_weight, self.relate_bias, x.mean(dim=3))
        query, key = related.unflatten(1, (2, SUBSETS, self.relation)).unbind(1)
        relation = torch.sigmoid(query.unsqueeze(-2) - key.unsqueeze(-1)).flatten(3)  # (B, 3, r, V * V)
        rows = torch.cat([relation, self.constant.expand(B, -1, -1, -1)], dim=2)
        if not alone(x):
            return torch.matmul(self.expand, rows).transpose(1, 2).reshape(B, self.channels, SUBSETS * V, V)
        topology = x.new_empty(self.channels, SUBSETS, V * V)
        for subset in range(SUBSETS):  # straight to where the next product reads it
            torch.mm(self.expand[subset], rows[0, subset], out=topology[:, subset])
        return topology.view(1, self.channels, SUBSETS * V, V)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T)."""
        B, V, C, T = x.shape[0], self.joints, self.channels, x.shape[3]
        values = mix(self.value_weight, self.value_bias, x.flatten(2))
        shortcut = x
        if self.shortcut:
            values, shortcut = values.split([SUBSETS * C, C], dim=1)
        values = values.reshape(B * C, SUBSETS * V, T)
        topology = self.topology(x).flatten(0, 1).transpose(1, 2)
        y = torch.bmm(topology, values).view(B, C, V * T)
        return (y + shortcut.reshape(B, C, V * T)).add_(self.shift).relu_().view(B, C, V, T)


class LeanTemporal(Folded):
    """A temporal unit, without the activation behind it."""

    reduce_weight: Tensor
    reduce_bias: Tensor
    scales_weight: Tensor
    scales_bias: Tensor
    peak_scale: Tensor
    peak_shift: Tensor

    def __init__(self, unit: TemporalUnit) -> None:
        super().__init__()
        self.stride, self.branch = unit.stride, unit.branch
        b = self.branch
        inner, outer = scale_and_shift(unit.inner_bn), scale_and_shift(unit.outer_bn)
        near, far, peak, point = ([part[i * b : (i + 1) * b] for part in outer] for i in range(4))
        scale, shift = (torch.cat(pair) for pair in zip(inner, point, strict=True))
        reduce_weight, reduce_bias = folded(unit.reduce, scale, shift)
        near_weight, near_bias = folded(unit.near, *near)
        far_weight, far_bias = folded(unit.far, *far)
        self.keep(
            reduce_weight=reduce_weight[:, :, 0], reduce_bias=reduce_bias,
            scales_weight=torch.stack([near_weight, far_weight]).unsqueeze(3),  # (2, b, b, 1, 5)
            scales_bias=torch.stack([near_bias, far_bias]),
            peak_scale=peak[0].view(-1, 1, 1), peak_shift=peak[1].view(-1, 1, 1),
        )  # fmt: skip

    def scales(self, x: Tensor) -> Tensor:
        """Kernel 5, plain and dilated: (B, 2 b, V, T) -> (B, 2 b, V, ceil(T / stride))."""
        b, stride = self.branch, self.stride
        if not alone(x):
            (near, far), weight, bias = x.split(b, dim=1), self.scales_weight, self.scales_bias[..., 0]
            near = F.conv2d(near, weight[0], bias[0], (1, stride), (0, KERNEL // 2))
            far = F.conv2d(far, weight[1], bias[1], (1, stride), (0, KERNEL - 1), (1, 2))
            return torch.cat([near, far], dim=1)
        frames = -(-x.shape[3] // stride)
        padded = F.pad(x[0], (KERNEL - 1, KERNEL - 1))
        channel, joint, _ = padded.stride()
        size = (b, KERNEL, x.shape[2], frames)  # rows (channel, tap), columns (joint, frame)
        near = padded.as_strided(size, (channel, 1, joint, stride), KERNEL // 2)
        far = padded.as_strided(size, (channel, 2, joint, stride), b * channel)
        columns = torch.stack([near, far]).view(2, b * KERNEL, -1)
        both = torch.baddbmm(self.scales_bias, self.scales_weight.flatten(2), columns)
        return both.view(1, 2 * b, x.shape[2], frames)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, C, V, ceil(T / stride))."""
        b, stride = self.branch, self.stride
        mixed = mix(self.reduce_weight, self.reduce_bias, x.flatten(2)).unflatten(2, x.shape[2:])
        inner, point = mixed.split([3 * b, b], dim=1)
        scales, peak = torch.relu_(inner).split([2 * b, b], dim=1)
        if alone(x):  # many times faster than in two dimensions, but no graph for any number of frames
            peak = F.max_pool1d(peak[0], 3, stride, 1).unsqueeze(0)
        else:
            peak = F.max_pool2d(peak, (1, 3), (1, stride), (0, 1))
        return torch.cat([self.scales(scales), peak * self.peak_scale + self.peak_shift, point[..., ::stride]], dim=1)


class LeanUnit(Folded):
    """A unit with its residual.

    Args:
        spatial: folded already.
        temporal: as it is trained.
        residual: as it is trained, or None.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, spatial: nn.Module, temporal: TemporalUnit, residual: nn.Module | None) -> None:
        super().__init__()
        self.spatial, self.temporal = spatial, LeanTemporal(temporal)
        self.identity = isinstance(residual, nn.Identity)
        self.shortcut = isinstance(residual, nn.Sequential)
        if isinstance(residual, nn.Sequential):
            weight, bias = folded(residual[0], *scale_and_shift(residual[1]))
            self.keep(weight=weight[:, :, 0], bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, ceil(T / stride))."""
        y = self.temporal(self.spatial(x))
        if self.identity:
            y = y + x
        elif self.shortcut and alone(x):
            y = y + mix(self.weight, self.bias, x[..., :: self.temporal.stride].flatten(2)).view_as(y)
        elif self.shortcut:  # as a convolution, so that a tracer sees that the numbers of frames agree
            y = y + F.conv2d(x, self.weight[..., None, None], self.bias[:, 0], (1, self.temporal.stride))
        return torch.relu_(y)
