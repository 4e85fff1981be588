"""The text head that projects features into the space of texts, where a class is the text that is most similar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.models.text_head import TextHead


def projection(width_in: int, width_out: int) -> nn.Sequential:
    """The paper's M_align (MMCL, ACM MM 2024): Linear, ReLU, Linear, at the width of the space it maps to."""
    return nn.Sequential(nn.Linear(width_in, width_out), nn.ReLU(), nn.Linear(width_out, width_out))


@dataclass(frozen=True)
class ProjectionOptions:
    """Options of :class:`ProjectionHead`.

    Attributes:
        temperature: what cosines are divided by.
        learned: the temperature is learned, as SigLIP does; then the one above only counts before training.
    """

    temperature: float = 0.1
    learned: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise UserError(f"the temperature of a text head must be positive, not {self.temperature}")


class ProjectionHead(TextHead):
    """A projection into the space of texts; scores are cosines over a temperature.

    Args:
        features: Df.
        width: D.
        options: see :class:`ProjectionOptions`.

    Attributes:
        project: (N, Df) -> (N, D), the part that is trained.
        origin: (D,) mean text of the trained classes where a class is known by how its text differs from it, else
            zeros. Texts that say little of their own would otherwise lose to the others.
        log_scale: scalar, the logarithm of one over the temperature, where that is learned; else None.
    """

    options_type: ClassVar[type] = ProjectionOptions
    origin: Tensor

    def __init__(self, features: int, width: int, options: ProjectionOptions | None = None) -> None:
        options = options or ProjectionOptions()
        super().__init__(features, width, options)
        self.project = projection(features, width)
        self.register_buffer("origin", torch.zeros(width))
        start = -math.log(options.temperature)
        self.log_scale = nn.Parameter(torch.tensor(start)) if options.learned else None

    @property
    def temperature(self) -> float:
        """What cosines are divided by."""
        return self.options.temperature if self.log_scale is None else float(torch.exp(-self.log_scale.detach()))

    def embed(self, features: Tensor) -> Tensor:
        """(N, Df) -> (N, D) of length 1, where texts are."""
        return F.normalize(self.project(widen(features)), dim=-1)

    def fit(self, rows: Tensor) -> Tensor:
        """(n, D) -> (n, D): each text less :attr:`origin`, brought to unit length."""
        return F.normalize(rows.to(self.origin.dtype) - self.origin.to(rows.device), dim=-1)

    def scores(self, features: Tensor, fitted: Tensor) -> Tensor:
        """Cosine / temperature of (N, Df) features with (n, D) texts: (N, n)."""
        cosines = self.embed(features) @ F.normalize(fitted.to(features.device, self.origin.dtype), dim=-1).T
        return cosines / self.temperature if self.log_scale is None else cosines * self.log_scale.exp()
