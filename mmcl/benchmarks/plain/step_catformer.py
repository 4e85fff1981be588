"""STEP-CATFormer written the plain way: the baseline of its speed ratios, and the reference of its tests.

As in the released code, tensors have channels first and are turned round for every layer norm and linear layer, each
branch is a module of its own, tokens are averaged behind their convolutions, the trunk is classified and texts are met
in every call, and every body is computed. Tensors carry the official names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmcl.benchmarks.plain.ctrgcn import ConvBN, Layer
from mmcl.benchmarks.plain.form import Convert
from mmcl.benchmarks.plain.step_catformer_frames import Temporal
from mmcl.benchmarks.plain.step_catformer_parts import Part
from mmcl.encoders.ctrgcn.network import plan_units
from mmcl.encoders.step_catformer.network import StepCATFormer
from mmcl.encoders.step_catformer.official import convert
from mmcl.encoders.step_catformer.sets import PART_MODULES, part_sets


class PlainStepCATFormer(nn.Module):
    """The network on official input (N, C, T, V, M).

    Args:
        encoder: whose sizes, sets of joints and bones it has.
    """

    bones: Tensor

    def __init__(self, encoder: StepCATFormer) -> None:
        super().__init__()
        options, V, K = encoder.options, encoder.layout.joint_count, encoder.classes
        D, self.clip = encoder.feature_width, (options.channels, V, options.persons)
        self.register_buffer("bones", encoder.bones.clone(), persistent=False)
        self.data_bn = nn.BatchNorm1d(options.persons * V * options.channels)
        self.depth, self.places = len(encoder.units), encoder.token_units
        widths = []
        for number, (c_in, c_out, stride) in enumerate(plan_units(options.trunk), start=1):
            setattr(self, f"l{number}", Layer(c_in, c_out, V, stride, number == 1, options.adaptive))
            widths.append(c_out)
        for depth, (place, stride) in enumerate(zip(self.places, (4, 2, 1, 1), strict=True), start=1):
            self.add_module(f"fusion{depth}", ConvBN(widths[place], D, 1, stride))
        self.fusion_last, self.to_joint_embedding = nn.Conv2d(D, D, 1), nn.Linear(D, D)
        self.pos_embedding = nn.Parameter(torch.randn(1, V, D))
        for number in (1, 2):
            self.add_module(f"Temporal_TransformerEncoder{number}", Temporal(V, D, options.heads))
        sets = part_sets(encoder.layout, options.released)
        for name, official in zip(PART_MODULES, ("hand", "leg", "hand_leg", "up_dowm"), strict=True):
            narrow, wide = map(list, sets[name])
            order = list(range(V)) if options.released else [(wide + narrow).index(joint) for joint in range(V)]
            part = Part(narrow, wide, order, D, options.heads, name in PART_MODULES[2:])
            self.add_module(f"cross_{official}", part)
        frame = [nn.Linear(V * D, V * D), nn.GELU(), nn.LayerNorm(V * D)]
        self.mlp = nn.Sequential(*frame, nn.Linear(V * D, V * D), nn.GELU(), nn.LayerNorm(V * D))
        self.norm, self.fc1, self.fc = nn.LayerNorm(V * D), nn.Linear(D, K), nn.Linear(D, K)
        self.linear_head = nn.ModuleDict({"ViT-B/32": nn.Linear(D, options.text_width)})
        self.part_list = nn.ModuleList(nn.Linear(D, options.text_width) for _ in range(4))
        self.logit_scale = nn.Parameter(torch.ones(1, 5))
        self.described = [list(encoder.described[name]) for name in ("head", "hand", "foot", "hip")]

    def shape(self, frames: int) -> tuple[int, ...]:
        """Of one clip."""
        return self.clip[0], frames, *self.clip[1:]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M) -> (N, K)."""
        named: Any = self
        n, c, t, v, m = x.shape
        x = self.bones @ x.permute(0, 4, 2, 3, 1).reshape(n * m * t, v, c)
        x = self.data_bn(x.reshape(n, m, t, v, c).permute(0, 1, 3, 4, 2).reshape(n, m * v * c, t))
        x = x.reshape(n * m, v, c, t).permute(0, 2, 3, 1).contiguous()
        tokens: list[Tensor | None] = [None] * 4
        for number in range(self.depth):
            x = getattr(self, f"l{number + 1}")(x)
            for depth, place in enumerate(self.places):
                if place == number:
                    tokens[depth] = getattr(self, f"fusion{depth + 1}")(x).mean(dim=3, keepdim=True)
        feature = x.unflatten(0, (n, m))
        for head, joints in zip(self.part_list, self.described, strict=True):
            head(feature[..., joints].mean(dim=(3, 4)).mean(dim=1))
        whole = feature.mean(dim=(3, 4)).mean(dim=1)
        self.linear_head["ViT-B/32"](whole), self.fc1(whole)
        p = self.fusion_last(torch.cat(tokens, dim=3))  # type: ignore[arg-type]
        x = self.to_joint_embedding(x.permute(0, 2, 3, 1).flatten(0, 1)) + self.pos_embedding
        x = x.unflatten(0, (n * m, -1)).permute(0, 3, 1, 2).contiguous()
        s1, s2 = named.cross_hand(x, x), named.cross_leg(x, x)
        t1 = named.Temporal_TransformerEncoder1(s1, s2, s1, p)
        s1 = named.cross_hand_leg(s1, s2)
        s2 = named.cross_up_dowm(s2, s1)
        frames = (t1 + named.Temporal_TransformerEncoder2(s1, s2, s1, p)).permute(0, 2, 3, 1).flatten(2)
        x = self.mlp(self.norm(frames)).unflatten(2, (v, -1)).permute(0, 3, 1, 2)
        return self.fc(x.reshape(n, m, x.shape[1], -1).mean(dim=3).mean(dim=1))


def plain_form(encoder: StepCATFormer) -> tuple[PlainStepCATFormer, Convert]:
    """A plain network of an encoder's size, and the way from its state dict to the encoder's."""
    return PlainStepCATFormer(encoder), lambda official: convert(official).state
