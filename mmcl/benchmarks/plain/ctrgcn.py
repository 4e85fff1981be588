"""CTR-GCN written the plain way: the baseline of every speed ratio, and the reference of the fused form's tests.

Every subset has its own four convolutions, every temporal branch its own, queries and keys are projected on all frames
before their mean, and every body is computed, empty or not: the textbook form of Chen et al., ICCV 2021, with in-place
activations where the released code has them. Tensors carry the official names; nothing of the package's own network is
used but to copy its weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.benchmarks.plain.form import Convert
from mmcl.encoders.ctrgcn.network import CTRGCN, STAGES, plan_units
from mmcl.encoders.ctrgcn.official import convert_official


class Relation(nn.Module):
    """One subset: a channel-wise topology refined from pairwise differences of joints."""

    def __init__(self, c_in: int, c_out: int, relation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, relation, 1)
        self.conv2 = nn.Conv2d(c_in, relation, 1)
        self.conv3 = nn.Conv2d(c_in, c_out, 1)
        self.conv4 = nn.Conv2d(relation, c_out, 1)

    def forward(self, x: Tensor, adjacency: Tensor, alpha: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, V)."""
        query, key = self.conv1(x).mean(dim=2), self.conv2(x).mean(dim=2)
        difference = torch.tanh(query[:, :, :, None] - key[:, :, None, :])
        topology = alpha * self.conv4(difference) + adjacency[None, None]
        return torch.einsum("ncuv,nctv->nctu", topology, self.conv3(x))


class Gcn(nn.Module):
    """The spatial unit: the sum of the subsets, a batch norm, and a shortcut."""

    def __init__(self, c_in: int, c_out: int, relation: int, joints: int, adaptive: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Relation(c_in, c_out, relation) for _ in range(3))
        self.graphs = "PA" if adaptive else "A"
        if adaptive:
            self.PA = nn.Parameter(torch.rand(3, joints, joints))
        else:
            self.register_buffer("A", torch.rand(3, joints, joints))
        self.alpha = nn.Parameter(torch.zeros(1))
        self.bn = nn.BatchNorm2d(c_out)
        self.down: nn.Module | None = None
        if c_in != c_out:
            self.down = nn.Sequential(nn.Conv2d(c_in, c_out, 1), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, V)."""
        graphs: Tensor = getattr(self, self.graphs)
        y = self.convs[0](x, graphs[0], self.alpha)
        for subset in (1, 2):
            y = y + self.convs[subset](x, graphs[subset], self.alpha)
        y = self.bn(y)
        y += x if self.down is None else self.down(x)
        return torch.relu_(y)


class ConvBN(nn.Module):
    """A convolution along time and its batch norm."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        pad = (kernel - 1) * dilation // 2
        self.conv = nn.Conv2d(c_in, c_out, (kernel, 1), (stride, 1), (pad, 0), (dilation, 1))
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, ceil(T / stride), V)."""
        return self.bn(self.conv(x))


class Tcn(nn.Module):
    """The temporal unit: four branches side by side."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        b = width // 4

        def start() -> list[nn.Module]:
            return [nn.Conv2d(width, b, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]

        self.branches = nn.ModuleList(
            [
                nn.Sequential(*start(), ConvBN(b, b, 5, stride, 1)),
                nn.Sequential(*start(), ConvBN(b, b, 5, stride, 2)),
                nn.Sequential(*start(), nn.MaxPool2d((3, 1), (stride, 1), (1, 0)), nn.BatchNorm2d(b)),
                nn.Sequential(nn.Conv2d(width, b, 1, (stride, 1)), nn.BatchNorm2d(b)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V) -> (B, C, ceil(T / stride), V)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Layer(nn.Module):
    """Spatial unit, temporal unit, and a residual around both, except in the first."""

    def __init__(self, c_in: int, c_out: int, joints: int, stride: int, first: bool, adaptive: bool) -> None:
        super().__init__()
        self.gcn1 = Gcn(c_in, c_out, 8 if first else c_in // 8, joints, adaptive)
        self.tcn1 = Tcn(c_out, stride)
        self.first = first
        self.residual: nn.Module | None = None
        if not first and (c_in != c_out or stride != 1):
            self.residual = ConvBN(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, ceil(T / stride), V)."""
        y = self.tcn1(self.gcn1(x))
        if not self.first:
            y += x if self.residual is None else self.residual(x)
        return torch.relu_(y)


class PlainCTRGCN(nn.Module):
    """The network on official input (N, C, T, V, M).

    Args:
        classes: K.
        joints: V.
        persons: M.
        channels: C.
        width: channels of the first stage.
        stages: units in each of the three stages; (4, 3, 3) is the published network.
        adaptive: learn the adjacency.
        dropout: on the feature, before the classifier.
    """

    def __init__(
        self, classes: int, joints: int, persons: int, channels: int = 3, width: int = 64,
        stages: tuple[int, ...] = (4, 3, 3), adaptive: bool = True, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.data_bn = nn.BatchNorm1d(persons * joints * channels)
        self.depth = sum(stages)
        self.joints, self.persons, self.channels = joints, persons, channels
        c_in, number = channels, 0
        for stage, units in enumerate(stages):
            for position in range(units):
                number += 1
                c_out = width * 2**stage
                stride = 2 if stage > 0 and position == 0 else 1
                setattr(self, f"l{number}", Layer(c_in, c_out, joints, stride, number == 1, adaptive))
                c_in = c_out
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(c_in, classes)

    def shape(self, frames: int) -> tuple[int, ...]:
        """Of one clip."""
        return self.channels, frames, self.joints, self.persons

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N, K)."""
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t)
        x = self.data_bn(x).reshape(n, m, v, c, t).permute(0, 1, 3, 4, 2).reshape(n * m, c, t, v)
        for number in range(1, self.depth + 1):
            x = getattr(self, f"l{number}")(x)
        return self.fc(self.dropout(x.reshape(n, m, x.shape[1], -1).mean(dim=3).mean(dim=1)))


def plain_form(encoder: CTRGCN) -> tuple[PlainCTRGCN, Convert]:
    """A plain network of an encoder's size, and the way from its state dict to the encoder's."""
    options, units = encoder.options, plan_units(encoder.options)
    widths = [options.width * 2**stage for stage in range(STAGES)]
    network = PlainCTRGCN(
        encoder.classes, encoder.layout.joint_count, options.persons, options.channels, options.width,
        tuple(sum(c_out == width for _, c_out, _ in units) for width in widths), options.adaptive, options.dropout,
    )  # fmt: skip
    return network, lambda official: convert_official(official).state
