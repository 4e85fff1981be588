"""ARN-LSTM as it is released: the perceptron is called once for each pair of objects, on both of them side by side."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from mmcl.encoders.arn_lstm.network import ARNLSTM
from mmcl.encoders.arn_lstm.objects import arrange
from mmcl.encoders.arn_lstm.relations import Stream


class PlainARNLSTM(nn.Module):
    """The function of an encoder, pair by pair, every window of every clip computed.

    Args:
        encoder: whose weights and mode are copied.
    """

    def __init__(self, encoder: ARNLSTM) -> None:
        super().__init__()
        self.encoder = deepcopy(encoder)

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, K)."""
        encoder = self.encoder
        windows = encoder.cut(x)
        pooled = []
        for name, stream in encoder.streams.items():
            objects = arrange(name, windows, encoder.identity)
            found = relate_pair_by_pair(cast("Stream", stream), objects.flatten(0, 1))
            pooled.append(found.unflatten(0, objects.shape[:2]))
        return encoder.head(encoder.join(pooled, windows.real))


def relate_pair_by_pair(stream: Stream, objects: Tensor) -> Tensor:
    """(B, n, D) objects of a stream -> (B, groups * W) pooled relations, one call of the perceptron for each pair."""
    if stream.first is None or stream.second is None:
        alone = [_perceptron(stream, objects[:, place]) for place in range(objects.shape[1])]
        return stream.pool(torch.stack(alone, dim=1))
    relations = []
    for i, j in zip(stream.first.tolist(), stream.second.tolist(), strict=True):
        one, other = objects[:, i], objects[:, j]
        parts = [one, other]
        points = stream.relation.points * stream.relation.channels
        first, second = (x[:, :points].unflatten(1, (-1, stream.relation.channels)) for x in (one, other))
        if stream.relation.distances:
            parts.append((first - second).square().sum(dim=-1).sqrt())
        if shift := stream.relation.shift:
            parts.append((first[:, :-shift] - second[:, shift:]).square().sum(dim=-1).sqrt())
        relations.append(_perceptron(stream, torch.cat(parts, dim=1)))
    groups = torch.stack(relations, dim=1).split(stream.sizes or [], dim=1)
    return torch.cat([stream.pool(group) for group in groups], dim=1)


def _perceptron(stream: Stream, x: Tensor) -> Tensor:
    for layer in stream.relation.layers:
        x = torch.relu(layer(x))
    return x
