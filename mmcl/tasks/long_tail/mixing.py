"""Mixed clips of a batch that is spread over processes: who is mixed with whom, where, and how the labels share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmcl.common.distributed import gather_rows, rank
from mmcl.encoders.bodies import present_frames
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
        """Mixup of each clip of this process with its partner.

        Args:
            partner: (N,) rows.
            share: of the partner.
            released: whether slots and frames that are empty in either clip are mixed, too; otherwise somebody would
                come or go in the middle of a clip, or fill a part of what is padded.
        """
        if released:
            return self._own(mixup(self.x, partner, share), partner, torch.tensor(share))
        there = present_frames(self.x)
        both = there & there[partner]
        mixed = torch.where(both[..., None, None], mixup(self.x, partner, share), self.x)
        return self._own(mixed, partner, share * both.sum(dim=(1, 2)) / there.sum(dim=(1, 2)).clamp(min=1))

    def parts(self, partner: Tensor, joints: Tensor, window: Window, released: bool) -> Mixed:
        """Joints (V,) or (N, V) of a window pasted from each clip's partner; other arguments as of :meth:`whole`.

        The share of the partner counts among the frames of bodies that the clip has.
        """
        mixed = paste(self.x, partner, window, joints)
        if released:
            return self._own(mixed, partner, pasted_share(window, joints, self.x.shape[2]))
        there = present_frames(self.x)
        # Which of these frames a paste would overwrite, and whether the partner has a body in what it takes.
        every = torch.ones(1, dtype=torch.bool)
        taken = paste(there[..., None], partner, window, every)[..., 0]
        inside = torch.zeros_like(there)
        inside[:, :, window.start : window.start + window.length] = True
        kept = there & taken & inside
        mixed = torch.where(kept[..., None, None], mixed, self.x)
        part = joints.to(self.x.device).sum(dim=-1) / joints.shape[-1]
        return self._own(mixed, partner, part * kept.sum(dim=(1, 2)) / there.sum(dim=(1, 2)).clamp(min=1))

    def _own(self, mixed: Tensor, partner: Tensor, share: Tensor) -> Mixed:
        """What concerns the clips of this process."""
        share = share.to(mixed.device).expand(len(mixed))
        return Mixed(mixed[self.own], self.labels[partner][self.own], share[self.own])
