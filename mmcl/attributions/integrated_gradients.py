"""Integrated gradients: the mean gradient along the straight path from nothing to the clip."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from mmcl.attributions.base import Attribution, AttributionOptions
from mmcl.attributions.view import View
from mmcl.common.errors import UserError


@dataclass(frozen=True)
class IntegratedGradientsOptions(AttributionOptions):
    """Options of :class:`IntegratedGradients`.

    Attributes:
        steps: points of the path (Gauss-Legendre) at which gradients are computed.
    """

    steps: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 10_000:
            raise UserError(f"integrated_gradients.steps is {self.steps}: it must be from 1 to 10000")


class IntegratedGradients(Attribution):
    """The mean gradient along the path from the background's mean to the clip, times their difference.

    Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017, equation 1. The baseline is the score of
    the mean of the background clips. Shares sum to the score less the baseline, up to what a number of steps misses.
    """

    options_type = IntegratedGradientsOptions
    tiny = MappingProxyType({"steps": 4})

    def attribute(self, view: View) -> Tensor:
        """(N, M, W, V, C)."""
        points, weights = nodes(self.options.steps)
        start = self._starts(view)
        clip = torch.arange(len(view.x)).repeat_interleave(len(points)).to(view.x.device)
        along, weight = points.repeat(len(view.x)).to(view.x), weights.repeat(len(view.x)).to(view.x)
        total = torch.zeros_like(view.x)
        for row in view.watched(list(torch.arange(len(clip)).to(clip).split(view.rows))):
            way = along[row].view(-1, 1, 1, 1, 1)
            x = torch.lerp(start[clip[row]], view.x[clip[row]], way)
            gradient = view.gradient(x, view.target[clip[row]])
            total.index_add_(0, clip[row], gradient * weight[row].view(-1, 1, 1, 1, 1))
        return total * (view.x - start)

    def baseline(self, view: View) -> Tensor:
        """(N,) the score of the mean of the background clips."""
        return view.scores(self._starts(view), view.target)

    @staticmethod
    def _starts(view: View) -> Tensor:
        return torch.stack([view.background_of(clip).mean(dim=0) for clip in range(len(view.x))])


def nodes(count: int) -> tuple[Tensor, Tensor]:
    """Points in (0, 1) and weights that sum to 1, that integrate polynomials below degree 2 count exactly."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)
