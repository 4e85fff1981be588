"""STEP-CATFormer for use only (``encoders/lean.py``): everything constant is worked out beforehand.

The trunk is CTR-GCN's lean form, a few bodies at a time on a CPU; what stands behind it takes all bodies at once, since
its large matrices cost as much to read for one as for many. A token is a mean over joints, which commutes with
convolution and batch norm: each depth's two convolutions become one small product. Layer norms pass their scale and
shift on to the products behind them, so that queries, keys and values of one input share norm and product; batch norms
go into the convolutions beside them. The matrices over whole frames lie transposed: with the few rows that a clip has,
a product with them is a fifth faster that way.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.common.precision import exact_product
from mmcl.encoders.body_encoder import BodyEncoder
from mmcl.encoders.ctrgcn.lean_units import COLUMNS, LeanSpatial, LeanUnit
from mmcl.encoders.ctrgcn.units import Unit
from mmcl.encoders.lean import Folded, LeanBodies, folded, normalised, scale_and_shift
from mmcl.encoders.step_catformer.parts import PartAttention, TransformerLayer
from mmcl.encoders.step_catformer.refinement import Refinement
from mmcl.encoders.step_catformer.temporal import TemporalAttention


def behind_norm(norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear layer that takes what a layer norm without scale and shift gives."""
    shift = weight @ norm.bias
    return weight * norm.weight, shift if bias is None else shift + bias


class FrameLinear(Folded):
    """A linear layer over whole frames.

    Args:
        layer: as it is trained.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.keep(weight=layer.weight.T, bias=layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, V * D) -> (B, T, V * D)."""
        return torch.addmm(self.bias, x.flatten(0, 1), self.weight).unflatten(0, x.shape[:2])


