"""Random numbers in place of an attribution: what every other one must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl.attributions.base import Attribution
from mmcl.common.draws import clip_keys, normal
from mmcl.models.model import Model


class Random(Attribution):
    """Standard normal numbers by the seed and the place of a clip in the batch; they know nothing of the model."""

    def attribute(
        self, model: Model, joints: Tensor, lengths: Tensor | None, target: Tensor, background: Tensor
    ) -> Tensor:
        """(N, T, V)."""
        clips, _, frames, count, _ = joints.shape
        keys = torch.from_numpy(clip_keys(self.options.seed, 0, range(clips))).to(joints.device)
        return normal(keys, "random attribution", (frames, count))
