"""What follows pooled relations: dense layers on every window, then LSTMs over the windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.encoders.arn_lstm.options import ARNLSTMOptions


class LSTM(nn.Module):
    """An LSTM as Keras has it: one bias, and one dropout mask of inputs for all steps of a clip.

    It is written out since :class:`torch.nn.LSTM` has two biases, and since torch.compile breaks its graph there.

    Args:
        width_in: of inputs.
        width: of states.
        dropout: of inputs.
    """

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.width, self.dropout = width, dropout
        self.inputs = nn.Linear(width_in, 4 * width)  # rows: gates i, f, g, o
        self.states = nn.Linear(width, 4 * width, bias=False)
        nn.init.xavier_uniform_(self.inputs.weight)
        nn.init.orthogonal_(self.states.weight)
        nn.init.zeros_(self.inputs.bias)
        nn.init.ones_(self.inputs.bias[width : 2 * width])  # what was there is kept at first

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, width), the state after each step."""
        if self.training and self.dropout:
            x = x * F.dropout(torch.ones_like(x[:, :1]), self.dropout)
        steps = self.inputs(x)
        state = cell = steps.new_zeros(x.shape[0], self.width)
        found = []
        for step in steps.unbind(dim=1):
            enter, keep, new, leave = (step + self.states(state)).chunk(4, dim=1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(new)
            state = torch.sigmoid(leave) * torch.tanh(cell)
            found.append(state)
        return torch.stack(found, dim=1)


class Tail(nn.Module):
    """f, and the LSTMs behind it.

    Args:
        width_in: of pooled relations.
        dense_widths: of the dense layers, each followed by a ReLU.
        lstms: how many; 0: there is one window.
        lstm_width: of each.
        dropout: before the first dense layer, and of the inputs of LSTMs.
        dense_dropout: also before the other dense layers.
        masked: windows that a clip lacks are left out; otherwise they come first.
    """

    def __init__(
        self, width_in: int, dense_widths: Sequence[int], lstms: int, lstm_width: int, dropout: float,
        dense_dropout: bool, masked: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.masked, self.dense_dropout = masked, dense_dropout
        self.dropout = nn.Dropout(dropout)
        widths = (width_in, *dense_widths)
        self.dense = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, dense_widths, strict=False))
        inputs = (dense_widths[-1], *[lstm_width] * lstms)
        self.lstms = nn.ModuleList(LSTM(width, lstm_width, dropout) for width in inputs[:lstms])
        self.width = inputs[-1]

    def forward(self, pooled: Tensor, real: Tensor) -> Tensor:
        """(N, L, D) pooled relations and (N, L) windows that are there -> (N, width)."""
        x = self.windowed(pooled)
        if not self.lstms:
            return x[:, 0]
        last = real.sum(dim=1) - 1
        if not self.masked:
            x = _last_come_last(x, last)
        for lstm in self.lstms:
            x = lstm(x)
        if not self.masked:
            return x[:, -1]
        return x[torch.arange(x.shape[0], device=x.device), last]

    def first(self, pooled: Tensor) -> Tensor:
        """(…, D) -> (…, D'), behind the first dense layer."""
        return F.relu(self.dense[0](self.dropout(pooled)))

    def windowed(self, pooled: Tensor) -> Tensor:
        """(…, D) -> (…, D'), behind the last dense layer."""
        x = self.first(pooled)
        for layer in list(self.dense)[1:]:
            x = F.relu(layer(self.dropout(x) if self.dense_dropout else x))
        return x


def _last_come_last(x: Tensor, last: Tensor) -> Tensor:
    """Turn (N, L, D), whose first windows are real, so that the real ones come last; ``last`` (N,) is the last real."""
    L = x.shape[1]
    place = (torch.arange(L, device=x.device) + 1 + last[:, None]) % L
    return x[torch.arange(x.shape[0], device=x.device)[:, None], place]


def tail_of(width: int, options: ARNLSTMOptions, first: bool = False) -> Tail:
    """All that follows pooled relations of a width, or its first dense layer alone."""
    return Tail(
        width, options.dense_widths[:1] if first else options.dense_widths, 0 if first else options.lstms,
        options.lstm_width, options.dropout, options.dense_dropout, options.masked and not options.released,
    )  # fmt: skip


class AveragedClassifiers(nn.ModuleList):
    """Classifiers of equal parts of the features, whose probabilities are averaged."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K), logarithms of the average."""
        parts = features.chunk(len(self), dim=-1)
        rows = torch.stack([layer(part).log_softmax(dim=-1) for layer, part in zip(self, parts, strict=True)])
        return rows.logsumexp(dim=0) - math.log(len(self))
