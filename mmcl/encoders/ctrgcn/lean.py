"""CTR-GCN for use only: the function of an encoder in evaluation, with everything constant worked out beforehand.

Constants are folded unit by unit in ``lean_units.py``. A body that is all zeros is not computed: its feature depends on
nothing but the number of frames. On a CPU bodies go through one at a time, so that what they need stays in the cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.bodies import present_bodies
from mmcl.encoders.ctrgcn.lean_units import Folded, LeanUnit, scale_and_shift
from mmcl.encoders.ctrgcn.units import Unit


def normalised(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(N, M, T, V, C) -> (N * M, C, V, T), what the trunk takes; numbers of the first batch norm."""
    return (x * scale + shift).permute(0, 1, 4, 3, 2).flatten(0, 1).contiguous()


class LeanCTRGCN(Folded):
    """An encoder's function in evaluation, (N, M, T, V, C) -> (N, K), for use only.

    Args:
        persons: M of the encoder.
        data_bn: the batch norm over (person, joint, coordinate) of its input.
        units: its units; they and the other modules are copied.
        classifier: from features to scores.
        frames: T that will come, for which the feature of an empty body is worked out at once; others work, too.
    """

    scale: Tensor
    shift: Tensor
    empty: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self, persons: int, data_bn: nn.BatchNorm1d, units: Iterable[Unit], classifier: nn.Linear,
        frames: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        lean_units = [LeanUnit(unit) for unit in units]
        self.units = nn.ModuleList(lean_units)
        self.persons, self.joints = persons, lean_units[0].spatial.joints
        self.channels = data_bn.num_features // (persons * self.joints)
        self.feature_width, self.classes = classifier.in_features, classifier.out_features
        scale, shift = (part.view(persons, 1, self.joints, self.channels) for part in scale_and_shift(data_bn))
        self.keep(scale=scale, shift=shift, weight=classifier.weight, bias=classifier.bias)
        self.register_buffer("empty", torch.zeros(0, 0), persistent=False)
        self.empty_frames = 0
        self.eval()
        if frames is not None:
            self.empty_features(frames)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.empty_frames = 0  # other constants make another feature of an empty body

    def trunk(self, bodies: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, D), the mean over frames and joints."""
        for unit in self.units:
            bodies = unit(bodies)
        return bodies.mean(dim=(2, 3))

    def empty_features(self, frames: int) -> Tensor:
        """(M, D): the feature of an empty body in each slot, which is kept for the number of frames last asked for."""
        if (
            self.empty_frames != frames
            or self.empty.device != self.scale.device
            or self.empty.dtype != self.scale.dtype
        ):
            zeros = self.scale.new_zeros(1, self.persons, frames, self.joints, self.channels)
            self.empty, self.empty_frames = self.trunk(normalised(zeros, self.scale, self.shift)), frames
        return self.empty

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D)."""
        N, M = x.shape[:2]
        bodies = normalised(x, self.scale, self.shift)
        if torch.compiler.is_compiling():  # a number of rows that depends on the data would break the graph
            return self.trunk(bodies).unflatten(0, (N, M)).mean(dim=1)
        found = self.empty_features(x.shape[2]).repeat(N, 1)
        rows = present_bodies(x).flatten().nonzero().squeeze(1)
        for part in rows.split(1 if x.device.type == "cpu" else max(1, len(rows))):
            if len(part):
                found[part] = self.trunk(bodies[part]).to(found.dtype)
        return found.unflatten(0, (N, M)).mean(dim=1)

    def head(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K) unnormalised scores."""
        return F.linear(features, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, K) unnormalised scores."""
        return self.head(self.features(x))
