"""Random numbers in place of an attribution: what every other one must beat."""

from __future__ import annotations

from torch import Tensor

from mmcl.attributions.base import Attribution
from mmcl.attributions.view import View
from mmcl.common.draws import normal


class Random(Attribution):
    """Standard normal numbers by the seed and what a clip shows; they know nothing of the model."""

    def attribute(self, view: View) -> Tensor:
        """(N, M, W, V, C), zero where a joint is missing."""
        return normal(view.keys, "random attribution", tuple(view.x.shape[1:])) * view.mask[..., None]
