"""Random numbers in place of an attribution: what every other one must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl.attributions.base import Attribution
from mmcl.attributions.view import View
from mmcl.common.draws import clip_keys, normal


class Random(Attribution):
    """Standard normal numbers by the seed and the place of a clip in the batch; they know nothing of the model."""

    def attribute(self, view: View) -> Tensor:
        """(N, M, W, V, C), zero where a joint is missing."""
        keys = torch.from_numpy(clip_keys(self.options.seed, 0, range(len(view.x)))).to(view.x.device)
        return normal(keys, "random attribution", tuple(view.x.shape[1:])) * view.mask[..., None]
