"""What stands behind STEP-CATFormer's trunk: part modules, temporal modules, and the network over whole frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.encoders.step_catformer.parts import PartAttention
from mmcl.encoders.step_catformer.sets import PART_MODULES, part_sets
from mmcl.encoders.step_catformer.temporal import TemporalAttention
from mmcl.skeletons.layout import Layout


class Refinement(nn.Module):
    """Joints and tokens of the trunk, refined.

    Args:
        layout: V joints with arms and legs.
        width: D.
        heads: of the attentions.
        released: as in the options.
    """

    def __init__(self, layout: Layout, width: int, heads: int, released: bool) -> None:
        super().__init__()
        V, frame = layout.joint_count, layout.joint_count * width
        self.embed = nn.Linear(width, width)
        self.positions = nn.Parameter(torch.randn(V, width))
        sets = part_sets(layout, released)
        self.parts = nn.ModuleDict(
            {name: PartAttention(*sets[name], width, heads, name in PART_MODULES[2:], released) for name in sets}
        )
        self.times = nn.ModuleList(TemporalAttention(V, width, heads) for _ in range(2))
        self.norm = nn.LayerNorm(frame)
        self.frame = nn.Sequential(
            nn.Linear(frame, frame), nn.GELU(), nn.LayerNorm(frame),
            nn.Linear(frame, frame), nn.GELU(), nn.LayerNorm(frame),
        )  # fmt: skip

    def forward(self, joints: Tensor, tokens: Tensor) -> Tensor:
        """(B, D, V, T') of the trunk's last unit and (B, D, T', 4) of four depths -> (B, D, V, T')."""
        x = self.embed(joints.permute(0, 3, 2, 1)) + self.positions  # (B, T', V, D)
        hands, legs = self.parts["hand"](x, x), self.parts["leg"](x, x)
        first = self.times[0](hands, legs, hands, tokens)
        both = self.parts["hand_leg"](hands, legs)
        halves = self.parts["up_down"](legs, both)
        frames = (first + self.times[1](both, halves, both, tokens)).flatten(2)
        return self.frame(self.norm(frames)).view_as(x).permute(0, 3, 2, 1)

    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        """The input, both pairs of part modules with what follows them, the last network."""
        hand, leg, hand_leg, up_down = (self.parts[name] for name in PART_MODULES)
        return [
            [self.embed, self.positions], [hand, leg, self.times[0]], [hand_leg, up_down, self.times[1]],
            [self.norm, self.frame],
        ]  # fmt: skip
