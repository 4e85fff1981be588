"""Coalitions of body parts, as Shap-Mix (Zhang et al., IJCAI 2024) counts them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from mmcl.common.errors import UserError

LEAST_PARTS = 4  # so that two parts are pasted and two are left


class Coalitions:
    """All sets of at least two parts that leave at least two: 20 of five parts, pairs before triples.

    Args:
        parts: joints of each part.
        joints: V.

    Attributes:
        members: (Q, P) True where a part belongs to a coalition.
        joints: (Q, V) True where a joint belongs to one.
        complement: (Q,) for each coalition, that of all other parts.
        names: of each, the numbers of its parts.

    Raises:
        UserError: fewer than four parts, so that there is none.
    """

    def __init__(self, parts: Sequence[Sequence[int]], joints: int) -> None:
        count = len(parts)
        if count < LEAST_PARTS:
            raise UserError(f"parts are mixed where a layout has at least {LEAST_PARTS} of them, not {count}")
        self.names = [some for size in range(2, count - 1) for some in combinations(range(count), size)]
        self.parts = torch.zeros(count, joints, dtype=torch.bool)
        for part, members in enumerate(parts):
            self.parts[part, list(members)] = True
        self.members = torch.zeros(len(self.names), count, dtype=torch.bool)
        for number, some in enumerate(self.names):
            self.members[number, list(some)] = True
        self.joints = (self.members[:, :, None] & self.parts).any(dim=1)
        place = {some: number for number, some in enumerate(self.names)}
        everything = set(range(count))
        self.complement = torch.tensor([place[tuple(sorted(everything - set(some)))] for some in self.names])

    def __len__(self) -> int:
        """Q."""
        return len(self.names)

    def joints_of(self, parts: Sequence[int] | Tensor) -> Tensor:
        """(V,) True where a joint belongs to one of some parts, by number."""
        return self.parts[torch.as_tensor(parts, dtype=torch.long)].any(dim=0)


def draw_context(members: Tensor, first: float, order: Tensor) -> list[int]:
    """Other parts beside a coalition: as many as is drawn evenly from none to all, then which.

    Over draws, the mean of what a coalition adds to its context is the Shapley value that it has as one player among
    the remaining parts.

    Args:
        members: (P,) True where a part belongs to the coalition.
        first: uniform in [0, 1).
        order: (P,) uniform in [0, 1).
    """
    others = (~members).nonzero().squeeze(1)
    count = int(first * (len(others) + 1))
    return others[order[others].argsort(stable=True)[:count]].tolist()
