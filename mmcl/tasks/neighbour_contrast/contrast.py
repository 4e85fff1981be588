"""Nearest-neighbour contrast as in STARS (arXiv 2407.10935), after NNCLR (Dwibedi et al., ICCV 2021).

A clip's prediction shall find, among the predictions of the whole batch, its own by the nearest neighbour that the
clip's other view has in a queue of earlier clips. STARS gives both views the same input, without augmentation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.encoders.mamp.blocks import init_dense

NOBODY = -1  # owner of a vector that no clip has put into the queue


class ContrastHead(nn.Module):
    """STARS' head: the projector is a batch norm alone, the predictor two dense layers around another.

    At width 256 and hidden 4096 it has 2,106,112 parameters, as the published one.

    Args:
        width: D of features, of projections and of predictions.
        hidden: of the predictor.
    """

    def __init__(self, width: int, hidden: int = 4096) -> None:
        super().__init__()
        self.projector = nn.BatchNorm1d(width)
        self.predictor = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width)
        )
        init_dense(self)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) -> projections (N, D) and predictions (N, D), both of length 1."""
        projected = self.projector(features)
        return F.normalize(projected, dim=1), F.normalize(self.predictor(projected), dim=1)


class NeighbourQueue(nn.Module):
    """Projections of the last clips with the clips' ids: fixed buffers that are changed in place, first in first out.

    It starts full of random directions that belong to nobody; they are neighbours like all others, as released.

    Args:
        size: Q, vectors that are held.
        width: D.
        generator: of the random directions, for a start that is the same on all processes.
    """

    vectors: Tensor
    owners: Tensor
    position: Tensor

    def __init__(self, size: int, width: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("vectors", F.normalize(torch.randn(size, width, generator=generator), dim=1))
        self.register_buffer("owners", torch.full((size,), NOBODY))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def similarity(self, projected: Tensor, owners: Tensor) -> Tensor:
        """Cosine of projections (N, D) to what is held, (N, Q); -1 to what has the same owner (N,)."""
        similar = projected @ self.vectors.to(projected.dtype).T
        return similar.masked_fill(self.owners == owners[:, None], -1.0)

    @torch.no_grad()
    def find(self, projected: Tensor, owners: Tensor, choice: Tensor | None = None, among: int = 1) -> Tensor:
        """Where the nearest vector of another clip is held, for each projection.

        Args:
            projected: (N, D) of length 1.
            owners: (N,) ids of the clips that they come from.
            choice: (N,) which of the ``among`` nearest to take, 0 the nearest; None takes that for all.
            among: how many candidates there are.

        Returns:
            (N,) places in the queue.
        """
        similar = self.similarity(projected, owners)
        if choice is None:
            return similar.argmax(dim=1)
        return similar.topk(among, dim=1).indices.gather(1, choice[:, None]).squeeze(1)

    def nearest(self, projected: Tensor, owners: Tensor, choice: Tensor | None = None, among: int = 1) -> Tensor:
        """(N, D) the vectors at the places that :meth:`find` gives."""
        return self.vectors[self.find(projected, owners, choice, among)]

    @torch.no_grad()
    def push(self, projected: Tensor, owners: Tensor) -> None:
        """Replace the oldest vectors by (n, D) new ones of (n,) owners; of more than the size, the last are held.

        With several processes, all of them push the rows of all, in the same order.
        """
        size = len(self.vectors)
        first = max(0, len(projected) - size)
        places = (self.position + torch.arange(first, len(projected), device=self.position.device)) % size
        self.vectors[places] = projected[first:].to(self.vectors.dtype)
        self.owners[places] = owners[first:]
        self.position.add_(len(projected)).remainder_(size)


def neighbour_loss(neighbours: Tensor, predicted: Tensor, temperature: float, first: int = 0) -> Tensor:
    """Cross-entropy of finding a clip's prediction among all by its neighbour.

    Args:
        neighbours: (n, D) of this process's clips.
        predicted: (N, D) predictions of the clips of all processes, in order.
        temperature: cosines are divided by it.
        first: where this process's clips begin among all.

    Returns:
        Scalar, the mean over this process's clips.
    """
    own = torch.arange(first, first + len(neighbours), device=predicted.device)
    return F.cross_entropy(neighbours.to(predicted.dtype) @ predicted.T / temperature, own)


def two_view_loss(first: Tensor, second: Tensor, released: bool = False) -> Tensor:
    """Mean of the losses of both directions.

    Args:
        first: of the first view's predictions, found by the second view's neighbours.
        second: of the second view's predictions, found by the first view's neighbours.
        released: let nothing flow back through the second view. The released code puts the second view's rows back into
            order outside the graph: the loss has the same value, its gradient is that of half of ``first``.
    """
    return 0.5 * (first + (second.detach() if released else second))
