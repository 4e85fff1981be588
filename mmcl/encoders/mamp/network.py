"""The MAMP encoder (Mao et al., "Masked Motion Predictors are Strong 3D Action Representation Learners", ICCV 2023).

STARS (arXiv 2407.10935) tunes the same network by contrast. Each person is a sequence of tokens of its own. At the
default options the trunk has 6,336,000 parameters for 120 frames and 25 joints, as the published one.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

from mmcl.encoders.base import Encoder
from mmcl.encoders.bodies import Bodies, each_is_computed, pack, present_bodies
from mmcl.encoders.mamp.blocks import Block, init_dense
from mmcl.encoders.mamp.options import MAMPOptions
from mmcl.encoders.mamp.patches import Positions
from mmcl.encoders.tokens import TokenEncoder, whole_groups
from mmcl.skeletons.layout import Layout

PROBE_EPS = 1e-6  # of the probe's batch norm


class MAMP(Encoder, TokenEncoder):
    """A transformer over patches of single joints, with positions in time and positions of joints.

    What training with masks needs is :meth:`tokenise` and :meth:`encode`, which takes any subset of tokens.

    Args:
        layout: joints; its edges are not used.
        classes: K.
        options: see :class:`MAMPOptions`.
    """

    options_type: ClassVar[type] = MAMPOptions
    tiny = MappingProxyType({"width": 8, "depth": 2, "heads": 2, "expansion": 2, "frames": 16})
    fused = MappingProxyType({"*.qkv": 3})

    def __init__(self, layout: Layout, classes: int, options: MAMPOptions | None = None) -> None:
        options = options or MAMPOptions()
        super().__init__(layout, classes, options)
        self.token_width, self.patch_frames = options.width, options.patch_frames
        self.feature_width = options.width * (layout.joint_count if options.pooling == "joints" else 1)
        kernel = (options.patch_frames, 1)
        self.embed = nn.Conv2d(options.channels, options.width, kernel, kernel)
        self.positions = Positions(options.frames // options.patch_frames, layout.joint_count, options.width)
        rates = torch.linspace(0.0, options.drop_path, options.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(options.width, options.heads, options.expansion, drop_path=rate) for rate in rates
        )
        self.norm = nn.LayerNorm(options.width)
        self.dropout = nn.Dropout(options.dropout) if options.dropout else nn.Identity()
        self.classifier = _head(options, self.feature_width, classes)
        init_dense(self)

    def tokenise(self, bodies: Tensor) -> Tensor:
        """(B, T, V, C) -> (B, L, D): all tokens of bodies with their positions; see :class:`TokenEncoder`."""
        bodies = whole_groups(bodies, self.options.patch_frames)
        tokens = self.embed(bodies.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.positions(tokens).flatten(1, 2)

    def encode(self, tokens: Tensor) -> Tensor:
        """(B, L', D) -> (B, L', D): any subset of the tokens of bodies, in any order, through blocks and norm."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D) or (N, V * D), see ``pooling``: the mean over time and over persons.

        Persons that are absent do not count (``released``: they do); the feature of a clip without anybody is 0.

        Raises:
            UserError: another number of persons, joints or channels than the encoder was built for.
        """
        self.check(x)
        return self._mean_person(x, self._by_person(x, lambda bodies: self._pool(self.encode(self.tokenise(bodies)))))

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Features, scores, and "tokens" (N, M, T', V, D) behind the last norm; those of absent persons are 0."""
        self.check(x)
        V = self.layout.joint_count
        tokens = self._by_person(x, lambda bodies: self.encode(self.tokenise(bodies)))
        features = self._mean_person(x, self._pool(tokens.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return {"features": features, "scores": self.head(features), "tokens": tokens.unflatten(2, (-1, V))}

    def head(self, features: Tensor) -> Tensor:
        """(N, D) or (N, V * D) -> (N, K) unnormalised scores."""
        return self.classifier(features)

    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        """Tokeniser with positions, each block, last norm: depth + 2 entries, as layer-wise rates in STARS count."""
        blocks: list[list[nn.Module | nn.Parameter]] = [[block] for block in self.blocks]
        return [[self.embed, self.positions], *blocks, [self.norm]]

    def lean(self, frames: int | None = None) -> nn.Module:
        """The same function for use only: the head's batch norm is folded into a dense layer."""
        lean = super().lean(frames)
        lean.classifier = _folded_head(self.options.head, lean.classifier)
        return lean.requires_grad_(False)

    def _pool(self, tokens: Tensor) -> Tensor:
        """(B, L, D) -> (B, D) or (B, V * D)."""
        tokens = self.dropout(tokens)
        if self.options.pooling == "mean":
            return tokens.mean(dim=1)
        return tokens.unflatten(1, (-1, self.layout.joint_count)).mean(dim=1).flatten(1)

    def _by_person(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """(N, M, T, V, C) -> (N, M, …): ``function`` of each body (B, T, V, C) -> (B, …), 0 for absent persons.

        Absent persons cost nothing, but where a graph is traced: a number of rows that depends on data would break it.
        ``released`` computes one body of zeros for all of a slot.
        """
        if not self.options.released:
            bodies = Bodies.counting(present_bodies(x), each_is_computed())
            return bodies.spread(function(bodies.pick(x)))
        everybody, packing = x.flatten(0, 1), pack(x, exact=True)
        found = function(everybody) if packing is None else function(everybody[packing.rows])[packing.places]
        return found.unflatten(0, x.shape[:2])

    def _mean_person(self, x: Tensor, found: Tensor) -> Tensor:
        """(N, M, D) -> (N, D): the mean over the persons that count."""
        if self.options.released:
            return found.mean(dim=1)
        return found.sum(dim=1) / present_bodies(x).sum(dim=1, keepdim=True).clamp(min=1)


def _head(options: MAMPOptions, width: int, classes: int) -> nn.Module:
    if options.head == "linear":
        return nn.Linear(width, classes)
    if options.head == "probe":
        norm = nn.BatchNorm1d(width, eps=PROBE_EPS, affine=False)
        return nn.Sequential(norm, nn.Linear(width, classes))
    return nn.Sequential(
        nn.Linear(width, options.hidden), nn.BatchNorm1d(options.hidden), nn.ReLU(), nn.Linear(options.hidden, classes)
    )


@torch.no_grad()
def _folded_head(kind: str, head: Any) -> nn.Module:
    """The same head in evaluation, whose batch norm is part of the dense layer before it (mlp) or behind it (probe)."""
    if kind == "mlp":
        first, norm, relu, last = head
        return nn.Sequential(fusion.fuse_linear_bn_eval(first, norm), relu, last)
    if kind == "probe":
        norm, dense = head
        scale = torch.rsqrt(norm.running_var + norm.eps)
        dense.bias.sub_(dense.weight @ (norm.running_mean * scale))
        dense.weight.mul_(scale)
        return dense
    return head
