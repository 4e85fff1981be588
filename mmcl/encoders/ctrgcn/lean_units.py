"""Units of CTR-GCN with their constants folded, for the form for use only (``encoders/lean.py``).

Batch norms are folded into the products beside them, alpha and the adjacency into one weight. A batch norm behind a
maximum is applied behind it, since its scale may be negative. Tensors are (B, C, V, T).

What graphs are traced from is written in the operations that ONNX Runtime has fast kernels for: 1x1 convolutions with
their bias, batched products without a transposition of either side, no convolution whose output is cut apart
afterwards. Bodies that PyTorch has channel by channel take plain matrix products instead, on the same constants.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.ctrgcn.spatial import SpatialUnit
from mmcl.encoders.ctrgcn.temporal import KERNEL, TemporalUnit
from mmcl.encoders.graph import SUBSETS
from mmcl.encoders.lean import Folded, channels_outside, folded, mix, scale_and_shift

COLUMNS = 3200  # joints x frames together: products are large enough, and what they need stays in a core's own cache


class LeanSpatial(Folded):
    """A spatial unit."""

    relate: Tensor
    relate_bias: Tensor
    expand: Tensor
    graph: Tensor
    value: Tensor
    value_bias: Tensor
    values_by_subset: Tensor
    bias_by_subset: Tensor
    down: Tensor
    shift: Tensor

    def __init__(self, unit: SpatialUnit) -> None:
        super().__init__()
        assert unit.relate.bias is not None
        self.joints, self.channels, self.relation = unit.joints, unit.channels, unit.relation
        self.shortcut = isinstance(unit.down, nn.Sequential)
        scale, shift = scale_and_shift(unit.bn)
        value, value_bias = folded(unit.value, scale.repeat_interleave(SUBSETS), torch.zeros(()))
        # tanh(z) = 2 sigmoid(2 z) - 1, and the sigmoid is several times faster: the constants go into the weights.
        alpha_weight = unit.strength * unit.expand_weight
        bias = unit.strength * unit.expand_bias.unsqueeze(2) - alpha_weight.sum(dim=2, keepdim=True)
        # (3, 2, V * V), the last rows that `expand` reads: the adjacency, and ones for the bias to be multiplied with.
        adjacency = unit.adjacency.flatten(1)
        graph = torch.stack([adjacency, torch.ones_like(adjacency)], dim=1)
        self.keep(
            relate=2.0 * unit.relate.weight[:, :, 0], relate_bias=2.0 * unit.relate.bias[:, None],
            expand=torch.cat([2.0 * alpha_weight, torch.ones_like(bias), bias], dim=2),
            graph=graph[None], value=value, value_bias=value_bias,
            values_by_subset=value.flatten(1).unflatten(0, (-1, SUBSETS)).transpose(0, 1).flatten(0, 1),
            bias_by_subset=value_bias.view(-1, SUBSETS).T.reshape(-1, 1),
        )  # fmt: skip
        if isinstance(unit.down, nn.Sequential):
            down, down_bias = folded(unit.down[0], *scale_and_shift(unit.down[1]))
            self.keep(down=down, shift=shift + down_bias)
        else:
            self.keep(shift=shift[:, None, None])

    def related(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """The mean over time (B, C_in, V) -> queries and keys, (B, 3, r, V) each."""
        products = torch.matmul(self.relate, pooled) + self.relate_bias
        query, key = products.unflatten(1, (2, SUBSETS, self.relation)).unbind(1)
        return query, key

    def topology(self, pooled: Tensor) -> Tensor:
        """(B, C_in, V) -> (B, C_out, V, 3 V), row u being what joint u collects from each subset and joint."""
        B, V = pooled.shape[0], self.joints
        query, key = self.related(pooled)
        relation = torch.sigmoid(query.unsqueeze(-1) - key.unsqueeze(-2)).flatten(3)
        rows = torch.cat([relation, self.graph.expand(B, -1, -1, -1)], dim=2)
        topology = torch.matmul(self.expand, rows).unflatten(3, (V, V))
        return topology.permute(0, 2, 3, 1, 4).reshape(B, self.channels, V, SUBSETS * V)

    def of_few(self, x: Tensor) -> Tensor:
        """(C_in, B, V, T) -> (C_out, B, V, T), by products whose sides need no copy to another order."""
        C, B, V, T = self.channels, *x.shape[1:]
        pooled = torch.addmm(self.relate_bias, self.relate, x.mean(dim=3).flatten(1))
        query, key = pooled.view(2, SUBSETS, self.relation, B, V).unbind(0)
        rows = x.new_empty(SUBSETS, self.relation + 2, B, V, V)
        relation = rows[:, : self.relation]
        torch.sub(query.unsqueeze(-1), key.unsqueeze(-2), out=relation).sigmoid_()
        rows[:, self.relation :] = self.graph[0].view(SUBSETS, 2, 1, V, V)
        values = torch.addmm(self.bias_by_subset, self.values_by_subset, x.flatten(1)).view(SUBSETS, C * B, V, T)
        topology = [torch.mm(*pair).view(C * B, V, V) for pair in zip(self.expand, rows.flatten(2), strict=True)]
        y = torch.bmm(topology[0], values[0])
        for subset in range(1, SUBSETS):
            y.baddbmm_(topology[subset], values[subset])
        y = y.view(C, B, V, T)
        if self.shortcut:
            return y.add_(mix(self.down, self.shift, x)).relu_()
        return y.add_(x).add_(self.shift[:, None]).relu_()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T)."""
        if channels_outside(x):
            return self.of_few(x.transpose(0, 1)).transpose(0, 1)
        return self.collect(x, self.topology(x.mean(dim=3)))

    def collect(self, x: Tensor, topology: Tensor) -> Tensor:
        """(B, C_in, V, T) by way of a topology (B, C_out, V, 3 V) -> (B, C_out, V, T)."""
        values = F.conv2d(x, self.value, self.value_bias).reshape(-1, self.channels, SUBSETS * self.joints, x.shape[3])
        y = torch.matmul(topology, values)
        if self.shortcut:
            return torch.relu_(F.conv2d(x, self.down, self.shift) + y)
        return torch.relu_(y + self.shift + x)


