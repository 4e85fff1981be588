"""MAMP as it is released: attention as products and a softmax of its own, every body computed, whoever is there."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.bodies import present_bodies
from mmcl.encoders.mamp.blocks import Block
from mmcl.encoders.mamp.network import MAMP


class PlainMAMP(nn.Module):
    """The function of an encoder, block by block; gradients reach the encoder's own parameters.

    Args:
        encoder: whose tensors and mode are used as they are.
    """

    def __init__(self, encoder: MAMP) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, K)."""
        encoder, options = self.encoder, self.encoder.options
        tokens = self.tokenise(x.flatten(0, 1))
        _, T, V, D = tokens.shape
        tokens = encoder.dropout(self.encode(tokens.reshape(-1, T * V, D)))
        by_joint = tokens.view(*x.shape[:2], T, V, D).mean(dim=2)  # (N, M, V, D)
        found = by_joint.mean(dim=2) if options.pooling == "mean" else by_joint.flatten(2)
        if options.released:
            return encoder.head(found.mean(dim=1))
        present = present_bodies(x).to(found.dtype)
        return encoder.head((found * present[:, :, None]).sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1))

    def tokenise(self, bodies: Tensor) -> Tensor:
        """(B, T, V, C) -> (B, T', V, D)."""
        frames = self.encoder.options.patch_frames
        missing = -bodies.shape[1] % frames
        bodies = torch.cat([bodies, bodies[:, -1:].repeat(1, missing, 1, 1)], dim=1)
        embed = self.encoder.embed
        tokens = F.conv2d(bodies.permute(0, 3, 1, 2), embed.weight, embed.bias, stride=(frames, 1))
        return self.encoder.positions(tokens.permute(0, 2, 3, 1))

    def encode(self, tokens: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        for block in self.encoder.blocks:
            tokens = transform(cast("Block", block), tokens)
        return self.encoder.norm(tokens)


def transform(block: Block, x: Tensor) -> Tensor:
    """(B, L, D) -> (B, L, D): a block, all pairs of tokens written out."""
    attention = block.attention
    B, L, D = x.shape
    heads, width = attention.heads, D // attention.heads
    query, key, value = attention.qkv(block.norm1(x)).reshape(B, L, 3, heads, width).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-2, -1) * width**-0.5).softmax(dim=-1)
    x = x + block.drop_path(attention.project((weights @ value).transpose(1, 2).reshape(B, L, D)))
    return x + block.drop_path(block.mlp(block.norm2(x)))