class LeanLayer(Folded):
    """A transformer layer over the joints of a set.

    Args:
        layer: as it is trained.
        crossed: whether keys come from another input than queries and values.
    """

    query_value: Tensor
    query_value_bias: Tensor
    key: Tensor
    key_bias: Tensor
    inner: Tensor
    inner_bias: Tensor

    def __init__(self, layer: TransformerLayer, crossed: bool) -> None:
        super().__init__()
        attention = layer.attention
        self.crossed, self.heads, self.width = crossed, attention.heads, attention.query.in_features
        scale = (self.width // self.heads) ** -0.5
        query = behind_norm(layer.query_norm, attention.query.weight * scale)
        value = behind_norm(layer.value_norm, attention.value.weight)
        key = behind_norm(layer.key_norm, attention.key.weight)
        inner = behind_norm(layer.inner_norm, layer.feed_forward.inner.weight, layer.feed_forward.inner.bias)
        first = (query, value) if crossed else (query, value, key)
        weights, biases = zip(*first, strict=True)
        self.keep(
            query_value=torch.cat(weights), query_value_bias=torch.cat(biases),
            key=key[0], key_bias=key[1], inner=inner[0], inner_bias=inner[1],
        )  # fmt: skip
        self.output, self.outer = deepcopy(attention.output), deepcopy(layer.feed_forward.outer)

    def normed(self, x: Tensor) -> Tensor:
        """A layer norm without scale and shift."""
        return F.layer_norm(x, (self.width,))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, T, J, D) three times, queries and values being the same -> (B, T, J, D)."""
        products = F.linear(self.normed(query), self.query_value, self.query_value_bias)
        if self.crossed:
            products = torch.cat([products, F.linear(self.normed(key), self.key, self.key_bias)], dim=-1)
        split = products.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).contiguous()
        queries, values, keys = split.unbind(0)
        attention = torch.softmax(torch.matmul(queries, keys.transpose(-2, -1)), dim=-1)
        x = query + self.output(torch.matmul(attention, values).transpose(-3, -2).flatten(-2))
        return x + self.outer(F.gelu(F.linear(self.normed(x), self.inner, self.inner_bias)))


class ScaleShift(Folded):
    """A batch norm that has no convolution beside it."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = scale_and_shift(norm)
        self.keep(scale=scale.view(-1, 1, 1), shift=shift.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T, V) -> (B, D, T, V)."""
        return torch.addcmul(self.shift, x, self.scale)


@torch.no_grad()
def fold_batch_norms(times: TemporalAttention) -> None:
    """Put the batch norms of a temporal module, in place, into the convolutions before them."""
    values = times.attention.value
    scale, shift = scale_and_shift(values.norm)
    rows = values.reduce.out_channels
    values.reduce.weight.mul_(scale[:rows].view(-1, 1, 1, 1))
    values.reduce.bias = nn.Parameter(shift[:rows].clone())
    peak = values.reduce_peak
    assert peak.bias is not None and times.point.bias is not None
    peak.weight.mul_(scale[rows:].view(-1, 1, 1, 1))
    peak.bias.copy_(peak.bias * scale[rows:] + shift[rows:])
    values.norm = nn.Identity()  # type: ignore[assignment]
    scale, shift = scale_and_shift(times.after)
    times.point.weight.mul_(scale.view(-1, 1, 1, 1))
    times.point.bias.copy_(times.point.bias * scale + shift)
    times.after = nn.Identity()  # type: ignore[assignment]
    times.before = ScaleShift(times.before)  # type: ignore[assignment]


def lean_refinement(refinement: Refinement) -> Refinement:
    """A copy with folded layers in the place of those that are trained; large matrices are copied once only."""
    frames = (refinement.frame, *(part.frame for part in cast("list[PartAttention]", list(refinement.parts.values()))))
    large = [layer for frame in frames for layer in frame.children() if isinstance(layer, nn.Linear)]
    replaced: dict[int, Any] = {id(layer): FrameLinear(layer) for layer in large}
    lean = deepcopy(refinement, replaced)
    for part in cast("list[PartAttention]", list(lean.parts.values())):
        part.add_module("narrow_layer", LeanLayer(part.narrow_layer, part.crossed))
        part.add_module("wide_layer", LeanLayer(part.wide_layer, part.crossed))
    for times in cast("list[TemporalAttention]", list(lean.times)):
        fold_batch_norms(times)
    return lean.requires_grad_(False)


class LeanStepCATFormer(LeanBodies):
    """An encoder's function in evaluation, (N, M, T, V, C) -> (N, K), for use only.

    Args:
        encoder: whose trunk and classifier are copied.
        tokens: its ``token_units``, ``to_tokens`` and ``mix_tokens``.
        refinement: what stands behind the trunk.
        bones: (V, V) that the input is multiplied with, or None.
        frames: T that will come, for which the feature of an empty body is worked out at once; others work, too.
    """

    few_at_a_time = False
    bones: Tensor
    to_tokens_0: Tensor
    to_tokens_1: Tensor
    to_tokens_2: Tensor
    to_tokens_3: Tensor

    def __init__(
        self, encoder: BodyEncoder, tokens: tuple[list[int], nn.ModuleList, nn.Conv2d], refinement: Refinement,
        bones: Tensor | None, frames: int | None = None,
    ) -> None:  # fmt: skip
        units = [
            LeanUnit(LeanSpatial(unit.spatial), unit.temporal, unit.residual)
            for unit in cast("list[Unit]", encoder.units)
        ]
        super().__init__(
            encoder.options.persons,
            encoder.layout.joint_count,
            encoder.data_bn,
            units,
            encoder.classifier,
            columns=COLUMNS,
        )
        self.token_units, to_tokens, mix = tokens
        self.has_bones = bones is not None
        if bones is not None:
            self.keep(bones=bones)
        assert mix.bias is not None
        for depth, convolution in enumerate(cast("list[nn.Sequential]", to_tokens)):
            weight, bias = folded(convolution[0], *scale_and_shift(convolution[1]))
            joined = torch.cat([weight[:, :, 0, 0], bias[:, None]], dim=1)
            joined = mix.weight[:, :, 0, 0] @ joined
            joined[:, -1] += mix.bias
            self.keep(**{f"to_tokens_{depth}": joined})
        self.strides = [cast("nn.Conv2d", part[0]).stride[1] for part in cast("list[nn.Sequential]", to_tokens)]
        self.refinement = lean_refinement(refinement)
        self.eval()
        if frames is not None:
            self.empty_features(frames)

    def see(self, bodies: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, V, T) -> joints (B, D, V, T') and tokens (B, D, T', 4)."""
        tokens: dict[int, Tensor] = {}
        for number, unit in enumerate(self.units):
            bodies = unit(bodies)
            for depth, place in enumerate(self.token_units):
                if place == number:
                    means = bodies[..., :: self.strides[depth]].mean(dim=2)
                    weight = getattr(self, f"to_tokens_{depth}")
                    tokens[depth] = torch.matmul(weight[:, :-1], means) + weight[:, -1:]
        return bodies, torch.stack([tokens[depth] for depth in range(len(tokens))], dim=3)

    def trunk(self, bodies: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, D)."""
        apart = bodies.device.type == "cpu" and not torch.compiler.is_compiling()
        seen = [self.see(part) for part in (self.a_few_each(bodies) if apart else [bodies])]
        joints, tokens = (torch.cat(part) for part in zip(*seen, strict=True)) if len(seen) > 1 else seen[0]
        return self.refinement(joints, tokens).mean(dim=(2, 3))

    def normalise(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N * M, C, V, T), bones of the input if asked for."""
        return normalised(exact_product(self.bones, x) if self.has_bones else x, self.scale, self.shift)
