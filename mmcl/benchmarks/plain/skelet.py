"""SkeleT-GCN written the plain way: the baseline of its speed ratios, and the reference of its tests.

As in the released code, every group has its own graph convolution, every subset of ``unit_ctrgcn`` its own, every
temporal branch its own convolution and batch norm, a map with weights for joints is a full product with a matrix, and
every body is computed. Tensors carry the official names.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from mmcl.benchmarks.plain.form import Convert
from mmcl.benchmarks.plain.skelet_graphs import Dggcn, UnitCtrgcn, UnitGcn
from mmcl.encoders.bodies import present_bodies
from mmcl.encoders.skelet.blocks import Block
from mmcl.encoders.skelet.mapping import JointMap, Shortcut
from mmcl.encoders.skelet.network import Skelet
from mmcl.encoders.skelet.official import convert
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.encoders.skelet.temporal import MultiScale


class Mapped(nn.Module):
    """Anything that may begin with a map of joints: "M" where it is learned or fixed, "WM" beside it otherwise."""

    def add_map(self, joints: JointMap | None, groups: int) -> None:
        """Make the tensors of a map of ours."""
        self.kind = None if joints is None else joints.kind
        if joints is None:
            return
        start = torch.eye(joints.matrix().shape[-1]) if joints.diagonal else joints.matrix()[0].detach()
        if joints.kind == "learned":
            self.M = nn.Parameter(start.repeat(groups, 1, 1))
        else:
            self.register_buffer("M", start, persistent=not joints.diagonal)
        if joints.kind in ("offset", "importance"):
            self.WM = nn.Parameter(torch.ones(groups, *start.shape))

    def map(self, x: Tensor) -> Tensor:
        """(B, G, C, T, V) -> (B, G, C, T, W)."""
        if self.kind is None:
            return x
        matrix = cast("Tensor", self.M)
        matrix = {"offset": lambda: matrix + self.WM, "importance": lambda: matrix * self.WM}.get(
            self.kind, lambda: matrix
        )()
        return torch.einsum("nkctu,kuv->nkctv", x, matrix.expand(x.shape[1], -1, -1)).contiguous()


class Residual(Mapped):
    """A shortcut."""

    def __init__(self, ours: Shortcut) -> None:
        super().__init__()
        self.add_map(ours.joints, 1)
        self.down: nn.Module = nn.Identity()
        if isinstance(ours.conv, nn.Conv2d):
            conv = ours.conv
            made = nn.Conv2d(conv.in_channels, conv.out_channels, 1, cast("Any", conv.stride))
            self.down = nn.Sequential(made, nn.BatchNorm2d(conv.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, ceil(T / stride), W)."""
        return self.down(self.map(x.unsqueeze(1)).squeeze(1))


