"""CTR-GCN's temporal unit: four views of the time axis side by side.

Each branch starts with a 1x1 convolution of its own; one convolution does all four. Each ends in a batch norm of its
own; one batch norm does all four. That the last branch is strided makes no difference: taking every s-th frame commutes
with a 1x1 convolution, and its batch norm is the closing one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.encoders.ctrgcn.blocks import init_conv

BRANCHES = 4
KERNEL = 5


class TemporalUnit(nn.Module):
    """Multi-scale temporal convolution without a residual of its own.

    Branches, C / 4 channels each: kernel 5; kernel 5 with dilation 2; the maximum of 3 frames; the frame itself.

    Args:
        channels: C, a multiple of 4.
        stride: along time.

    Attributes:
        padded: whether zeros stand around the clip, so that a frame sees as many frames behind it as before it.
    """

    padded = True

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.branch = branch = channels // BRANCHES
        self.reduce = nn.Conv2d(channels, channels, 1)
        self.inner_bn = nn.BatchNorm2d((BRANCHES - 1) * branch)
        self.near = nn.Conv2d(branch, branch, (1, KERNEL), (1, stride), (0, 2 * self.padded))
        self.far = nn.Conv2d(branch, branch, (1, KERNEL), (1, stride), (0, 4 * self.padded), (1, 2))
        self.peak = nn.MaxPool2d((1, 3), (1, stride), (0, 1 * self.padded))
        self.outer_bn = nn.BatchNorm2d(channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Published initialisation: Kaiming by fan-out of each unstacked convolution, batch-norm scales N(1, 0.02)."""
        init_conv(self.reduce, self.branch)
        init_conv(self.near, self.branch * KERNEL)
        init_conv(self.far, self.branch * KERNEL)
        for norm in (self.inner_bn, self.outer_bn):
            nn.init.normal_(norm.weight, 1.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, C, V, ceil(T / stride))."""
        branch = self.branch
        inner, point = self.reduce(x).split([(BRANCHES - 1) * branch, branch], dim=1)
        near, far, peak = torch.relu_(self.inner_bn(inner)).split(branch, dim=1)
        # On a CPU pooling is several times faster, copies included, with the channels innermost.
        peak = self.peak(peak.contiguous(memory_format=torch.channels_last)).contiguous()
        return self.outer_bn(torch.cat([self.near(near), self.far(far), peak, point[..., :: self.stride]], dim=1))
