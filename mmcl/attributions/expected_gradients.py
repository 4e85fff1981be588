"""Expected gradients: integrated gradients from every background clip in turn, by random points of the paths."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from mmcl.attributions.base import Attribution, AttributionOptions
from mmcl.attributions.view import View
from mmcl.common.draws import uniform
from mmcl.common.errors import UserError


@dataclass(frozen=True)
class ExpectedGradientsOptions(AttributionOptions):
    """Options of :class:`ExpectedGradients`.

    Attributes:
        samples: points on each path from a background clip to the clip, a random one in each of so many equal parts.
    """

    samples: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 10_000:
            raise UserError(f"expected_gradients.samples is {self.samples}: it must be from 1 to 10000")


class ExpectedGradients(Attribution):
    """The mean over background clips and points of the path of gradient times difference.

    Erion et al., "Improving performance of deep learning models with axiomatic attribution priors and expected
    gradients", Nature Machine Intelligence 2021, equation 3; the points are stratified. Shares sum to the score less
    its mean over the background, up to what a number of samples misses.
    """

    options_type = ExpectedGradientsOptions
    tiny = MappingProxyType({"samples": 2})

    def attribute(self, view: View) -> Tensor:
        """(N, M, W, V, C)."""
        samples, B = self.options.samples, len(view.background)
        total, ways = torch.zeros_like(view.x), uniform(view.keys, "expected gradients", (B, samples))
        for clip, behind, x, start in view.pairs():
            drawn = ways[clip, behind]
            for sample in range(samples):
                way = ((sample + drawn[:, sample]) / samples).view(-1, 1, 1, 1, 1)
                gradient = view.gradient(torch.lerp(start, x, way), view.target[clip])
                total.index_add_(0, clip, gradient * (x - start) / (samples * B))
        return total
