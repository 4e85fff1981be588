"""Small parts that spatial and temporal units share. Tensors inside an encoder are (B, C, V, T), B = N * M."""

from __future__ import annotations

from torch import nn


def init_conv(conv: nn.Conv1d | nn.Conv2d, fan_out: int) -> None:
    """Kaiming's normal initialisation by fan-out for ReLU, with zero bias.

    Args:
        conv: filled in place; may be several convolutions stacked along the output channels.
        fan_out: output channels times kernel size of *one* of them, which is what the published network saw.
    """
    nn.init.normal_(conv.weight, 0.0, (2.0 / fan_out) ** 0.5)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def conv_bn(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """A shortcut that changes shape: 1x1 convolution with a stride along time, then batch norm."""
    conv = nn.Conv2d(channels_in, channels_out, 1, (1, stride))
    init_conv(conv, channels_out)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out))
