"""CHARON's STTFormer as it is released: products over tuples as sums by index, every batch norm apart."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.sttformer.layers import SLOPE, TupleLayer
from mmcl.encoders.sttformer.network import STTFormer


class PlainSTTFormer(nn.Module):
    """The function of an encoder, layer by layer; gradients reach the encoder's own parameters.

    As in the released code, all bodies of the first slot are computed, those of other slots where somebody is there.

    Args:
        encoder: whose tensors and mode are used as they are.
    """

    def __init__(self, encoder: STTFormer) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, K)."""
        encoder = self.encoder
        present = encoder.bodies(x).present
        chosen = present.clone()
        chosen[:, 0] = True
        found = x.new_zeros(*present.shape, encoder.feature_width)
        found[chosen] = self.pool(x[chosen])
        absent = encoder.absent.expand_as(found)
        return encoder.head(torch.where(present[:, :, None], found, absent).sum(dim=1))

    def pool(self, bodies: Tensor) -> Tensor:
        """(B, T, V, C) -> (B, D)."""
        frames = self.encoder.options.tuple_frames
        missing = -bodies.shape[1] % frames
        x = torch.cat([bodies, bodies[:, -1:].repeat(1, missing, 1, 1)], dim=1).permute(0, 3, 1, 2)
        x = x.reshape(*x.shape[:2], -1, frames * x.shape[3])
        x = self.encoder.input_map(x) + self.encoder.positions
        for layer in self.encoder.layers:
            x = transform(cast("TupleLayer", layer), x)
        return self.encoder.dropout(x.mean(dim=(2, 3)))


def transform(layer: TupleLayer, x: Tensor) -> Tensor:
    """(B, C_in, T', V') -> (B, C_out, T', V'): a layer, its attention written out."""
    B, _, T, V = x.shape
    query, key = layer.query_key(x).view(B, 2 * layer.heads, layer.query, T, V).chunk(2, dim=1)
    weights = torch.einsum("nhctu,nhctv->nhuv", query, key) / (layer.query * T)
    weights = (weights * layer.scale + layer.bias.repeat(B, 1, 1, 1)).softmax(dim=-1)
    y = torch.einsum("nctu,nhuv->nhctv", x, weights).contiguous().view(B, -1, T, V)
    skip = layer.joints_skip(x)
    y = F.leaky_relu(skip + layer.joints(y), SLOPE)
    y = F.leaky_relu(skip + layer.dense(y), SLOPE)
    return F.leaky_relu(layer.time_skip(y) + layer.time(y), SLOPE)
