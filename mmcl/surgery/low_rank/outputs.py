"""What the layers of a network put out on clips, as second moments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmcl.encoders.base import Encoder
from mmcl.surgery.low_rank.layers import LARGE, Site


@torch.no_grad()
def output_moments(encoder: Encoder, sites: Sequence[Site], inputs: Iterable[Tensor]) -> dict[str, Tensor]:
    """Sums of y yᵀ over all places of all clips, where y is what a layer puts out before its bias.

    A layer whose weight is read instead of being called is not seen, and is not in the result.

    Args:
        encoder: in evaluation mode.
        sites: some of its layers.
        inputs: batches of encoder inputs, (N, M, T, V, C).

    Returns:
        Name of the layer -> (groups, parts, rows, rows), in double precision where that is not too large.
    """
    found: dict[str, Tensor] = {}

    def hook(site: Site, layer: nn.Module) -> Callable[..., None]:
        def add(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            y = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
            if isinstance(layer.bias, Tensor):
                y = y - layer.bias
            y = y.reshape(-1, site.groups * site.parts, site.rows).transpose(0, 1)
            y = y.float() if site.most >= LARGE else y.double()
            product = (y.transpose(1, 2) @ y).unflatten(0, (site.groups, site.parts))
            found[site.name] = found[site.name] + product if site.name in found else product

        return add

    layers = [(site, encoder.get_submodule(site.name)) for site in sites]
    handles = [layer.register_forward_hook(hook(site, layer)) for site, layer in layers]
    try:
        for batch in inputs:
            encoder(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found
