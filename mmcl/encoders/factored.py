"""Linear layers and convolutions whose weight is a product of two thin factors.

A weight W of a layer is a matrix (C_out, C_in * kernel), one for each group of channels. Here it is W = up @ down with
``down`` (k, C_in * kernel) and ``up`` (C_out, k): the layer first goes to k channels, then to C_out. A layer that
several projections share (queries, keys and values in one) may have its rows cut into as many equal parts, each with
factors of its own.

A factored layer is still an ``nn.Linear`` or a convolution to whoever asks: it has the same sizes, the same bias, and
a ``weight``, which is the product and is computed each time that it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.common.errors import UserError

Layer = nn.Linear | nn.Conv1d | nn.Conv2d
_CONVOLUTION = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
    "transposed", "output_padding", "_reversed_padding_repeated_twice",
)  # fmt: skip
_SIZES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"), nn.Conv1d: _CONVOLUTION, nn.Conv2d: _CONVOLUTION,
}  # fmt: skip


class Factored(nn.Module):
    """What both kinds of factored layers share.

    Args:
        layer: whose sizes and bias are taken over. The factors are random, and their product has the mean square of the
            layer's weight: a network that is trained from scratch in this form begins at the scale it was published
            with.
        ranks: k of each part; more than one only without groups, and then they divide C_out evenly.

    Raises:
        UserError: a rank is no whole number from 1 to the smaller side of its matrix, or the parts do not divide it.
    """

    kind: type[nn.Module]
    bias: Any
    up: nn.ParameterList

    def __init__(self, layer: Layer, ranks: Sequence[int]) -> None:
        nn.Module.__init__(self)
        for name in _SIZES[self.kind]:
            setattr(self, name, getattr(layer, name))
        weight, groups = layer.weight, getattr(layer, "groups", 1)
        rows, columns = checked_sizes(layer, ranks)
        self.ranks = tuple(ranks)
        self.down = nn.Parameter(weight.new_empty(groups * sum(ranks), *weight.shape[1:]), weight.requires_grad)
        self.up = nn.ParameterList(
            nn.Parameter(weight.new_empty(groups * rows, rank), weight.requires_grad) for rank in ranks
        )
        self.bias = layer.bias
        with torch.no_grad():
            scale = weight.square().mean().sqrt()
            self.down.normal_(0.0, columns**-0.5)
            for up, rank in zip(self.up, ranks, strict=True):
                up.normal_(0.0, (columns / rank) ** 0.5).mul_(scale)
        self.training = layer.training

    @property
    def weight(self) -> Tensor:
        """The product of the factors, in the shape of the layer's weight."""
        groups, shape = getattr(self, "groups", 1), self.down.shape[1:]
        if groups > 1:
            product = torch.bmm(self.up[0].unflatten(0, (groups, -1)), self.down.flatten(1).unflatten(0, (groups, -1)))
            return product.flatten(0, 1).unflatten(1, shape)
        downs = self.down.flatten(1).split(self.ranks)
        return torch.cat([up @ down for up, down in zip(self.up, downs, strict=True)]).unflatten(1, shape)

    @property
    def saved(self) -> int:
        """How many numbers fewer the factors hold than the weight would."""
        rows = sum(len(up) for up in self.up)
        return rows * self.down[0].numel() - self.down.numel() - sum(up.numel() for up in self.up)

    @torch.no_grad()
    def fill(self, downs: Sequence[Tensor], ups: Sequence[Tensor]) -> None:
        """Take factors over: of each part (groups, k, columns) and (groups, rows, k)."""
        self.down.copy_(torch.cat([down.flatten(0, 1) for down in downs]).view_as(self.down))
        for own, up in zip(self.up, ups, strict=True):
            own.copy_(up.flatten(0, 1))

    @torch.no_grad()
    def merged(self) -> Layer:
        """The same layer with its weight in one."""
        with torch.device("meta"):
            found: Any = self.kind(1, 1) if self.kind is nn.Linear else self.kind(1, 1, 1)
        for name in _SIZES[self.kind]:
            setattr(found, name, getattr(self, name))
        found.weight = nn.Parameter(self.weight.detach().clone(), self.down.requires_grad)
        found.bias = self.bias
        found.training = self.training
        layer: Layer = found
        return layer


