"""Mixed clips of a batch that is spread over processes: who is mixed with whom, where, and how the labels share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmcl.common.distributed import gather_rows, rank
from mmcl.encoders.bodies import present_bodies
from mmcl.tasks.long_tail.part_mix import Window, mixup, paste, pasted_share


class Mixed(NamedTuple):
    """Mixed clips.

    Attributes:
        x: (n, M, T, V, C).
        other: (n,) classes of the partners.
        share: (n,) weight of the partner's class.
    """

    x: Tensor
    other: Tensor
    share: Tensor


class WholeBatch:
    """The clips of all processes in order of rank, of which each process mixes its own with any others.

    Args:
        x: (n, M, T, V, C) of this process; collective.
        labels: (n,).

    Attributes:
        x: (N, M, T, V, C) of all processes.
        labels: (N,).
        own: rows of this process.
    """

    def __init__(self, x: Tensor, labels: Tensor) -> None:
        start = rank() * len(x)
        self.own = slice(start, start + len(x))
        self.x, self.labels = gather_rows(x, "mixing"), gather_rows(labels, "mixing")

    def whole(self, partner: Tensor, share: float, released: bool) -> Mixed:
        """Mixup of each clip of this process with its partner; see :meth:`_in_bodies`.

        Args:
            partner: (N,) rows.
            share: of the partner.
            released: whether slots that are empty in either clip are mixed, too.
        """
        return self._in_bodies(mixup(self.x, partner, share), partner, torch.tensor(share), released)

    def parts(self, partner: Tensor, joints: Tensor, window: Window, released: bool) -> Mixed:
        """Joints (V,) or (N, V) of a window pasted from each clip's partner; other arguments as of :meth:`whole`."""
        share = pasted_share(window, joints, self.x.shape[2]).to(self.x.device)
        return self._in_bodies(paste(self.x, partner, window, joints), partner, share, released)

    def _in_bodies(self, mixed: Tensor, partner: Tensor, share: Tensor, released: bool) -> Mixed:
        """Mix in those slots alone that have a body in both clips, else somebody would come or go in the middle.

        The share of the partner counts among the bodies that the clip has.
        """
        share = share.to(mixed.device).expand(len(mixed))
        if not released:
            there = present_bodies(self.x)
            both = there & there[partner]
            mixed = torch.where(both[:, :, None, None, None], mixed, self.x)
            share = share * both.sum(dim=1) / there.sum(dim=1).clamp(min=1)
        return Mixed(mixed[self.own], self.labels[partner][self.own], share[self.own])
