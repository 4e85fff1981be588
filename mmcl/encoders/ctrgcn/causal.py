"""CTR-GCN whose answers depend on no frame that comes after them: what ``causal`` of its options builds.

* Temporal branches look at the frame and those before it. A strided unit answers at the last frame of each pair, so
  that the network answers once every :data:`STEP` frames, and what is left over waits for the frames that complete it.
* The published topology is refined by a mean over the whole clip. Here it is refined every :data:`HOLD` frames, by the
  mean over the last ``memory`` frames, and held in between. A topology has V x V entries a channel, so that it takes
  about V / 12 times as many products as all else that a unit does for a frame: refined at every frame, a stream would
  cost almost three times its share of a published window, and training as many topologies as frames. Held for 16
  frames, it adds a tenth in the first stage, and less than a half in the last, which sees four times fewer frames.
* The feature is the mean over the answers of the last ``memory`` frames, up to the last that shows anybody.
* A frame in which a body is not seen is what lies before a clip's beginning: zeros where convolutions pad, and no part
  of any mean. So empty frames behind a clip change nothing, and the feature of an absent body is 0.

Tensors are (B, C, V, T); ``seen`` (B, 1, 1, T) is 1 where a body is seen and else 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mmcl.common.errors import UserError
from mmcl.encoders.ctrgcn.spatial import SpatialUnit
from mmcl.encoders.ctrgcn.temporal import KERNEL, TemporalUnit
from mmcl.encoders.ctrgcn.units import Unit
from mmcl.encoders.graph import SUBSETS

STEP = 4  # frames from one answer to the next: two units halve them
HOLD = 16  # frames for which a topology is held
PAST = 2 * (KERNEL - 1)  # frames of its input that a temporal unit looks back on, the dilated branch most


def with_presence(bodies: Tensor, x: Tensor) -> Tensor:
    """Bodies (N * M, C, V, T) of clips (N, M, T, V, C) with two channels more.

    The first is 1 where a frame shows the body, the second until the last frame that shows anybody of the clip.
    """
    seen = (x != 0).flatten(3).any(dim=3)
    time = torch.arange(x.shape[2], device=x.device)
    lasting = time <= torch.where(seen, time, -1).amax(dim=(1, 2), keepdim=True).expand_as(seen)
    more = torch.stack([seen, lasting], dim=2).flatten(0, 1).to(bodies.dtype)
    return torch.cat([bodies, more.unsqueeze(2).expand(-1, -1, bodies.shape[2], -1)], dim=1)


def whole_steps(bodies: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`with_presence` gave -> bodies, ``seen`` and ``lasting`` for as many frames as make whole steps.

    Raises:
        UserError: there are fewer frames than a step has.
    """
    frames = bodies.shape[3] // STEP * STEP
    if not frames:
        raise UserError(f"a causal ctrgcn answers every {STEP} frames, and these clips have {bodies.shape[3]}")
    bodies, seen, lasting = bodies[..., :frames].tensor_split((-2, -1), dim=1)
    return bodies, seen[:, :, :1], lasting[:, :, :1]


