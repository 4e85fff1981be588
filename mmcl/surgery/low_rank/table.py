"""What a compression did, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmcl.encoders.factored import Factored, factored_layers


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        layer: its name.
        shape: of its matrix, with its groups.
        ranks: of each part.
        before: numbers in its weight or factors before.
        after: numbers in its factors now.
        energy: share of the squares of its weight before that its weight has now.
        error: |W - W'| / |W|, Frobenius.
    """

    layer: str
    shape: str
    ranks: tuple[int, ...]
    before: int
    after: int
    energy: float
    error: float


@torch.no_grad()
def layer_table(before: nn.Module, after: nn.Module) -> list[Row]:
    """Every layer that is factored in ``after`` and is another one in ``before``.

    Args:
        before: the network that was compressed.
        after: the same, compressed, trained on or not.
    """
    old, rows = dict(before.named_modules()), []
    for name, layer in factored_layers(after):
        one = old[name]
        assert isinstance(one.weight, Tensor)
        if isinstance(one, Factored) and _numbers(one) == _numbers(layer) and torch.equal(one.weight, layer.weight):
            continue
        weight, now = one.weight.double(), layer.weight.double()
        size = float(weight.square().sum().clamp(min=1e-300))
        rows.append(Row(
            layer=name, shape=_shape(layer), ranks=layer.ranks, before=_numbers(one), after=_numbers(layer),
            energy=float(now.square().sum()) / size, error=(float((weight - now).square().sum()) / size) ** 0.5,
        ))  # fmt: skip
    return rows


def _numbers(layer: nn.Module) -> int:
    """What a layer's weight holds, in one matrix or in factors."""
    assert isinstance(layer.weight, Tensor)
    return layer.weight.numel() - (layer.saved if isinstance(layer, Factored) else 0)


def _shape(layer: Factored) -> str:
    groups = int(getattr(layer, "groups", 1))
    sides = f"{sum(len(up) for up in layer.up) // groups} x {layer.down[0].numel()}"
    return sides if groups == 1 else f"{groups} of {sides}"


def in_markdown(rows: Sequence[Row]) -> str:
    """The table of a report."""
    lines = [
        "| layer | matrix | rank | parameters before | after | energy kept | error |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        ranks = " + ".join(map(str, row.ranks))
        numbers = f"{row.before:,} | {row.after:,} | {row.energy:.2%} | {row.error:.3f}"
        lines.append(f"| `{row.layer}` | {row.shape} | {ranks} | {numbers} |")
    return "\n".join(lines)
