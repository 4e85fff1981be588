"""Which layers of a network can be factored, and the directions that their factors keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from mmcl.common.draws import normal, step_key
from mmcl.common.errors import UserError
from mmcl.encoders.base import Encoder
from mmcl.encoders.factored import Factored, kind_of
from mmcl.surgery.low_rank.options import LowRankOptions

LARGE = 2048  # side of a matrix from which on it is decomposed in its own precision, which takes half the time


@dataclass(frozen=True)
class Site:
    """A layer that can be factored.

    Attributes:
        name: of the layer in its network.
        rows: C_out of one part, in one group.
        columns: C_in of one group, times the taps of the kernel.
        groups: of channels; each has a matrix of its own, and all get the same rank.
        parts: projections that share the layer; each has a rank of its own.
        now: numbers that its weight holds now, in one matrix or in factors.
    """

    name: str
    rows: int
    columns: int
    groups: int
    parts: int
    now: int

    @property
    def most(self) -> int:
        """The largest rank of one matrix."""
        return min(self.rows, self.columns)

    def cost(self, ranks: Sequence[int]) -> int:
        """Numbers in factors of these ranks, one for each part."""
        return self.groups * (self.rows + self.columns) * sum(ranks)


def find_sites(encoder: Encoder, options: LowRankOptions) -> list[Site]:
    """Every layer that the options mean, in the network's order.

    Raises:
        UserError: a pattern fits no layer that could be factored, or no layer is left.
    """
    known = {name: layer for name, layer in encoder.named_modules() if kind_of(layer) is not None}
    for pattern in (*options.include, *options.exclude):
        if not any(fnmatchcase(name, pattern) for name in known):
            raise UserError(f"low_rank: no layer fits '{pattern}'; there are {_some(list(known))}")
    found = [
        _site(encoder, name, layer, options) for name, layer in known.items()
        if meant(name, options) and (options.head or not encoder.in_head(name))
        and (options.temporal or _taps(layer) == 1)
    ]  # fmt: skip
    if not found:
        raise UserError(f"low_rank: no layer to factor; there are {_some(list(known))}")
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none at all"


def meant(name: str, options: LowRankOptions) -> bool:
    """Whether the patterns of the options mean a layer of that name."""
    included = not options.include or any(fnmatchcase(name, pattern) for pattern in options.include)
    return included and not any(fnmatchcase(name, pattern) for pattern in options.exclude)


def _taps(layer: nn.Module) -> int:
    kernel = getattr(layer, "kernel_size", ())
    return int(torch.Size(kernel).numel()) if kernel else 1


def _site(encoder: Encoder, name: str, layer: nn.Module, options: LowRankOptions) -> Site:
    weight, groups = layer.weight, getattr(layer, "groups", 1)
    assert isinstance(weight, Tensor)
    patterns = encoder.fused if options.apart and groups == 1 else {}
    parts = next((count for pattern, count in patterns.items() if fnmatchcase(name, pattern)), 1)
    now = weight.numel() - (layer.saved if isinstance(layer, Factored) else 0)
    return Site(name, weight.shape[0] // groups // parts, weight[0].numel(), groups, parts, now)


@dataclass(frozen=True)
class Spectrum:
    """Directions in which one part of a layer speaks, the most important ones first.

    Attributes:
        left: (groups, rows, m) orthonormal directions of what the layer puts out, for each group.
        energies: (m,) what each direction is worth, falling, summed over groups.
        weight: (groups, rows, columns) the matrices.
    """

    left: Tensor
    energies: Tensor
    weight: Tensor


@torch.no_grad()
def decompose(layer: nn.Module, site: Site, moments: Tensor | None = None) -> list[Spectrum]:
    """The directions of each part of a layer's weight, in double precision where that is not too large.

    Args:
        layer: of a network.
        site: the same layer.
        moments: (groups, parts, rows, rows) second moments of its outputs, from :func:`~.outputs.output_moments`. With
            them, directions are the principal components of the outputs, and energies are those of the outputs.
            Without, they are the left singular vectors of the weight, and its squared singular values.
    """
    assert isinstance(layer.weight, Tensor)
    weight = layer.weight.detach()
    matrices = weight.reshape(site.groups, site.parts, site.rows, site.columns)
    matrices = matrices.float() if site.most >= LARGE else matrices.double()
    found = []
    for number, part in enumerate(matrices.unbind(1)):
        if moments is None:
            left, values, _ = torch.linalg.svd(part, full_matrices=False)
            energies = values.square()
        else:
            rising, vectors = torch.linalg.eigh(moments[:, number].to(part))
            left, energies = vectors.flip(2)[..., : site.most], rising.flip(1)[:, : site.most].clamp(min=0)
        found.append(Spectrum(left, energies.sum(dim=0), part))
    return found


@torch.no_grad()
def factors(spectrum: Spectrum, rank: int, options: LowRankOptions, name: str) -> tuple[Tensor, Tensor]:
    """The two factors of a part: (groups, k, columns) and (groups, rows, k).

    The weight is projected on k directions of its outputs: U (Uᵀ W). With singular vectors this is the closest matrix
    of rank k (Eckart and Young); with principal components of outputs, the one whose outputs are closest.

    Args:
        spectrum: of the part.
        rank: k.
        options: basis, seed and balance.
        name: of the part, for what is drawn.
    """
    left = spectrum.left[..., :rank]
    if options.basis == "random":
        directions = normal(step_key(options.seed, 0), name, tuple(left.shape))[0]
        left = torch.linalg.qr(directions.to(left)).Q
    right = left.transpose(1, 2) @ spectrum.weight
    if options.balanced:  # each direction has norm 1 on the left: both sides get the root of what the right one has
        root = right.norm(dim=2, keepdim=True).sqrt()
        right, left = right / root.clamp(min=1e-12), left * root.transpose(1, 2)
    return right, left
