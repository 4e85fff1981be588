"""The graph convolutions of SkeleT-GCN written the plain way: a module for each group, and for each subset of a group.

They belong to :mod:`mmcl.benchmarks.plain.skelet`, which builds its network of them. Tensors carry the official names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UnitGcn(nn.Module):
    """``unit_gcn`` of one group; "A" is what is learned of the graph, or "PA" beside it."""

    def __init__(self, c_in: int, c_out: int, subsets: int, joints: int, kind: str, conv_pos: str) -> None:
        super().__init__()
        self.subsets, self.kind, self.conv_pos = subsets, kind, conv_pos
        start = torch.zeros(subsets, joints, joints)
        if kind == "learned":
            self.A: Tensor = nn.Parameter(start)
        else:
            self.register_buffer("A", start)
        if kind in ("offset", "importance"):
            self.PA = nn.Parameter(torch.ones_like(start))
        sizes = (c_in, c_out * subsets) if conv_pos == "pre" else (c_in * subsets, c_out)
        self.bn, self.conv = nn.BatchNorm2d(c_out), nn.Conv2d(*sizes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, V)."""
        graph = self.A
        if self.kind in ("offset", "importance"):
            graph = graph + self.PA if self.kind == "offset" else graph * self.PA
        if self.conv_pos == "post":
            return torch.relu(self.bn(self.conv(torch.einsum("nctv,kvw->nkctw", x, graph).flatten(1, 2))))
        values = self.conv(x).unflatten(1, (self.subsets, -1))
        return torch.relu(self.bn(torch.einsum("nkctv,kvw->nctw", values, graph).contiguous()))


class Dggcn(nn.Module):
    """``dggcn`` of one group."""

    def __init__(self, c_in: int, c_out: int, subsets: int, joints: int, subset_wise: bool) -> None:
        super().__init__()
        middle = c_out // subsets * subsets
        self.subsets, self.subset_wise = subsets, subset_wise
        self.A = nn.Parameter(torch.zeros(subsets, joints, joints))
        self.alpha, self.beta = (nn.Parameter(torch.zeros(subsets)) for _ in range(2))
        self.pre = nn.Sequential(nn.Conv2d(c_in, middle, 1), nn.BatchNorm2d(middle), nn.ReLU())
        self.post = nn.Conv2d(middle, c_out, 1)
        self.conv1, self.conv2 = nn.Conv2d(c_in, middle, 1), nn.Conv2d(c_in, middle, 1)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, V)."""
        mean = x.mean(dim=2, keepdim=True)
        one, two = (conv(mean).unflatten(1, (self.subsets, -1)).squeeze(3) for conv in (self.conv1, self.conv2))
        strengths = (self.alpha, self.beta) if self.subset_wise else (self.alpha[:1], self.beta[:1])
        alpha, beta = (strength.view(-1, 1, 1, 1) for strength in strengths)
        graph = alpha * torch.tanh(one.unsqueeze(-1) - two.unsqueeze(-2)) + self.A.unsqueeze(1)
        graph = graph + beta * torch.einsum("nkcv,nkcw->nkvw", one, two).softmax(dim=-2).unsqueeze(2)
        values = self.pre(x).unflatten(1, (self.subsets, -1))
        y = torch.einsum("nkctv,nkcvw->nkctw", values, graph).contiguous()
        return torch.relu(self.bn(self.post(y.flatten(1, 2))))


class Ctrgc(nn.Module):
    """One subset of ``unit_ctrgcn``."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        relation = 8 if c_in <= 16 else c_in // 8
        self.conv1, self.conv2 = nn.Conv2d(c_in, relation, 1), nn.Conv2d(c_in, relation, 1)
        self.conv3, self.conv4 = nn.Conv2d(c_in, c_out, 1), nn.Conv2d(relation, c_out, 1)

    def forward(self, x: Tensor, graph: Tensor, alpha: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, V)."""
        one, two = self.conv1(x).mean(dim=2), self.conv2(x).mean(dim=2)
        topology = self.conv4(torch.tanh(one.unsqueeze(-1) - two.unsqueeze(-2))) * alpha + graph
        return torch.einsum("ncuv,nctu->nctv", topology, self.conv3(x))


class UnitCtrgcn(nn.Module):
    """``unit_ctrgcn`` of one group."""

    def __init__(self, c_in: int, c_out: int, subsets: int, joints: int) -> None:
        super().__init__()
        self.A, self.alpha = nn.Parameter(torch.zeros(subsets, joints, joints)), nn.Parameter(torch.zeros(1))
        self.convs = nn.ModuleList(Ctrgc(c_in, c_out) for _ in range(subsets))
        self.down = nn.Sequential(nn.Conv2d(c_in, c_out, 1), nn.BatchNorm2d(c_out)) if c_in != c_out else nn.Identity()
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, V) -> (B, C_out, T, V)."""
        y = torch.stack([conv(x, self.A[k], self.alpha) for k, conv in enumerate(self.convs)]).sum(dim=0)
        return torch.relu(self.bn(y) + self.down(x))
