"""Open vocabulary: the skeleton's embedding in the joint space is pulled towards the text of the clip's own class.

What is learned of the seen classes' texts carries over to texts of classes that were never trained: there, a clip is
given the class whose text its embedding is most similar to. The loss is cross-entropy over cosines with the texts of
the classes that are trained, as in GAP (ICCV 2023) and other skeleton-language models; features may be mixed on the way
(manifold mixup, ICML 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.common.distributed import gather_rows, rank
from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.data.class_texts import Prompts
from mmcl.towers.clip import ClipOptions
from mmcl.towers.text import TextOptions, build_text_tower, class_rows


@dataclass(frozen=True)
class SemanticsOptions(TextOptions):
    """Options of the alignment with class texts.

    Attributes:
        weight: of its loss in the total; 0 leaves it out.
        temperature: that cosines are divided by.
        source: clip: the text tower of `task.clip`; sentence: a sentence encoder.
        model: folder or hub name of the sentence encoder.
        mixing: clips' features are mixed in pairs, with shares from Beta(mixing, mixing), before they are projected,
            and answer to both texts in these shares: a few classes then cover the space between them. 0 does not mix.
        centred: judge by how a class's text differs from the mean text of the trained classes, brought to unit length.
            In training that mean is the same for all candidates and cannot matter; afterwards, among other classes,
            those whose texts say little of their own would lose to the others.
    """

    weight: float = 0.0
    temperature: float = 0.1
    mixing: float = 0.0
    centred: bool = False

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key.
        """
        for key in ("weight", "mixing"):
            if not 0 <= getattr(self, key) < math.inf:
                raise UserError(f"task.text.{key} is {getattr(self, key)}: it must be 0 or more")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"task.text.temperature is {self.temperature}: it must be more than 0")


class Semantics(nn.Module):
    """Cross-entropy over cosines between embeddings and the texts of the trained classes.

    Args:
        rows: (K, D) unit-length texts of the trained classes.
        options: temperature and mixing.
    """

    rows: Tensor

    def __init__(self, rows: Tensor, options: SemanticsOptions) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, features: Tensor, labels: Tensor, project: nn.Module, draws: Tensor) -> Tensor:
        """Mean loss of this process's clips.

        Args:
            features: (n, Df) of the encoder.
            labels: (n,) positions among the rows.
            project: (n, Df) -> (n, D), into the space of the texts.
            draws: (n, 2) uniform in [0, 1), for partners and for shares; partners come from all processes.
        """
        if not (self.training and self.options.mixing):
            return self._loss(project(features), labels).mean()
        share = beta_shares(draws[:, 1], self.options.mixing)
        order = gather_rows(draws[:, 0], "mixing").argsort(stable=True)
        partner = order[rank() * len(labels) :][: len(labels)]
        others, theirs = gather_rows(features, "mixing")[partner], gather_rows(labels, "mixing")[partner]
        embedding = project(torch.lerp(others, features, share[:, None].to(features.dtype)))
        both = share * self._loss(embedding, labels) + (1 - share) * self._loss(embedding, theirs)
        return both.mean()

    def _loss(self, embedding: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(embedding.device.type, enabled=False):  # similarities in float32, whatever the precision
            cosines = F.normalize(widen(embedding), dim=-1) @ self.rows.T
            return F.cross_entropy(cosines / self.options.temperature, labels, reduction="none")


def beta_shares(draws: Tensor, mixing: float) -> Tensor:
    """(n,) uniform draws -> (n,) float32 draws from Beta(mixing, mixing), by its quantile function."""
    from scipy.special import betaincinv

    shares = torch.from_numpy(betaincinv(mixing, mixing, draws.double().cpu().numpy()))
    return shares.to(draws.device, torch.float32)


def class_table(options: TextOptions, clip: ClipOptions, prompts: Prompts, device: torch.device) -> Tensor:
    """(K, D) unit-length text embeddings of a data set's classes, each the mean over all of its texts.

    Raises:
        UserError: the text tower cannot be loaded.
    """
    tower = build_text_tower(options, clip).to(device)
    return class_rows(tower.encode_text, [prompts.texts(label) for label in range(len(prompts.names))])