class FactoredLinear(Factored, nn.Linear):  # type: ignore[misc, override]
    """A linear layer with two thin weights."""

    kind = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        """(…, C_in) -> (…, C_out)."""
        thin = F.linear(input, self.down)
        if len(self.ranks) == 1:
            return F.linear(thin, self.up[0], self.bias)
        parts = zip(thin.split(self.ranks, dim=-1), self.up, strict=True)
        found = torch.cat([F.linear(part, up) for part, up in parts], dim=-1)
        return found if self.bias is None else found + self.bias


class _FactoredConv(Factored):
    """A convolution to few channels, then one of a single tap: stride, padding and dilation belong to the first."""

    stride: Any
    padding: Any
    dilation: Any
    groups: int

    def forward(self, input: Tensor) -> Tensor:
        """(B, C_in, …) -> (B, C_out, …)."""
        conv: Callable[..., Tensor] = F.conv1d if self.kind is nn.Conv1d else F.conv2d
        taps = (1,) * (self.down.dim() - 2)
        thin = conv(input, self.down, None, self.stride, self.padding, self.dilation, self.groups)
        if len(self.ranks) == 1:
            return conv(thin, self.up[0].view(*self.up[0].shape, *taps), self.bias, groups=self.groups)
        biases = [None] * len(self.ranks) if self.bias is None else self.bias.chunk(len(self.ranks))
        parts = zip(thin.split(self.ranks, dim=1), self.up, biases, strict=True)
        return torch.cat([conv(part, up.view(*up.shape, *taps), bias) for part, up, bias in parts], dim=1)


class FactoredConv1d(_FactoredConv, nn.Conv1d):  # type: ignore[misc, override]
    """A convolution in one dimension with two thin weights."""

    kind = nn.Conv1d


class FactoredConv2d(_FactoredConv, nn.Conv2d):  # type: ignore[misc, override]
    """A convolution in two dimensions with two thin weights."""

    kind = nn.Conv2d


_FORMS: dict[type[nn.Module], type[Any]] = {
    nn.Linear: FactoredLinear, nn.Conv1d: FactoredConv1d, nn.Conv2d: FactoredConv2d,
}  # fmt: skip


def kind_of(layer: nn.Module) -> type[nn.Module] | None:
    """The kind that a layer is of, factored or not, if it can be factored at all; classes derived from it cannot."""
    if isinstance(layer, Factored):
        return layer.kind
    plain = type(layer) in _FORMS and getattr(layer, "padding_mode", "zeros") == "zeros"
    return type(layer) if plain else None


def factored(layer: nn.Module, ranks: Sequence[int]) -> Factored:
    """A layer of the same sizes with random factors of these ranks; see :class:`Factored`.

    Raises:
        UserError: the layer is of no kind that can be factored, or the ranks do not fit it.
    """
    kind = kind_of(layer)
    if kind is None:
        raise UserError(f"a {type(layer).__name__} has no weight that can be factored")
    form: Factored = _FORMS[kind](layer, ranks)
    return form


def checked_sizes(layer: nn.Module, ranks: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the matrix of one part (of one group) of a layer.

    Raises:
        UserError: ranks that do not fit it.
    """
    weight, groups, parts = layer.weight, getattr(layer, "groups", 1), len(ranks)
    assert isinstance(weight, Tensor)
    rows, columns = weight.shape[0] // groups, weight[0].numel()
    if not parts or rows % parts or (parts > 1 and groups > 1):
        raise UserError(f"{parts} parts do not fit a layer of {rows} rows in {groups} group(s)")
    most = min(rows // parts, columns)
    if wrong := [rank for rank in ranks if type(rank) is not int or not 1 <= rank <= most]:
        raise UserError(f"a rank of {wrong[0]!r:.20} does not fit a matrix of {rows // parts} x {columns}")
    return rows // parts, columns


def factored_layers(network: nn.Module) -> Iterator[tuple[str, Factored]]:
    """Every factored layer of a network, by name."""
    return ((name, layer) for name, layer in network.named_modules() if isinstance(layer, Factored))


def exchange(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of the one of that name."""
    place, _, last = name.rpartition(".")
    setattr(network.get_submodule(place), last, layer)


def merge(network: nn.Module) -> nn.Module:
    """Give every factored layer of a network its weight in one, in place."""
    for name, layer in list(factored_layers(network)):
        exchange(network, name, layer.merged())
    return network