class Gmf(Mapped):
    """The "grouped mapping framework"."""

    def __init__(self, ours: Block, options: SkeletOptions, c_in: int, c_out: int, groups: int) -> None:
        super().__init__()
        self.groups, joints = groups, ours.spatial.graph.adjacency.shape[-1]
        self.add_map(ours.spatial.joints, groups)
        kinds: dict[str, Any] = {"unit_gcn": UnitGcn, "dggcn": Dggcn, "unit_ctrgcn": UnitCtrgcn}
        more = {"unit_gcn": (options.graphs, options.conv_pos), "dggcn": (options.subset_wise,)}.get(options.gcn, ())
        sizes = (c_in // groups, c_out // groups, options.subsets, joints, *more)
        self.repeated, self.conv_pre = options.split_way == "conv+repeat" and groups > 1, None
        if options.split_way != "split" and groups > 1:
            width = c_in // groups * (1 if self.repeated else groups)
            self.conv_pre = nn.Sequential(nn.Conv2d(c_in, width, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.basic_gcn_blocks = nn.ModuleList(kinds[options.gcn](*sizes) for _ in range(groups))
        self.conv_post, self.bn = nn.Conv2d(c_out, c_out, 1), nn.BatchNorm2d(c_out)
        self.down = Residual(ours.spatial.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, W)."""
        parted = x if self.conv_pre is None else self.conv_pre(x)
        parted = torch.cat([parted] * self.groups, dim=1) if self.repeated else parted
        mapped = self.map(parted.unflatten(1, (self.groups, -1)))
        y = torch.cat([block(mapped[:, g]) for g, block in enumerate(self.basic_gcn_blocks)], dim=1)
        return torch.relu(self.bn(self.conv_post(y)) + self.down(x))


class Conv(nn.Module):
    """A convolution along time, with a batch norm or without."""

    def __init__(self, width: int, kernel: int, stride: int, dilation: int, norm: bool) -> None:
        super().__init__()
        pad = (kernel - 1) * dilation // 2
        self.conv = nn.Conv2d(width, width, (kernel, 1), (stride, 1), (pad, 0), (dilation, 1))
        self.bn = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V) -> (B, C, ceil(T / stride), V)."""
        return self.bn(self.conv(x))


class Tcn(nn.Module):
    """A temporal unit, branch by branch."""

    def __init__(self, ours: Block, channels: int) -> None:
        super().__init__()
        unit = ours.temporal
        self.mixed, stride, kernel = isinstance(unit, MultiScale), unit.stride, 3 if isinstance(unit, MultiScale) else 5

        def start(width: int) -> list[nn.Module]:
            return [nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()]

        norm = [] if self.mixed else [nn.BatchNorm2d(unit.widths[-2])]
        point: nn.Module = nn.Conv2d(channels, unit.widths[-1], 1, (stride, 1))
        self.branches = nn.ModuleList([
            *(nn.Sequential(*start(width), Conv(width, kernel, stride, d, not self.mixed))
              for d, width in enumerate(unit.widths[:-2], start=1)),
            nn.Sequential(*start(unit.widths[-2]), nn.MaxPool2d((3, 1), (stride, 1), (1, 0)), *norm),
            point if self.mixed else nn.Sequential(point, nn.BatchNorm2d(unit.widths[-1])),
        ])  # fmt: skip
        self.add_coeff: nn.Parameter | None = None
        if isinstance(unit, MultiScale):
            self.transform = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1))
            self.bn = nn.BatchNorm2d(channels)
            if unit.strength is not None:
                self.add_coeff = nn.Parameter(torch.zeros_like(unit.strength))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V) -> (B, C, ceil(T / stride), V)."""
        if self.add_coeff is not None:
            x = torch.cat([x, x.mean(dim=-1, keepdim=True)], dim=-1)
        y = torch.cat([branch(x) for branch in self.branches], dim=1)
        if self.add_coeff is not None:
            y = y[..., :-1] + torch.einsum("nct,v->nctv", y[..., -1], self.add_coeff)
        return self.bn(self.transform(y)) if self.mixed else torch.relu(y)


class PlainBlock(nn.Module):
    """A block."""

    def __init__(self, ours: Block, options: SkeletOptions, c_in: int, c_out: int, groups: int) -> None:
        super().__init__()
        self.gcn, self.tcn = Gmf(ours, options, c_in, c_out, groups), Tcn(ours, c_out)
        self.residual = None if ours.shortcut is None else Residual(ours.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, ceil(T / stride), W)."""
        y = self.tcn(self.gcn(x))
        return torch.relu(y if self.residual is None else y + self.residual(x))


class PlainSkelet(nn.Module):
    """The network on official input (N, C, T, V, M), without instance pooling; absent persons count or not, as ours do.

    Args:
        encoder: gives the sizes.
    """

    def __init__(self, encoder: Skelet) -> None:
        super().__init__()
        options = encoder.options
        self.by_person, self.everybody = options.input_norm == "person", options.released
        self.data_bn = nn.BatchNorm1d(cast("nn.BatchNorm1d", encoder.data_bn.bn).num_features)
        self.gcn = nn.ModuleList(
            PlainBlock(cast("Block", ours), options, *sizes)
            for ours, sizes in zip(encoder.blocks, options.channel_plan(), strict=True)
        )
        self.cls_head = nn.ModuleDict({"fc_cls": nn.Linear(encoder.feature_width, encoder.classes)})
        self.clip = (options.channels, encoder.layout.joint_count, options.persons)

    def shape(self, frames: int) -> tuple[int, ...]:
        """Of one clip."""
        return self.clip[0], frames, *self.clip[1:]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N, K)."""
        n, c, t, v, m = x.shape
        clips = x.permute(0, 4, 3, 1, 2).contiguous()
        rows = clips.view(n, m * v * c, t) if self.by_person else clips.view(n * m, v * c, t)
        y = self.data_bn(rows).view(n, m, v, c, t).permute(0, 1, 3, 4, 2).contiguous().view(n * m, c, t, v)
        for block in self.gcn:
            y = block(y)
        bodies = y.mean(dim=(2, 3)).view(n, m, -1)
        there = torch.ones(n, m, device=x.device) if self.everybody else present_bodies(x.permute(0, 4, 2, 3, 1)).to(y)
        return self.cls_head["fc_cls"]((bodies * there.unsqueeze(2)).sum(dim=1) / there.sum(dim=1, keepdim=True))


def plain_form(encoder: Skelet) -> tuple[PlainSkelet, Convert]:
    """A plain network of an encoder's size, and the way from its state dict to the encoder's."""
    return PlainSkelet(encoder), lambda official: convert(official, encoder).state
