"""Temporal units: several views of the time axis side by side. Tensors are (B, C, T, V).

Every branch begins with a 1x1 convolution of its own; one convolution does all. A strided 1x1 convolution is a
convolution whose frames are taken afterwards.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.skelet.mapping import Shift, exporting, fused, rescale, scale_and_shift


def every(x: Tensor, stride: int) -> Tensor:
    """Every ``stride``-th frame of (B, C, T, V), as a pooling where a graph is exported.

    The exporter then sees that the number of frames is that of a strided convolution, whatever T is.
    """
    if stride > 1 and exporting():
        return F.max_pool2d(x, 1, (stride, 1))
    return x[:, :, ::stride]


def highest(x: Tensor, stride: int) -> Tensor:
    """The maximum of 3 frames around every ``stride``-th of (B, C, T, V).

    On a CPU it is many times faster than the library's pooling, which is there for graphs.
    """
    if exporting():
        return F.max_pool2d(x, (3, 1), (stride, 1), (1, 0))
    padded, frames = F.pad(x, (0, 0, 1, 1), value=-torch.inf), x.shape[2]
    before, at, after = (padded[:, :, first : first + frames : stride] for first in range(3))
    return torch.maximum(torch.maximum(before, at), after)


class TemporalUnit(nn.Module):
    """Branches along time, of which the last two are the maximum of 3 frames and the frame itself.

    Args:
        channels_in: C_in.
        widths: channels of each branch.
        kernel: of the convolutions.
        stride: along time.
    """

    def __init__(self, channels_in: int, widths: list[int], kernel: int, stride: int) -> None:
        super().__init__()
        self.widths, self.stride = widths, stride
        self.reduce = nn.Conv2d(channels_in, sum(widths), 1)
        self.inner_bn: nn.Module = nn.BatchNorm2d(sum(widths[:-1]))
        self.scales = nn.ModuleList(
            nn.Conv2d(width, width, (kernel, 1), (stride, 1), (kernel // 2 * dilation, 0), (dilation, 1))
            for dilation, width in enumerate(widths[:-2], start=1)
        )
        self.peak_scale: Tensor | None
        self.register_buffer("peak_scale", None)
        self.outer_bn: nn.Module = nn.BatchNorm2d(sum(widths))

    def branches(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C, ceil(T / stride), V), branch by branch."""
        inner, point = self.reduce(x).split([sum(self.widths[:-1]), self.widths[-1]], dim=1)
        *parts, peak = torch.relu_(self.inner_bn(inner)).split(self.widths[:-1], dim=1)
        peak = highest(peak, self.stride)
        if self.peak_scale is not None:
            peak = peak * self.peak_scale
        found = [scale(part) for scale, part in zip(self.scales, parts, strict=True)]
        return torch.cat([*found, peak, every(point, self.stride)], dim=1)

    def fold(self) -> None:
        """Fold the batch norms, for use only. The scale of one behind a maximum stays, since it may be negative."""
        assert isinstance(self.inner_bn, nn.BatchNorm2d) and isinstance(self.outer_bn, nn.BatchNorm2d)
        scale, shift = scale_and_shift(self.outer_bn)
        *parts, peak, point = scale.split(self.widths)
        for conv, part in zip(self.scales, parts, strict=True):
            assert isinstance(conv, nn.Conv2d)
            rescale(conv, part)
        self.peak_scale = peak.detach().clone().view(-1, 1, 1)
        inner_scale, inner_shift = scale_and_shift(self.inner_bn)
        rescale(self.reduce, torch.cat([inner_scale, point]), torch.cat([inner_shift, torch.zeros_like(point)]))
        self.inner_bn, self.outer_bn = nn.Identity(), Shift(shift.view(-1, 1, 1))


class MultiScale(TemporalUnit):
    """``mstcn``: kernel 3 with dilations 1 to 4, a maximum, the frame itself, mixed at the end.

    ``dgmstcn`` carries a token along, the mean over joints, which is added back to every joint with a learned strength
    that starts at zero.

    Args:
        channels_in: C_in.
        channels_out: C_out; the first branch takes what a division by six leaves over.
        stride: along time.
        joints: V where there is a token, else None.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1, joints: int | None = None) -> None:
        width = channels_out // 6
        super().__init__(channels_in, [channels_out - 5 * width, *[width] * 5], 3, stride)
        self.strength = None if joints is None else nn.Parameter(torch.zeros(joints))
        self.mix = nn.Conv2d(channels_out, channels_out, 1)
        self.bn: nn.Module = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, ceil(T / stride), V)."""
        if self.strength is None:
            y = self.branches(x)
        else:
            y = self.branches(torch.cat([x, x.mean(dim=3, keepdim=True)], dim=3))
            y = y[..., :-1] + y[..., -1:] * self.strength
        return self.bn(self.mix(torch.relu_(self.outer_bn(y))))

    def fold(self) -> None:
        """Fold the batch norms, for use only."""
        super().fold()
        self.mix, self.bn = fused(self.mix, self.bn), nn.Identity()


class PlainScale(TemporalUnit):
    """``ctr_mstcn``, the release's MSTCN: kernel 5 with dilations 1 and 2, a maximum, the frame itself.

    Args:
        channels_in: C_in.
        channels_out: C_out; the last branch takes what a division by four leaves over.
        stride: along time.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        width = channels_out // 4
        super().__init__(channels_in, [*[width] * 3, channels_out - 3 * width], 5, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, ceil(T / stride), V)."""
        return torch.relu_(self.outer_bn(self.branches(x)))


def temporal_unit(name: str, channels: int, stride: int, joints: int) -> MultiScale | PlainScale:
    """A temporal unit by its name in the options."""
    if name == "ctr_mstcn":
        return PlainScale(channels, channels, stride)
    return MultiScale(channels, channels, stride, joints if name == "dgmstcn" else None)
