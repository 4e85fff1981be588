"""The network: a branch for each input, blocks over all of them, the mean over frames, joints and persons.

At the default options it has 1,222,864 parameters for 60 classes, 25 joints and 2 persons, as the student that ShapGCN
explains.
"""

from __future__ import annotations

from copy import deepcopy
from types import MappingProxyType
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from mmcl.encoders.base import Encoder
from mmcl.encoders.bodies import pack
from mmcl.encoders.edge_gcn.attention import AttentionLayer
from mmcl.encoders.edge_gcn.blocks import Block, Branch
from mmcl.encoders.edge_gcn.graph import hop_graph
from mmcl.encoders.edge_gcn.inputs import InputFeatures
from mmcl.encoders.edge_gcn.layers import SpatialConv, SpatialLayer, TemporalLayer
from mmcl.encoders.edge_gcn.lean import LeanEdgeGCN
from mmcl.encoders.edge_gcn.options import EdgeGCNOptions, input_widths, main_widths
from mmcl.skeletons.layout import Layout


class EdgeGCN(Encoder):
    """AutoGCN's student with explicit edge importance, over any layout.

    Args:
        layout: joints, edges, parts and centre.
        classes: K.
        options: see :class:`EdgeGCNOptions`.
    """

    options_type: ClassVar[type] = EdgeGCNOptions
    tiny = MappingProxyType(
        {"width": 8, "main_width": 16, "last_width": 12, "input_window": 3, "main_window": 3, "dropout": 0.0}
    )
    options: EdgeGCNOptions
    head_parts: ClassVar[tuple[str, ...]] = ("dropout", "classifier")

    def __init__(self, layout: Layout, classes: int, options: EdgeGCNOptions | None = None) -> None:
        options = options or EdgeGCNOptions()
        super().__init__(layout, classes, options)
        origin = min(1, layout.joint_count - 1) if options.released else None
        self.inputs = InputFeatures(layout, options.inputs, options.smooth, origin)
        self.branches = nn.ModuleList(Branch(layout, options) for _ in options.inputs)
        self.main = nn.Sequential(*_main_blocks(layout, options))
        self.feature_width = options.last_width
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Linear(self.feature_width, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Released initialisation: Kaiming by fan-out, biases zero; the classifier starts near zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, std=0.001)
        nn.init.zeros_(self.classifier.bias)

    def edges(self) -> dict[str, nn.Parameter]:
        """The edge-importance tensors (K, V, V) by their names in ``state_dict()``, from the input to the output."""
        return {f"{name}.edge": part.edge for name, part in self.named_modules() if isinstance(part, SpatialConv)}

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D), the mean over frames and joints, then over persons.

        Raises:
            UserError: another number of persons, joints or channels than the encoder was built for.
        """
        self.check(x)
        bodies = x.flatten(0, 1).unsqueeze(1)
        # Absent persons are all alike, and one stands for all, unless batch statistics are taken, or each body has
        # edges of its own.
        alike = not any(isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training for part in self.modules())
        packing = pack(bodies, exact=True) if alike and next(iter(self.edges().values())).dim() == 3 else None
        if packing is None:
            found = self.trunk(self.inputs(bodies))
        else:
            found = self.trunk(self.inputs(bodies[packing.rows]))[packing.places]
        return found.unflatten(0, (-1, self.options.persons)).mean(dim=1)

    def trunk(self, inputs: list[Tensor]) -> Tensor:
        """(B, 2 C, V, T) for each input -> (B, D), the mean over frames and joints."""
        x = torch.cat([branch(one) for branch, one in zip(self.branches, inputs, strict=True)], dim=1)
        return self.main(x).mean(dim=(2, 3))

    def head(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K) unnormalised scores."""
        return self.classifier(self.dropout(features))

    def lean(self, frames: int | None = None) -> LeanEdgeGCN:
        """The same function for use only, with batch norms and edge importance folded: see ``lean.py``."""
        copy = deepcopy(self)
        branches, main = cast("list[Branch]", list(copy.branches)), cast("list[Block]", list(copy.main))
        return LeanEdgeGCN(self.options.persons, copy.inputs, branches, main, copy.classifier)

    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        """First layers of all branches, then block by block."""
        branches = cast("list[Branch]", list(self.branches))
        levels: list[list[nn.Module | nn.Parameter]] = [
            [part for branch in branches for part in (branch.norm, branch.stem_spatial, branch.stem_temporal)]
        ]
        levels += [list(blocks) for blocks in zip(*(branch.blocks for branch in branches), strict=True)]
        for block in self.main:
            levels.append([block])
        return levels


def _main_blocks(layout: Layout, options: EdgeGCNOptions) -> list[Block]:
    """Blocks behind the branches."""
    graph, act = hop_graph(layout, options.main_distance), options.activation
    strides = [options.main_stride] + [1] * (options.main_depth - 1)
    if options.released:
        strides = strides[-1:]  # released layers of one block have one name: each replaces the one before
    last, blocks = (input_widths(options) or [options.width])[-1] * len(options.inputs), []
    for width in main_widths(options):
        temporal = [TemporalLayer("basic", width, options.main_window, stride, act) for stride in strides]
        attention = AttentionLayer(options.attention, width, layout, options.reduce, act)
        blocks.append(Block(SpatialLayer(last, width, graph, act), temporal, attention))
        last = width
    return blocks
