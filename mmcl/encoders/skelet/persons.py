"""Who is in a clip, the batch norm on coordinates, and instance pooling: all persons of a clip fused to one body."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fusion

from mmcl.encoders.bodies import Bodies, present_bodies
from mmcl.encoders.skelet.mapping import scale_and_shift


def find_bodies(x: Tensor, everybody: bool, dense: bool) -> Bodies:
    """Choose the bodies of (N, M, T, V, C) to compute.

    Args:
        x: as the encoder gets it. Of a clip without anybody the first body counts.
        everybody: absent persons count like others.
        dense: compute all bodies, whoever counts: a number of rows that depends on data would break a traced graph.
    """
    present = present_bodies(x)
    if everybody:
        return Bodies(torch.ones_like(present), None)
    nobody = ~present.any(dim=1, keepdim=True)
    first = torch.arange(present.shape[1], device=x.device) == 0
    present = present | (nobody & first)
    return Bodies.counting(present, dense)


class CoordinateNorm(nn.Module):
    """Batch norm of the coordinates of every joint, or of every joint of each person slot.

    Args:
        features: V * C, or M * V * C.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.bn: nn.BatchNorm1d | None = nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, T, V, C) with M the slots that it tells apart, or 1, -> the same shape."""
        M, _, V, C = x.shape[1:]
        if self.bn is None:
            return x * self.scale.view(M, 1, V, C) + self.shift.view(M, 1, V, C)
        normal = self.bn(x.permute(0, 1, 3, 4, 2).flatten(1, 3))
        return normal.unflatten(1, (M, V, C)).permute(0, 1, 4, 2, 3)

    def fold(self) -> None:
        """Keep scale and shift only, for use only."""
        assert self.bn is not None
        for name, part in zip(("scale", "shift"), scale_and_shift(self.bn), strict=True):
            self.register_buffer(name, part.detach().clone())
        self.bn = None


class InstancePooling(nn.Module):
    """Points (person, frame, joint) are encoded alone, then by what all persons say; their maximum is one body.

    Args:
        channels: C of a point.
        width: W.
        joints: V.
        positions: "none", "joint" or "channel", see the options.
        drop_path: share of clips, in training, whose points lose their shortcut.
        by_batch: drop that of all clips of a batch or of none, as released.
    """

    def __init__(
        self, channels: int, width: int, joints: int, positions: str, drop_path: float, by_batch: bool
    ) -> None:
        super().__init__()
        self.drop_path, self.by_batch = drop_path, by_batch
        self.encode, self.encode_bn = nn.Linear(channels, width), nn.BatchNorm1d(width)
        self.compare, self.compare_bn = nn.Linear(2 * width, width), nn.BatchNorm1d(width)
        self.fuse, self.fuse_bn = nn.Linear(2 * width, width), nn.BatchNorm1d(width)
        self.positions = None
        if positions != "none":
            self.positions = nn.Parameter(torch.randn(joints, width if positions == "channel" else 1))

    def forward(self, points: Tensor, bodies: Bodies) -> Tensor:
        """(B, T, V, C) of the computed bodies -> (N, W, T, V)."""
        point = F.relu(_by_point(self.encode_bn, self.encode(points)))
        if self.positions is not None:
            point = point + self.positions
        M = bodies.present.shape[1]
        most = bodies.pick(bodies.most(point).unsqueeze(1).expand(-1, M, *[-1] * 3))
        compared = _by_point(self.compare_bn, self.compare(torch.cat([point, most], dim=3)))
        point = F.gelu(compared + point * self._kept(bodies, point))
        frame = bodies.most(point)
        clip = frame.amax(dim=(1, 2), keepdim=True).expand_as(frame)
        fused = _by_point(self.fuse_bn, self.fuse(torch.cat([clip, frame], dim=3)))
        return F.gelu(fused).permute(0, 3, 1, 2)

    def _kept(self, bodies: Bodies, like: Tensor) -> Tensor | float:
        """(B, 1, 1, 1): 0 where the shortcut is dropped, else 1."""
        if not self.training or not self.drop_path:
            return 1.0
        N, M = bodies.present.shape
        kept = (torch.rand(1 if self.by_batch else N, device=like.device) >= self.drop_path).to(like)
        return bodies.pick(kept.view(-1, 1).expand(N, M))[:, None, None, None]

    def fold(self) -> None:
        """Fold the batch norms, for use only."""
        for name in ("encode", "compare", "fuse"):
            setattr(self, name, fusion.fuse_linear_bn_eval(getattr(self, name), getattr(self, f"{name}_bn")))
            setattr(self, f"{name}_bn", nn.Identity())


def _by_point(norm: nn.Module, x: Tensor) -> Tensor:
    """A batch norm of (…, W), every row a sample; the same shape."""
    return norm(x.flatten(0, -2)).view_as(x)
