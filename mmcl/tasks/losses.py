"""Contrastive losses between two sets of embeddings, over the global batch, with exact gradients.

Row i of ``a`` and row i of ``b`` belong to one clip. Each process compares its own rows with the rows of all
processes: memory grows linearly with their number, and the mean over processes is the loss of the whole batch. All
similarities are cosines. ``labels`` switches on the supervised variant: clips of one class are no negatives.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.common.distributed import gather_rows, rank
from mmcl.common.precision import widen


def _own(n: int, device: torch.device) -> Tensor:
    """(n,) positions of this process's rows among all rows."""
    return torch.arange(n, device=device) + rank() * n


def _gathered(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both (n, D) modalities at unit length, and the rows of all processes, which travel in one message."""
    a, b = F.normalize(widen(a), dim=-1), F.normalize(widen(b), dim=-1)
    every_a, every_b = gather_rows(torch.cat([a, b], dim=1)).chunk(2, dim=1)
    return a, b, every_a, every_b


def _same_class(labels: Tensor | None, n: int, total: int, device: torch.device) -> Tensor:
    """(n, total) True where a pair of different clips shares a class and must not count as negative."""
    if labels is None:
        return torch.zeros(n, total, dtype=torch.bool, device=device)
    same = labels[:, None] == gather_rows(labels)[None, :]
    same[torch.arange(n, device=device), _own(n, device)] = False
    return same


def nt_xent(a: Tensor, b: Tensor, temperature: float = 0.4, labels: Tensor | None = None) -> Tensor:
    """NT-Xent with negatives of both modalities: MMCL's alignment loss (specification of ACM MM 2024, section L_c).

    For aligned, mutually orthogonal rows it is log(1 + 2 (N - 1) e^(-1 / temperature)).

    Args:
        a: (n, D) one modality, this process's rows.
        b: (n, D) the other.
        temperature: tau.
        labels: (n,) classes for the supervised variant, or None.

    Returns:
        Scalar, the mean over this process's rows and both directions.
    """
    a, b, all_a, all_b = _gathered(a, b)
    n, total = len(a), len(all_a)
    own = _own(n, a.device)
    ignore = _same_class(labels, n, total, a.device)
    itself = ignore.index_put((torch.arange(n, device=a.device), own), torch.tensor(True, device=a.device))
    hidden = torch.cat([ignore, itself], dim=1)  # of the other modality; of one's own

    def one_way(x: Tensor, all_x: Tensor, all_y: Tensor) -> Tensor:
        similar = (x / temperature) @ torch.cat([all_y, all_x]).T  # (n, 2 total): all that grows with the processes
        return F.cross_entropy(similar.masked_fill_(hidden, -math.inf), own)

    return 0.5 * (one_way(a, all_a, all_b) + one_way(b, all_b, all_a))


def info_nce(a: Tensor, b: Tensor, temperature: float = 0.07, labels: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE, CLIP's loss (arXiv 2103.00020): negatives of the other modality only. Same arguments."""
    a, b, all_a, all_b = _gathered(a, b)
    own = _own(len(a), a.device)
    ignore = _same_class(labels, len(a), len(all_a), a.device)
    forth = F.cross_entropy(((a / temperature) @ all_b.T).masked_fill_(ignore, -math.inf), own)
    back = F.cross_entropy(((b / temperature) @ all_a.T).masked_fill_(ignore, -math.inf), own)
    return 0.5 * (forth + back)


SIGLIP_SCALE = 10.0  # that it starts with


class SigLIP(nn.Module):
    """Pairwise sigmoid loss (arXiv 2303.15343) with its learnable scale (starts at 10) and bias (starts at -10).

    Args:
        own_scale: false where the scale belongs to another module, which then gives it to every call.
    """

    def __init__(self, own_scale: bool = True) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(SIGLIP_SCALE))) if own_scale else None
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, a: Tensor, b: Tensor, labels: Tensor | None = None, log_scale: Tensor | None = None) -> Tensor:
        """(n, D) and (n, D) -> scalar: sum over all pairs of a row, mean over this process's rows."""
        scale = self.log_scale if log_scale is None else log_scale
        assert scale is not None, "the scale is another module's, and was not given"
        a, b = F.normalize(widen(a), dim=-1), F.normalize(widen(b), dim=-1)
        all_b = gather_rows(b)
        n = len(a)
        sign = -torch.ones(n, len(all_b), device=a.device)
        sign[torch.arange(n, device=a.device), _own(n, a.device)] = 1.0
        logits = scale.exp() * (a @ all_b.T) + self.bias
        pairs = -F.logsigmoid(sign * logits)
        return pairs.masked_fill(_same_class(labels, n, len(all_b), a.device), 0.0).sum() / n
