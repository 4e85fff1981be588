"""Causal CTR-GCN step by step, exactly.

This is continual inference (Hedegaard and Iosifidis, Continual 3D Convolutional Neural Networks, ECCV 2022; Hedegaard
et al., Continual Spatio-Temporal Graph Convolutional Networks, Pattern Recognition 2023). What a unit needs of earlier
frames is kept: the input of its temporal branches (8 frames), sums over 16 frames each for the mean that refines its
topology, and the topology. A step takes the frames from one answer to the next, so that strided units compute exactly
what they answer, and nothing twice. Constants are folded as in the lean form. A topology is refined in every fourth
step; the others refine the topologies of no row at all, so that a graph without branches does the same.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.body_encoder import BodyEncoder
from mmcl.encoders.continual import Continual
from mmcl.encoders.ctrgcn.causal import HOLD, PAST, STEP, CausalSpatial, CausalUnit, past_views, seen_after
from mmcl.encoders.ctrgcn.lean_units import LeanSpatial, LeanTemporal, LeanUnit
from mmcl.encoders.graph import SUBSETS
from mmcl.encoders.lean import Folded, normalised, scale_and_shift

State = dict[str, Tensor]


class ContinualSpatial(LeanSpatial):
    """A causal spatial unit that keeps sums over blocks of frames, and the topology that it refined last."""

    def __init__(self, unit: CausalSpatial) -> None:
        super().__init__(unit)
        self.blocks, self.channels_in = unit.blocks, unit.value.in_channels

    def begin(self, bodies: int) -> State:
        """Zeros to keep; the first step refines the topology."""
        sums = self.value.new_zeros(bodies, self.blocks, self.channels_in + 1, self.joints)
        V = self.joints
        return {"sums": sums, "topology": self.value.new_zeros(bodies, self.channels, V, SUBSETS * V)}

    def forward(self, x: Tensor, seen: Tensor, due: Tensor, state: State) -> tuple[Tensor, State]:  # type: ignore[override]
        """(B, C_in, V, n) of the next n frames -> (B, C_out, V, n); ``due`` (1,) bool: refine the topology."""
        now = torch.cat([x * seen, seen.expand(-1, -1, self.joints, -1)], dim=1).sum(dim=3, keepdim=True)
        sums = state["sums"]
        sums = torch.cat([sums[:, :-1], sums[:, -1:] + now.permute(0, 3, 1, 2)], dim=1)
        rows = due.expand(x.shape[0]).nonzero()[:, 0]
        total = sums[rows].sum(dim=1)
        refined = super().topology(total[:, :-1] / total[:, -1:].clamp(min=1))
        topology = state["topology"].index_put((rows,), refined)
        moved = torch.cat([sums[:, 1:], torch.zeros_like(sums[:, :1])], dim=1)
        return self.collect(x, topology), {"sums": torch.where(due, moved, sums), "topology": topology}


class ContinualTemporal(LeanTemporal):
    """A causal temporal unit that keeps the last frames of what its branches read."""

    def begin(self, bodies: int, joints: int) -> State:
        """Zeros to keep."""
        return {"past": self.inner.new_zeros(bodies, 3 * self.branch, joints, PAST)}

    def forward(self, x: Tensor, seen: Tensor, state: State) -> tuple[Tensor, State]:  # type: ignore[override]
        """(B, C, V, n) of the next n frames -> (B, C, V, n / stride)."""
        stride, step = self.stride, (1, self.stride)
        inner = torch.cat([state["past"], torch.relu(F.conv2d(x, self.inner, self.inner_bias)) * seen], dim=3)
        near, far, peak = past_views(inner, self.branch, stride)
        near = F.conv2d(near, self.near, self.near_bias, step)
        far = F.conv2d(far, self.far, self.far_bias, step, 0, (1, 2))
        peak = F.max_pool2d(peak, (1, 3), step) * self.peak.view(1, -1, 1, 1) + self.peak_bias.view(1, -1, 1, 1)
        point = F.conv2d(x[..., stride - 1 :: stride], self.point, self.point_bias)
        return torch.cat([near, far, peak, point], dim=1), {"past": inner[..., -PAST:]}


class ContinualUnit(LeanUnit):
    """A causal unit; what it keeps is what its parts keep."""

    def __init__(self, unit: CausalUnit) -> None:
        super().__init__(ContinualSpatial(unit.spatial), unit.temporal, unit.residual)
        self.temporal: ContinualTemporal = ContinualTemporal(unit.temporal)

    def begin(self, bodies: int) -> State:
        """Zeros to keep."""
        spatial = cast(ContinualSpatial, self.spatial)
        return spatial.begin(bodies) | self.temporal.begin(bodies, spatial.joints)

    def forward(self, x: Tensor, seen: Tensor, due: Tensor, state: State) -> tuple[Tensor, State]:  # type: ignore[override]
        """(B, C_in, V, n) of the next n frames -> (B, C_out, V, n / stride)."""
        y, kept = self.spatial(x, seen, due, state)
        y, past = self.temporal(y, seen, state)
        stride = self.temporal.stride
        if self.identity:
            y = y + x
        elif self.shortcut:
            y = y + F.conv2d(x[..., stride - 1 :: stride], self.weight, self.bias)
        return torch.relu_(y), kept | past


class ContinualCTRGCN(Folded, Continual):
    """A causal CTR-GCN that takes :data:`STEP` frames at a time; a copy for use only.

    Args:
        encoder: a CTR-GCN with ``causal`` among its options.
    """

    scale: Tensor
    shift: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, encoder: BodyEncoder) -> None:
        super().__init__()
        options, V = encoder.options, encoder.layout.joint_count
        self.step, self.forget, self.persons, self.joints = STEP, options.memory + HOLD, options.persons, V
        self.answers = options.memory // STEP
        self.units = nn.ModuleList(ContinualUnit(cast(CausalUnit, unit)) for unit in encoder.units)
        scale, shift = (part.view(self.persons, 1, V, options.channels) for part in scale_and_shift(encoder.data_bn))
        self.keep(scale=scale, shift=shift, weight=encoder.classifier.weight, bias=encoder.classifier.bias)
        self.eval().requires_grad_(False)

    def begin(self, bodies: int) -> State:
        """Zeros to keep; names are those of the parts with the unit's number."""
        state = {"answers": self.weight.new_zeros(bodies, self.answers, self.weight.shape[1] + 1)}
        for number, unit in enumerate(cast("list[ContinualUnit]", self.units)):
            state |= {f"{name}_{number}": tensor for name, tensor in unit.begin(bodies).items()}
        return state

    def forward(self, x: Tensor, phase: Tensor, state: State) -> tuple[Tensor, State]:
        """Go on by a step: see :class:`Continual`."""
        B, due = x.shape[0], phase % (HOLD // STEP) == 0
        seen = (x != 0).flatten(2).any(dim=2).to(x.dtype)[:, None, None]
        bodies, kept = normalised(x[None], self.scale[:B], self.shift[:B]), State()
        for number, unit in enumerate(cast("list[ContinualUnit]", self.units)):
            own = {name: state[f"{name}_{number}"] for name in ("sums", "topology", "past")}
            bodies, own = unit(bodies, seen, due, own)
            seen = seen_after(seen, unit.temporal.stride)
            kept |= {f"{name}_{number}": tensor for name, tensor in own.items()}
        answer = torch.cat([bodies.mean(dim=2) * seen[:, 0], seen[:, 0]], dim=1).transpose(1, 2)
        answers = kept["answers"] = torch.cat([state["answers"][:, 1:], answer], dim=1)
        total = answers.sum(dim=1)
        return (total[:, :-1] / total[:, -1:].clamp(min=1)).sum(dim=0) / self.persons, kept

    def head(self, features: Tensor) -> Tensor:
        """(…, D) -> (…, K) unnormalised scores."""
        return F.linear(features, self.weight, self.bias)
