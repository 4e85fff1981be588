"""SkeleT-GCN (Yang et al., "Expressive Keypoints for Skeleton-based Action Recognition via Skeleton Transformation").

arXiv 2406.18011. Joints become fewer, from a layout's joints through its pools, while channels grow; the maps are
learned. With ``coco_wholebody_65`` and the default options the trunk has 1,299,041 parameters, as the released one.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.encoders.base import Encoder
from mmcl.encoders.bodies import Bodies, each_is_computed
from mmcl.encoders.graph import normalise_columns, pool_matrices, pooled_graph, undirected_graph
from mmcl.encoders.skelet.blocks import Block
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.encoders.skelet.persons import CoordinateNorm, InstancePooling, find_bodies
from mmcl.skeletons.layout import Layout


class Skelet(Encoder):
    """SkeleT-GCN over any layout that has pools.

    Args:
        layout: joints, tree, links and pools.
        classes: K.
        options: see :class:`SkeletOptions`.

    Raises:
        UserError: the layout has fewer levels of pools than ``options.pool`` asks for.
    """

    options_type: ClassVar[type] = SkeletOptions
    tiny = MappingProxyType({"width": 8, "groups": [1, 2], "widen": [2], "halve": [2], "pool": [2], "drop_path": 0.0})
    head_parts: ClassVar[tuple[str, ...]] = ("dropout", "classifier")

    def __init__(self, layout: Layout, classes: int, options: SkeletOptions | None = None) -> None:
        options = options or SkeletOptions()
        super().__init__(layout, classes, options)
        if len(options.pool) > len(layout.pools):
            raise UserError(
                f"skelet.pool names {len(options.pool)} blocks, but the layout {layout.name} has {len(layout.pools)} "
                "levels of pools: give it 'pools', or name fewer blocks (--encoder.pool=[] keeps all joints)"
            )
        V, C = layout.joint_count, options.channels
        self.feature_width = options.channel_plan()[-1][1]
        self.data_bn = CoordinateNorm(V * C * (options.persons if options.input_norm == "person" else 1))
        self.pooling = None
        if options.instance_pooling:
            self.pooling = InstancePooling(
                C, options.width, V, options.positions, options.drop_path, by_batch=options.released
            )
        self.blocks = nn.ModuleList(_blocks(layout, options))
        self.dropout = nn.Dropout(options.dropout) if options.dropout else nn.Identity()
        self.classifier = nn.Linear(self.feature_width, classes)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def check(self, x: Tensor) -> None:
        """Refuse a batch that is not (N, M, T, V, C) of this encoder; any M where one batch norm serves all persons.

        Raises:
            UserError: another number of axes, persons, joints or channels.
        """
        shape = (self.layout.joint_count, self.options.channels)
        if self.options.input_norm == "person" or x.dim() != 5 or (x.shape[3], x.shape[4]) != shape:
            super().check(x)

    def bodies(self, x: Tensor) -> tuple[Bodies, Tensor]:
        """(N, M, T, V, C) -> who counts, and the normalised coordinates (B, T, V, C) of the bodies to compute."""
        self.check(x)
        dense = each_is_computed() and not self.training
        bodies = find_bodies(x, self.options.released, dense)
        if self.options.input_norm == "person":
            return bodies, bodies.pick(self.data_bn(x))
        return bodies, self.data_bn(bodies.pick(x).unsqueeze(1)).squeeze(1)

    def trunk(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (B, D, T', V'): bodies that are computed, or with instance pooling one a clip."""
        return self._trunk(*self.bodies(x))

    def _trunk(self, bodies: Bodies, points: Tensor) -> Tensor:
        y = points.permute(0, 3, 1, 2) if self.pooling is None else self.pooling(points, bodies)
        for block in self.blocks:
            y = block(y)
        return y

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D): the mean over frames and joints, then over the persons who are there.

        Raises:
            UserError: another number of persons, joints or channels than the encoder was built for.
        """
        bodies, points = self.bodies(x)
        return self._mean(bodies, self._trunk(bodies, points))

    def _mean(self, bodies: Bodies, found: Tensor) -> Tensor:
        """(B, D, T', V') -> (N, D)."""
        mean = found.mean(dim=(2, 3))
        return mean if self.pooling is not None else bodies.mean(mean)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Features, scores, and "tokens" (N, M, T', V', D) behind the last block, V' joints of the last level.

        Tokens of absent persons are 0. With instance pooling there is one body a clip, M = 1.
        """
        bodies, points = self.bodies(x)
        found = self._trunk(bodies, points)
        features, tokens = self._mean(bodies, found), found.permute(0, 2, 3, 1)
        tokens = tokens.unsqueeze(1) if self.pooling is not None else bodies.spread(tokens)
        return {"features": features, "scores": self.head(features), "tokens": tokens}

    def head(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K) unnormalised scores."""
        return self.classifier(self.dropout(features))

    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        """The batch norm on coordinates with instance pooling, then each block."""
        first: list[nn.Module | nn.Parameter] = [self.data_bn] if self.pooling is None else [self.data_bn, self.pooling]
        blocks: list[list[nn.Module | nn.Parameter]] = [[block] for block in self.blocks]
        return [first, *blocks]

    def lean(self, frames: int | None = None) -> nn.Module:
        """The same function for use only: batch norms are part of the products beside them."""
        lean = super().lean(frames)
        assert isinstance(lean, Skelet)
        lean.data_bn.fold()
        if lean.pooling is not None:
            lean.pooling.fold()
        for block in lean.blocks:
            assert isinstance(block, Block)
            block.fold()
        return lean.requires_grad_(False)


def _blocks(layout: Layout, options: SkeletOptions) -> list[Block]:
    with torch.device("cpu"):  # where a network is only counted, too: a pseudo-inverse needs numbers
        graph = undirected_graph(layout)
        pools = pool_matrices(layout)
    level, total, blocks = normalise_columns(graph), torch.eye(len(graph), device="cpu"), []
    for number, (channels_in, channels_out, groups) in enumerate(options.channel_plan(), start=1):
        pool = None
        if number in options.pool:
            pool = pools[options.pool.index(number)]
            total = total @ pool
            level = normalise_columns(pooled_graph(graph, total))
        blocks.append(Block(
            options, (channels_in, channels_out), groups, pool, level, 2 if number in options.halve else None,
            first=number == 1 and not options.instance_pooling,
        ))  # fmt: skip
    return blocks
