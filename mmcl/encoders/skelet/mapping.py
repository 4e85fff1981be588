"""Maps from joints to joints, and shortcuts around units that change joints, channels or frames.

Tensors are (B, C, T, V) with joints innermost: a map is then one matrix product over all rows (channel, frame).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch 2.6 has the second only


class JointMap(nn.Module):
    """x M, with a matrix of its own for each group of channels.

    Kinds: "learned" starts at the given matrix, "fixed" keeps it, "offset" adds a learned matrix that starts near
    zero, "importance" multiplies it, entry by entry, by a learned one that starts at one. Importance of an identity
    weighs joints; what lies off its diagonal has no effect and no gradient, and is there because the release counts it.

    Args:
        matrix: (V, W) to start from; columns sum to 1.
        groups: G.
        kind: see above.
    """

    base: Tensor | None
    weight: nn.Parameter | None

    def __init__(self, matrix: Tensor, groups: int, kind: str) -> None:
        super().__init__()
        self.groups, self.kind = groups, kind
        self.diagonal = kind == "importance" and matrix.shape[0] == matrix.shape[1]
        start = matrix.clone() if kind == "learned" else change_of(kind, matrix)
        self.weight = None if start is None else nn.Parameter(start.repeat(groups, 1, 1))
        self.register_buffer("base", None if kind == "learned" or self.diagonal else matrix.clone())

    def matrix(self) -> Tensor:
        """(G, V, W), or (G, V) factors of joints where it is diagonal."""
        if self.weight is None:
            assert self.base is not None
            return self.base.expand(self.groups, -1, -1)
        if self.diagonal:
            return self.weight.diagonal(dim1=1, dim2=2)
        if self.base is None:
            return self.weight
        return self.base + self.weight if self.kind == "offset" else self.base * self.weight

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V) -> (B, C, T, W)."""
        x, matrix = x.unflatten(1, (self.groups, -1)), self.matrix()
        if self.diagonal:
            return (x * matrix[:, None, None]).flatten(1, 2)
        return per_group(x, matrix).flatten(1, 2)


def change_of(kind: str, like: Tensor) -> Tensor | None:
    """Where what is learned beside a constant starts: "importance" at 1, "offset" within 1e-6 of 0, as released."""
    if kind == "importance":
        return torch.ones_like(like)
    return torch.empty_like(like).uniform_(-1e-6, 1e-6) if kind == "offset" else None


def per_group(x: Tensor, matrix: Tensor) -> Tensor:
    """(B, G, C, T, V) and a matrix (G, V, W) for each group -> (B, G, C, T, W): one product, rows (channel, frame).

    An exported graph keeps channel and frame apart: of any T it cannot tell how they join.
    """
    if exporting():
        return x @ matrix.unsqueeze(1)
    return (x.flatten(2, 3) @ matrix).unflatten(2, x.shape[2:4])


def accumulate(values: Tensor, graphs: Tensor) -> Tensor:
    """The sum over subsets of values times graphs, without a tensor for each term.

    Args:
        values: (B, G, K, C, T, V).
        graphs: (G, K, V, V) for all clips and channels, or (B, G, K, C, V, V).

    Returns:
        (B, G, C, T, V).
    """
    subsets, own = values.shape[2], graphs.dim() == 6
    if exporting():
        terms = [values[:, :, k] @ (graphs[:, :, k] if own else graphs[:, k].unsqueeze(1)) for k in range(subsets)]
        return torch.stack(terms).sum(dim=0)
    y: Tensor | None = None
    for k in range(subsets):
        part = values[:, :, k].flatten(0, 2) if own else values[:, :, k].flatten(2, 3).flatten(0, 1)
        graph = graphs[:, :, k].flatten(0, 2) if own else graphs[:, k].repeat(len(values), 1, 1)
        y = torch.bmm(part, graph) if y is None else y.baddbmm_(part.to(y), graph.to(y))
    assert y is not None
    return y.view(*values.shape[:2], *values.shape[3:])


class Shortcut(nn.Module):
    """A residual that follows a unit to its joints, channels and frames.

    Args:
        channels_in: C_in.
        channels_out: C_out.
        pool: (V, W) where joints change, else None.
        kind: of the map, see :class:`JointMap`.
        stride: along time; with one there is always a convolution.
    """

    def __init__(
        self, channels_in: int, channels_out: int, pool: Tensor | None, kind: str, stride: int | None = None
    ) -> None:
        super().__init__()
        self.joints = None if pool is None else JointMap(pool, 1, kind)
        self.conv: nn.Module | None = None
        if channels_in != channels_out or stride is not None:
            self.conv = nn.Conv2d(channels_in, channels_out, 1, (stride or 1, 1))
            self.bn: nn.Module = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, ceil(T / stride), W)."""
        if self.joints is not None:
            x = self.joints(x)
        return x if self.conv is None else self.bn(self.conv(x))

    def fold(self) -> None:
        """Make the batch norm a part of the convolution; for use only."""
        if isinstance(self.conv, nn.Conv2d):
            self.conv, self.bn = fused(self.conv, self.bn), nn.Identity()


class Shift(nn.Module):
    """Adds a constant, in place: what is left of a batch norm whose scale was folded into the products before it."""

    amount: Tensor

    def __init__(self, amount: Tensor) -> None:
        super().__init__()
        self.register_buffer("amount", amount.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Add to (B, C, T, V)."""
        return x.add_(self.amount)


def scale_and_shift(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation as y = scale * x + shift, by channel."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - scale * norm.running_mean


def fused(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """A convolution with the batch norm behind it, in evaluation, as one convolution."""
    assert isinstance(norm, nn.BatchNorm2d)
    return fusion.fuse_conv_bn_eval(conv, norm)


def rescale(conv: nn.Conv2d, scale: Tensor, shift: Tensor | None = None) -> None:
    """Let a convolution give scale * y + shift in place of y, by output channel."""
    assert conv.bias is not None
    conv.weight.data = conv.weight.data * scale.view(-1, 1, 1, 1)
    conv.bias.data = conv.bias.data * scale + (0 if shift is None else shift)
