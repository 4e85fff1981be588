"""Absent persons: which bodies of a batch are computed, and where their results go.

An absent person is a body of zeros, and all absent persons of a slot look the same to the network, so that one of them
stands for all. Evaluation is exactly the published network's. In training, batch norms behind the first see that one
body where the published network sees each of them, so that their statistics are, nearly, those of the persons who are
there. The first batch norm, on the input, sees every slot as published.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

EMPTY_BODIES = ("once", "each")
_EVERY: ContextVar[bool] = ContextVar("computing every body", default=False)


class Packing(NamedTuple):
    """Which bodies are computed.

    Attributes:
        rows: (B,) those of the N * M bodies that are.
        places: (N * M,) for every body, the one of these that it equals.
    """

    rows: Tensor
    places: Tensor


def present_bodies(x: Tensor) -> Tensor:
    """(N, M, T, V, C) -> (N, M), True where a body is not all zeros."""
    return (x != 0).flatten(2).any(dim=2)


def present_frames(x: Tensor) -> Tensor:
    """(N, M, T, V, C) -> (N, M, T), True where a frame of a body is not all zeros, as behind a padded clip."""
    return (x != 0).flatten(3).any(dim=3)


@contextmanager
def computing_every_body() -> Iterator[None]:
    """Within it no body, and nothing else, stands for others like it, wherever that is free to choose.

    Gradients by the input then reach every body, and shapes inside a network do not depend on who is there.
    """
    token = _EVERY.set(True)
    try:
        yield
    finally:
        _EVERY.reset(token)


def each_is_computed() -> bool:
    """Whether nothing is to stand for others like it.

    A compiler that traces cannot have it, since a number of rows that depends on the data breaks the graph; and
    somebody may have asked by :func:`computing_every_body`.
    """
    return torch.compiler.is_compiling() or _EVERY.get()


class Bodies(NamedTuple):
    """Which bodies of a batch are computed where absent persons take no part, and where the results go.

    Attributes:
        present: (N, M) which persons count.
        rows: (B,) those of the N * M bodies that are computed; None: all.
    """

    present: Tensor
    rows: Tensor | None

    @classmethod
    def counting(cls, present: Tensor, dense: bool) -> Bodies:
        """The bodies of the persons (N, M) who count; ``dense``: all, as a traced graph needs."""
        return cls(present, None if dense else present.flatten().nonzero().squeeze(1))

    def pick(self, everybody: Tensor) -> Tensor:
        """(N, M, …) -> (B, …)."""
        flat = everybody.flatten(0, 1)
        return flat if self.rows is None else flat[self.rows]

    def spread(self, found: Tensor, absent: float = 0.0) -> Tensor:
        """(B, …) -> (N, M, …), with a value for persons who do not count."""
        if self.rows is not None:
            shape = (self.present.numel(), *found.shape[1:])
            found = found.new_full(shape, absent).index_copy(0, self.rows, found)
        there = self.present.view(*self.present.shape, *[1] * (found.dim() - 1))
        return found.unflatten(0, self.present.shape).masked_fill(~there, absent)

    def most(self, found: Tensor) -> Tensor:
        """(B, …) -> (N, …): the maximum over the persons who count."""
        return self.spread(found, -torch.inf).amax(dim=1)

    def mean(self, found: Tensor) -> Tensor:
        """(B, D) -> (N, D): the mean over the persons who count; 0 where nobody does."""
        return self.spread(found).sum(dim=1) / self.present.sum(dim=1, keepdim=True).clamp(min=1)


def pack(x: Tensor, exact: bool) -> Packing | None:
    """Choose the bodies to compute: those that are there, and of each slot the first that is empty.

    Args:
        x: (N, M, T, V, C), as the encoder gets it.
        exact: whether the choice changes nothing but the time it takes, so that it may be left.

    Returns:
        None if all bodies are to be computed: there is nothing to save, or the choice is free and
        :func:`each_is_computed`.
    """
    if exact and each_is_computed():
        return None
    present = present_bodies(x)
    first = ~present & ((~present).cumsum(dim=0) == 1)
    chosen = (present | first).flatten()
    rows = chosen.nonzero().squeeze(1)
    if len(rows) == len(chosen):
        return None
    place = (chosen.cumsum(dim=0) - 1).view_as(present)
    return Packing(rows, torch.where(present, place, (place * first).sum(dim=0)).flatten())
