"""CTR-GCN written the plain way, as a module tree whose tensors carry the official names.

Every subset has its own four convolutions, every temporal branch its own, queries and keys are projected on all frames
before their mean: the textbook form, which the package's fused form must equal. Nothing of the package is used here.
"""

from __future__ import annotations

import torch
from torch import nn


class Relation(nn.Module):
    """One subset: a channel-wise topology refined from pairwise differences of joints."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        r = 8 if c_in in (3, 9) else c_in // 8
        self.conv1 = nn.Conv2d(c_in, r, 1)
        self.conv2 = nn.Conv2d(c_in, r, 1)
        self.conv3 = nn.Conv2d(c_in, c_out, 1)
        self.conv4 = nn.Conv2d(r, c_out, 1)

    def forward(self, x, adjacency, alpha):
        query, key = self.conv1(x).mean(dim=2), self.conv2(x).mean(dim=2)
        difference = torch.tanh(query[:, :, :, None] - key[:, :, None, :])
        topology = alpha * self.conv4(difference) + adjacency[None, None]
        return torch.einsum("ncuv,nctv->nctu", topology, self.conv3(x))


class Gcn(nn.Module):
    def __init__(self, c_in: int, c_out: int, joints: int, adaptive: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Relation(c_in, c_out) for _ in range(3))
        if adaptive:
            self.PA = nn.Parameter(torch.rand(3, joints, joints))
        else:
            self.register_buffer("A", torch.rand(3, joints, joints))
        self.alpha = nn.Parameter(torch.zeros(1))
        self.bn = nn.BatchNorm2d(c_out)
        if c_in != c_out:
            self.down = nn.Sequential(nn.Conv2d(c_in, c_out, 1), nn.BatchNorm2d(c_out))

    def forward(self, x):
        graphs = self.PA if hasattr(self, "PA") else self.A
        y = sum(conv(x, graphs[i], self.alpha) for i, conv in enumerate(self.convs))
        return torch.relu(self.bn(y) + (self.down(x) if hasattr(self, "down") else x))


class ConvBN(nn.Module):
    """A convolution along time and its batch norm."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        pad = (kernel - 1) * dilation // 2
        self.conv = nn.Conv2d(c_in, c_out, (kernel, 1), (stride, 1), (pad, 0), (dilation, 1))
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x):
        return self.bn(self.conv(x))


class Tcn(nn.Module):
    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        b = width // 4

        def start() -> list[nn.Module]:
            return [nn.Conv2d(width, b, 1), nn.BatchNorm2d(b), nn.ReLU()]

        self.branches = nn.ModuleList(
            [
                nn.Sequential(*start(), ConvBN(b, b, 5, stride, 1)),
                nn.Sequential(*start(), ConvBN(b, b, 5, stride, 2)),
                nn.Sequential(*start(), nn.MaxPool2d((3, 1), (stride, 1), (1, 0)), nn.BatchNorm2d(b)),
                nn.Sequential(nn.Conv2d(width, b, 1, (stride, 1)), nn.BatchNorm2d(b)),
            ]
        )

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Layer(nn.Module):
    def __init__(self, c_in: int, c_out: int, joints: int, stride: int, first: bool, adaptive: bool) -> None:
        super().__init__()
        self.gcn1 = Gcn(c_in, c_out, joints, adaptive)
        self.tcn1 = Tcn(c_out, stride)
        self.first = first
        if not first and (c_in != c_out or stride != 1):
            self.residual = ConvBN(c_in, c_out, 1, stride)

    def forward(self, x):
        y = self.tcn1(self.gcn1(x))
        if self.first:
            return torch.relu(y)
        return torch.relu(y + (self.residual(x) if hasattr(self, "residual") else x))


class PlainCTRGCN(nn.Module):
    """The network on official input (N, C, T, V, M).

    Args:
        stages: units in each of the three stages; (4, 3, 3) is the published network.
    """

    def __init__(self, classes, joints, persons, channels=3, width=64, stages=(4, 3, 3), adaptive=True) -> None:
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
        self.fc = nn.Linear(c_in, classes)

    def shape(self, frames: int) -> tuple[int, ...]:
        """Of one clip."""
        return self.channels, frames, self.joints, self.persons

    def forward(self, x):
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t)
        x = self.data_bn(x).reshape(n, m, v, c, t).permute(0, 1, 3, 4, 2).reshape(n * m, c, t, v)
        for number in range(1, self.depth + 1):
            x = getattr(self, f"l{number}")(x)
        return self.fc(x.reshape(n, m, x.shape[1], -1).mean(dim=3).mean(dim=1))


def randomise(network: PlainCTRGCN, seed: int) -> PlainCTRGCN:
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