class LeanTemporal(Folded):
    """A temporal unit, without the activation behind it."""

    inner: Tensor
    inner_bias: Tensor
    point: Tensor
    point_bias: Tensor
    near: Tensor
    near_bias: Tensor
    far: Tensor
    far_bias: Tensor
    peak: Tensor
    peak_bias: Tensor

    def __init__(self, unit: TemporalUnit) -> None:
        super().__init__()
        self.stride, self.branch = unit.stride, unit.branch
        b = self.branch
        outer = scale_and_shift(unit.outer_bn)
        near, far, peak, point = ([part[i * b : (i + 1) * b] for part in outer] for i in range(4))
        scale, shift = (torch.cat(pair) for pair in zip(scale_and_shift(unit.inner_bn), point, strict=True))
        reduce, reduce_bias = folded(unit.reduce, scale, shift)
        (near_weight, near_bias), (far_weight, far_bias) = folded(unit.near, *near), folded(unit.far, *far)
        self.keep(
            inner=reduce[: 3 * b], inner_bias=reduce_bias[: 3 * b],
            point=reduce[3 * b :], point_bias=reduce_bias[3 * b :],
            near=near_weight, near_bias=near_bias, far=far_weight, far_bias=far_bias,
            peak=peak[0].view(-1, 1, 1, 1), peak_bias=peak[1],
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, C, V, ceil(T / stride))."""
        if channels_outside(x):
            return self.of_few(x.transpose(0, 1)).transpose(0, 1)
        step = (1, self.stride)
        near, far, peak = torch.relu(F.conv2d(x, self.inner, self.inner_bias)).split(self.branch, dim=1)
        near = F.conv2d(near, self.near, self.near_bias, step, (0, KERNEL // 2))
        far = F.conv2d(far, self.far, self.far_bias, step, (0, KERNEL - 1), (1, 2))
        # As a convolution, whose scale and bias an integer graph computes in integers.
        peak = F.conv2d(F.max_pool2d(peak, (1, 3), step, (0, 1)), self.peak, self.peak_bias, groups=self.branch)
        return torch.cat([near, far, peak, F.conv2d(x, self.point, self.point_bias, step)], dim=1)

    def of_few(self, x: Tensor) -> Tensor:
        """(C, B, V, T) -> (C, B, V, ceil(T / stride))."""
        b, B, V, stride = self.branch, *x.shape[1:3], self.stride
        point = mix(self.point, self.point_bias, x[..., ::stride])
        inner = mix(self.inner, self.inner_bias, x).relu_()
        # Many times faster than in two dimensions, but no graph for any number of frames.
        peak = F.max_pool1d(inner[2 * b :].flatten(0, 1), 3, stride, 1).view(b, B, V, -1)
        peak = torch.addcmul(self.peak_bias[:, None, None, None], peak, self.peak)
        padded = F.pad(inner[: 2 * b], (KERNEL - 1, KERNEL - 1)).flatten(1, 2)
        channel, joint, _ = padded.stride()
        size = (b, KERNEL, B * V, point.shape[3])  # rows (channel, tap), columns (body, joint, frame)
        near = padded.as_strided(size, (channel, 1, joint, stride), KERNEL // 2).reshape(b * KERNEL, -1)
        far = padded.as_strided(size, (channel, 2, joint, stride), b * channel).reshape(b * KERNEL, -1)
        near = torch.addmm(self.near_bias[:, None], self.near.flatten(1), near).view(b, B, V, -1)
        far = torch.addmm(self.far_bias[:, None], self.far.flatten(1), far).view(b, B, V, -1)
        return torch.cat([near, far, peak, point])


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
            self.keep(weight=weight, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, ceil(T / stride))."""
        y = self.temporal(self.spatial(x))
        if self.identity:
            y = y + x
        elif self.shortcut and channels_outside(x):
            y = y + mix(self.weight, self.bias, x.transpose(0, 1)[..., :: self.temporal.stride]).transpose(0, 1)
        elif self.shortcut:
            y = F.conv2d(x, self.weight, self.bias, (1, self.temporal.stride)) + y
        return torch.relu_(y)
