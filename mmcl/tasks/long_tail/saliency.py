"""How much each coalition of body parts tells of each class, estimated while training (Shap-Mix, IJCAI 2024).

The value of some parts is the chance of the true class when only they move and all others hold still, as they do in the
mean of the training clips. What a coalition adds to a drawn context of others is its saliency.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.common.distributed import gather_rows

SCALE = 10.0  # a coalition of ten joints counts its saliency once
MEMORY = 0.9  # of the moving average
START = 1e-6


def only(x: Tensor, background: Tensor, joints: Tensor) -> Tensor:
    """Clips of which only some joints are theirs.

    Args:
        x: (N, M, T, V, C).
        background: (M, T, V, C), for all other joints.
        joints: (V,) True where a joint is the clip's own.
    """
    return torch.where(joints.to(x.device)[:, None], x, background.to(x))


def added_chance(chances: Tensor, without: Tensor, labels: Tensor, released: bool = False) -> Tensor:
    """What the coalition adds to the chance of each clip's class.

    Args:
        chances: (N, K) softmax of the scores with coalition and context.
        without: (N, K) or (1, K) softmax of the scores with the context alone.
        labels: (N,).
        released: count what takes chance away as nothing, as the released code does. The mean over contexts is then no
            Shapley value: it is too large, and the parts' values do not add up to the whole.

    Returns:
        (N,).
    """
    rows = torch.arange(len(labels), device=labels.device)
    added = chances[rows, labels] - without.expand_as(chances)[rows, labels]
    return added.relu() if released else added


def of_all_processes(labels: Tensor, rows: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """Classes and gains of the clips that all processes looked at, in order of rank; collective.

    Processes look at differently many clips, and rows that are gathered are equally many on each. So each gives all of
    its clips, and says which were looked at.

    Args:
        labels: (N,) of this process's clips, as many as on every other process.
        rows: (n,) those that were looked at.
        added: (n,) from :func:`added_chance`.
    """
    table = added.new_zeros(len(labels), 2)  # a gain, and 1 where there is one
    table[rows] = torch.stack([added, torch.ones_like(added)], dim=1)
    table, labels = gather_rows(table, "saliency"), gather_rows(labels, "saliency")
    seen = table[:, 1] > 0
    return labels[seen], table[seen, 0]


class PartSaliency(nn.Module):
    """Moving averages of saliencies, in a buffer of fixed size.

    Args:
        classes: K.
        coalitions: Q.
    """

    values: Tensor

    def __init__(self, classes: int, coalitions: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.full((classes, coalitions), START))

    @torch.no_grad()
    def update(self, coalition: int, joints: int, labels: Tensor, added: Tensor, memory: float = MEMORY) -> None:
        """Take in what a coalition adds to clips, one clip after the other.

        Args:
            coalition: its number.
            joints: how many it has; saliency is counted by ten joints.
            labels: (N,) classes of the clips.
            added: (N,) from :func:`added_chance`.
            memory: share of the former value that is kept; 0 replaces it, which the released code does in its first
                six epochs.
        """
        same = labels[:, None] == labels[None, :]
        later = torch.triu(same, diagonal=1).sum(dim=1)  # clips of the class that come after each
        weight = (1 - memory) * torch.pow(torch.tensor(memory, device=labels.device, dtype=self.values.dtype), later)
        seen = torch.bincount(labels, minlength=len(self.values))
        column = self.values[:, coalition] * torch.pow(self.values.new_tensor(memory), seen)
        self.values[:, coalition] = column.index_add(0, labels, weight * added.to(weight.dtype) * (SCALE / joints))