def recent_mean(answers: Tensor, memory: int) -> Tensor:
    """The mean over the last ``memory`` frames up to a clip's end, of those that show the body.

    Args:
        answers: (B, D + 2, V, T'), the last channels being those of :func:`with_presence` at the answers.
        memory: frames.

    Returns:
        (B, D).
    """
    tokens, seen, lasting = answers[:, :-2].mean(dim=2), answers[:, -2, :1], answers[:, -1, :1]
    age = lasting.sum(dim=2, keepdim=True) - torch.arange(answers.shape[3], device=answers.device)  # 1 is the newest
    counted = seen * (age <= memory // STEP)
    return (tokens * counted).sum(dim=2) / counted.sum(dim=2).clamp(min=1)


class CausalSpatial(SpatialUnit):
    """A spatial unit whose topology is refined by the past alone; arguments as there.

    Attributes:
        step, hold: :data:`STEP` and :data:`HOLD` in frames of the unit's input.
        blocks: so many times ``hold`` frames are looked back on.
    """

    step: int
    hold: int
    blocks: int

    def look_back(self, rate: int, memory: int) -> None:
        """Set what is looked back on, for a unit whose input has every ``rate``-th frame."""
        self.step, self.hold, self.blocks = STEP // rate, HOLD // rate, memory // HOLD

    def means(self, x: Tensor, seen: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, C, V, n), for each of n held topologies the mean that refines it.

        It includes the first step of the frames for which the topology is held: the answer comes at that step's end.
        """
        held = -(-x.shape[3] // self.hold)
        totals = [self._totals(each, held) for each in (x * seen, seen)]
        return totals[0] / totals[1].clamp(min=1)

    def _totals(self, x: Tensor, held: int) -> Tensor:
        early = F.pad(x, (self.hold - self.step, 0))[..., : held * self.hold]
        blocks = F.pad(early.unflatten(3, (held, self.hold)).sum(dim=4), (self.blocks - 1, 0))
        return torch.stack([blocks[..., first : first + held] for first in range(self.blocks)]).sum(dim=0)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T)."""
        V, T = self.joints, x.shape[3]
        means = self.means(x, torch.ones_like(x[:, :1, :1]) if seen is None else seen)
        held = means.shape[3]
        topology = self.refined(means.permute(0, 3, 1, 2).flatten(0, 1)).transpose(1, 2).reshape(-1, SUBSETS * V, V)
        values = F.pad(self.value(x), (0, held * self.hold - T)).unflatten(3, (held, self.hold))
        values = values.permute(0, 3, 1, 2, 4).reshape(-1, SUBSETS * V, self.hold)
        y = torch.bmm(topology.transpose(1, 2), values).view(-1, held, self.channels, V, self.hold)
        y = y.permute(0, 2, 3, 1, 4).flatten(3)[..., :T]
        return torch.relu_(self.bn(y) + self.down(x))


class CausalTemporal(TemporalUnit):
    """A temporal unit whose branches end at the frame that they answer for; arguments as there."""

    padded = False

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, C, V, T) -> (B, C, V, T / stride)."""
        branch, stride = self.branch, self.stride
        inner, point = self.reduce(x).split([3 * branch, branch], dim=1)
        inner = torch.relu(self.inner_bn(inner))
        near, far, peak = past_views(F.pad(inner if seen is None else inner * seen, (PAST, 0)), branch, stride)
        # On a CPU pooling is several times faster, copies included, with the channels innermost.
        peak = self.peak(peak.contiguous(memory_format=torch.channels_last)).contiguous()
        point = point[..., stride - 1 :: stride]
        return self.outer_bn(torch.cat([self.near(near), self.far(far), peak, point], dim=1))


def past_views(inner: Tensor, branch: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """What branches without padding read, of (B, 3 b, V, PAST + T): each ends at the first answer's frame."""
    near, far, peak = inner.split(branch, dim=1)
    last = PAST + stride - 1  # where the frame of the first answer lies
    return near[..., last - (KERNEL - 1) :], far[..., last - PAST :], peak[..., last - 2 :]


class CausalUnit(Unit):
    """A spatial unit, a temporal unit and a residual around both, all of them causal; arguments as there."""

    spatial_type, temporal_type = CausalSpatial, CausalTemporal
    spatial: CausalSpatial

    def look_back(self, rate: int, memory: int) -> int:
        """As :meth:`CausalSpatial.look_back`; returns the rate of the unit's output."""
        self.spatial.look_back(rate, memory)
        return rate * self.temporal.stride

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, C_in, V, T) -> (B, C_out, V, T / stride)."""
        y = self.temporal(self.spatial(x, seen), seen)
        if self.residual is not None:
            y = y + self.residual(x[..., self.temporal.stride - 1 :])
        return torch.relu_(y)


def seen_after(seen: Tensor, stride: int) -> Tensor:
    """``seen`` at the frames that a unit answers for: whether it was so in any of the frames between."""
    return seen.unflatten(3, (-1, stride)).amax(dim=4)
