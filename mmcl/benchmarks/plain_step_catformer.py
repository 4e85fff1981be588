"""STEP-CATFormer written the plain way: the baseline of its speed ratios, and the reference of its tests.

As in the released code, tensors have channels first and are turned round for every layer norm and linear layer, each
branch is a module of its own, tokens are averaged behind their convolutions, the trunk is classified and texts are met
in every call, and every body is computed. Tensors carry the official names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.benchmarks.published import ConvBN, Convert, Layer
from mmcl.encoders.ctrgcn.network import plan_units
from mmcl.encoders.step_catformer.network import StepCATFormer
from mmcl.encoders.step_catformer.official import convert
from mmcl.encoders.step_catformer.sets import PART_MODULES, part_sets


class Heads(nn.Module):
    """Attention of (B, J, D) with several heads; the released code has it twice under different names."""

    def __init__(self, width: int, heads: int, names: tuple[str, str, str], output: str) -> None:
        super().__init__()
        self.heads, self.names, self.out = heads, names, output
        for name in names:
            self.add_module(name, nn.Linear(width, width, bias=False))
        last = nn.Linear(width, width)
        self.add_module(output, nn.Sequential(last) if output == "to_out" else last)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, I, D), (B, J, D) twice -> (B, I, D)."""
        b, i, d = q.shape
        q, k, v = (
            getattr(self, name)(x).reshape(b, -1, self.heads, d // self.heads).permute(0, 2, 1, 3)
            for name, x in zip(self.names, (q, k, v), strict=True)
        )
        attention = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(dim=-1)
        return getattr(self, self.out)((attention @ v).transpose(1, 2).reshape(b, i, d))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Spatial(nn.Module):
    """A transformer layer over the joints of each frame."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.normq_sp, self.normk_sp, self.normv_sp, self.norm2 = (nn.LayerNorm(width) for _ in range(4))
        self.feedforward = Mlp(width, 4 * width)
        self.attention_sp = Heads(width, heads, ("W_q", "W_k", "W_v"), "proj")

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, C, T, J) three times -> (B, C, T, J)."""
        b, c, t, j = q.shape
        q, k, v = (x.permute(0, 2, 3, 1).reshape(b * t, j, c) for x in (q, k, v))
        x = q + self.attention_sp(self.normq_sp(q), self.normk_sp(k), self.normv_sp(v))
        return (x + self.feedforward(self.norm2(x))).reshape(b, t, j, c).permute(0, 3, 1, 2)


class PreNorm(nn.Module):
    """A class token's attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(width), Heads(width, heads, ("to_q", "to_k", "to_v"), "to_out")

    def forward(self, x: Tensor) -> Tensor:
        """(B, J, D) -> (B, 1, D)."""
        x = self.norm(x)
        return self.fn(x[:, :1], x, x)


class Part(nn.Module):
    """A part module; ``order`` is that of the joints of what comes out."""

    def __init__(
        self, narrow: list[int], wide: list[int], order: list[int], width: int, heads: int, crossed: bool
    ) -> None:
        super().__init__()
        self.narrow, self.wide, self.order, self.crossed = narrow, wide, order, crossed
        large, small = width // 4, width - width // 4
        for suffix in ("1", "2") if crossed else ("",):
            self.add_module(f"transformer_enc_small{suffix}", nn.Conv2d(width, small, 1))
            self.add_module(f"transformer_enc_large{suffix}", nn.Conv2d(width, large, 1))
        self.transformer_enc_small_T, self.transformer_enc_large_T = Spatial(small, heads), Spatial(large, heads)
        self.cross_attn_layers = nn.ModuleList(
            [nn.ModuleList([nn.Linear(small, large), nn.Linear(large, small), PreNorm(large, heads),
                            nn.Linear(large, small), nn.Linear(small, large), PreNorm(small, heads)])]
        )  # fmt: skip
        self.mlp_head_small = nn.Sequential(nn.LayerNorm(small), nn.Linear(small, width))
        self.mlp_head_large = nn.Sequential(nn.LayerNorm(large), nn.Linear(large, width))
        frame = (len(narrow) + len(wide)) * width
        self.feedforward, self.norm2 = Mlp(frame, frame), nn.LayerNorm(frame)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(B, C, T, V) twice -> (B, C, T, V)."""
        enc: Any = {name.removeprefix("transformer_enc_"): module for name, module in self.named_children()}
        if self.crossed:
            xs, ks = enc["small1"](x1[..., self.wide]), enc["small2"](x2[..., self.wide])
            xl, kl = enc["large1"](x1[..., self.narrow]), enc["large2"](x2[..., self.narrow])
        else:
            xs = ks = enc["small"](x2[..., self.wide])
            xl = kl = enc["large"](x1[..., self.narrow])
        xs, xl = self.transformer_enc_small_T(xs, ks, xs), self.transformer_enc_large_T(xl, kl, xl)
        b, _, t, _ = xs.shape
        xs, xl = (x.permute(0, 2, 3, 1).flatten(0, 1) for x in (xs, xl))
        layers: Any = self.cross_attn_layers[0]
        down, up, attend, up2, down2, attend2 = layers
        token, rest_s, rest_l = up2(xl[:, :1]), xs[:, 1:], xl[:, 1:]
        xl = torch.cat([down2(token + attend2(torch.cat([token, rest_s], dim=1))), rest_l], dim=1)
        token = down(xs[:, :1])
        xs = torch.cat([up(token + attend(torch.cat([token, rest_l], dim=1))), rest_s], dim=1)
        heads = self.mlp_head_small(xs), self.mlp_head_large(xl)
        x = torch.cat([head.unflatten(0, (b, t)).permute(0, 3, 1, 2) for head in heads], dim=3)[..., self.order]
        frames = x.permute(0, 2, 3, 1).flatten(2)
        frames = frames + self.feedforward(self.norm2(frames))
        return frames.unflatten(2, (x.shape[3], -1)).permute(0, 3, 1, 2)


class Values(nn.Module):
    """Four branches along time, and the input added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        b = width // 4

        def deep(dilation: int) -> nn.Sequential:
            along = nn.Module()
            along.conv = nn.Conv2d(b, b, (7, 1), 1, (3 * dilation, 0), (dilation, 1), groups=b, bias=False)
            along.forward = along.conv.forward  # type: ignore[method-assign]
            return nn.Sequential(nn.Conv2d(width, b, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True), along)

        peak = [nn.Conv2d(width, b, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True), nn.MaxPool2d((3, 1), 1, (1, 0))]
        self.branches = nn.ModuleList(
            [deep(2), deep(3), nn.Sequential(*peak), nn.Sequential(nn.Conv2d(width, b, 1))]
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, J) -> (B, C, T, J)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1) + x


class Frames(nn.Module):
    """Cosine attention between frames."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(1, heads, 1, 1))
        self.v = Values(width)
        self.q, self.k, self.project_out = (nn.Conv2d(width, width, 1, bias=False) for _ in range(3))
        self.q_conv, self.k_conv = (nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False) for _ in range(2))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, C, T, J) three times -> (B, C, T, J)."""
        b, c, t, j = v.shape
        q, k, v = self.q_conv(self.q(q)), self.k_conv(self.k(k)), self.v(v)
        q, k, v = (
            x.permute(0, 2, 3, 1).contiguous().reshape(b, t, self.heads, -1).permute(0, 2, 1, 3) for x in (q, k, v)
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return self.project_out((attention @ v).transpose(1, 2).reshape(b, t, j, c).permute(0, 3, 1, 2))


class Gated(nn.Module):
    """The gated feed-forward network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(width, 8 * width, 1, bias=False)
        self.conv = nn.Conv2d(8 * width, 8 * width, 3, padding=1, groups=8 * width, bias=False)
        self.project_out = nn.Conv2d(4 * width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, J) -> (B, C, T, J)."""
        gate, values = self.conv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * values)


class Temporal(nn.Module):
    """A temporal module."""

    def __init__(self, joints: int, width: int, heads: int) -> None:
        super().__init__()
        self.norm_q, self.norm_k, self.norm_v, self.norm2 = (nn.LayerNorm(width) for _ in range(4))
        self.attn, self.ffn = Frames(width, heads), Gated(width)
        self.add_coeff = nn.Parameter(torch.zeros(5, joints))
        self.transform = nn.Sequential(nn.BatchNorm2d(width), nn.GELU(), nn.Conv2d(width, width, 1))
        self.bn = nn.BatchNorm2d(width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> Tensor:
        """(B, C, T, V) three times and (B, C, T, 4) -> (B, C, T, V)."""
        joints = q.shape[3]
        q, k, v = (torch.cat([x, p, x.mean(dim=3, keepdim=True)], dim=3) for x in (q, k, v))

        def normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
            return norm(x.flatten(2).transpose(1, 2).contiguous()).transpose(1, 2).contiguous().view_as(x)

        x = q + self.attn(normed(self.norm_q, q), normed(self.norm_k, k), normed(self.norm_v, v))
        x = x + self.ffn(normed(self.norm2, x))
        others = torch.einsum("nctd,dv->nctv", x[..., joints:], self.add_coeff)
        return self.bn(self.transform(x[..., :joints] + others))


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
