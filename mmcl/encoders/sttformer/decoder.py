"""SklMAE's decoder (CHARON, ICPR 2024): from the tuples that were kept to the coordinates of the whole clip."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.encoders.sttformer.layers import from_tuples, position_code
from mmcl.encoders.sttformer.network import STTFormer, tuple_layers

TINY = ((64, 64), (32, 32), (32, 16))


class TupleDecoder(nn.Module):
    """Kept tuples, a learned vector in the place of each that is missing, position code, layers, coordinates.

    With CHARON's "tiny" network it has 276,053 parameters. (The released one carries an input map, a classifier and a
    vector for absent persons that it does not use: 2,780 more at 60 classes.)

    Args:
        encoder: whose tuples are decoded; only its sizes are taken.
        layers: (channels out, channels of a query) of each layer. For STTFormer's own size CHARON has (128, 64),
            (64, 32), (64, 16).
    """

    positions: Tensor

    def __init__(self, encoder: STTFormer, layers: tuple[tuple[int, int], ...] = TINY) -> None:
        super().__init__()
        options, width = encoder.options, encoder.feature_width
        tokens = options.tuple_frames * encoder.layout.joint_count
        self.frames = options.tuple_frames
        self.missing = nn.Parameter(torch.zeros(width))
        self.register_buffer("positions", position_code(tokens, width), persistent=False)
        self.layers = tuple_layers(options, width, layers, tokens)
        self.coordinates = nn.Conv2d(layers[-1][0], options.channels, 1)
        nn.init.kaiming_normal_(self.coordinates.weight, mode="fan_out")

    def place(self, kept: Tensor, restore: Tensor) -> Tensor:
        """(B, D, T'', V') kept tuples, (B, T') where each lies among [kept, missing] -> (B, D, T', V') in order."""
        B, D, count, V = kept.shape
        missing = self.missing.to(kept.dtype)[:, None, None].expand(B, D, restore.shape[1] - count, V)
        shuffled = torch.cat([kept, missing], dim=2)
        return shuffled.gather(2, restore[:, None, :, None].expand(-1, D, -1, V)) + self.positions

    def forward(self, kept: Tensor, restore: Tensor, frames: int | None = None) -> Tensor:
        """Reconstruct bodies.

        Args:
            kept: (B, D, T'', V') the encoder's tuples, in the order in which they were kept.
            restore: (B, T') for each tuple, in order, its place among the kept ones followed by the missing ones.
            frames: T, where the last tuple was filled up; None: all frames of all tuples.

        Returns:
            (B, T, V, C).
        """
        tuples = self.place(kept, restore)
        for layer in self.layers:
            tuples = layer(tuples)
        return from_tuples(self.coordinates(tuples), self.frames)[:, :frames]
