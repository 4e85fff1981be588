"""Distillation: beside its own loss, a task's encoder learns what trained models say of the same clips.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531), section 2: scores of
teacher and student are divided by a temperature, and the divergence of their softened probabilities is multiplied by
its square, so that its gradient keeps its size whatever the temperature. Of several teachers, the softened
probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.encoders.base import lean_form
from mmcl.models.model import Model
from mmcl.models.record import Record
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.preprocess import Preprocess


@dataclass(frozen=True)
class DistilOptions:
    """Trained models that teach the encoder beside the labels, in any task that trains its classifier.

    Attributes:
        teacher: run folder, checkpoint or bundle, or a list of them, whose probabilities are averaged; none where
            empty. Streams, window and joints may be others than the encoder's; class names must be the same.
        weight: of what the teachers say, beside the task's own loss.
        temperature: what scores of teachers and encoder are divided by before they are compared.
        ratios: how much each teacher counts, one number a teacher, of which only the ratios matter; all the same where
            not given.
    """

    teacher: list[str] | str = ""
    weight: float = 1.0
    temperature: float = 4.0
    ratios: list[float] = field(default_factory=list)

    @property
    def teachers(self) -> list[str]:
        """Where the teachers are; empty where nobody teaches."""
        return [self.teacher] * bool(self.teacher) if isinstance(self.teacher, str) else list(self.teacher)

    @property
    def shares(self) -> list[float]:
        """How much each teacher counts; the sum is 1."""
        ratios = self.ratios or [1.0] * len(self.teachers)
        return [ratio / sum(ratios) for ratio in ratios]

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key.
        """
        for key in ("weight", "temperature"):
            value = getattr(self, key)
            if not 0.0 < value < float("inf"):
                raise UserError(f"distil.{key} is {value}: it must be positive")
        count, ratios = len(self.teachers), self.ratios
        if len(set(self.teachers)) < count:
            raise UserError("distil.teacher names a model twice: distil.ratios says how much each counts")
        good = all(0.0 <= ratio < float("inf") for ratio in ratios) and sum(ratios) > 0
        if ratios and not (len(ratios) == count and good):
            raise UserError(
                f"distil.ratios is {ratios}: it must be one number for each of {count} teachers, none negative and not "
                "all 0"
            )


def distillation_loss(scores: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """How far an encoder's softened probabilities are from its teachers'.

    Its gradient with respect to the scores is T (softmax(scores / T) - probabilities) / N.

    Args:
        scores: (N, K) of the encoder, unnormalised.
        probabilities: (N, K) of the teachers, softened by the same temperature.
        temperature: T.

    Returns:
        T^2 times the Kullback-Leibler divergence, the mean over clips.
    """
    softened = F.log_softmax(widen(scores) / temperature, dim=1)
    return temperature**2 * F.kl_div(softened, probabilities.to(softened.dtype), reduction="batchmean")


class Teachers(nn.Module):
    """Trained models as they are used: in evaluation, in their lean form, each with its own preprocessing.

    Args:
        models: with the classes of the student, in its order, and its raw joints.
        options: see :class:`DistilOptions`.
        words: what each model is, for people.
        records: what each learned from; ``weights`` is the digest of its tensors.
    """

    def __init__(
        self, models: Sequence[Model], options: DistilOptions, words: Sequence[str] = (), records: Sequence[Record] = ()
    ) -> None:
        super().__init__()
        self.options, self.records = options, list(records)
        self.words = {f"teacher {number}": said for number, said in enumerate(words, start=1)}
        self.preprocess = nn.ModuleList(model.preprocess for model in models)
        self.networks = nn.ModuleList(lean_form(model.encoder, model.preprocess.options.window) for model in models)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Any], augmentation: Augmentation | None, dtype: torch.dtype) -> Tensor:
        """What the teachers say of a training batch.

        They see each clip as it is varied for the student: the same crop, turned by the same angles. So they speak of
        what the student is asked, their doubt about a crop that hides the action included; a teacher that always saw
        the whole clip would ask for answers that are not in the student's input (Beyer et al., "Knowledge
        distillation: A good teacher is patient and consistent", CVPR 2022, arXiv 2106.05237). No input is shared for
        that: random numbers are a function of a clip's key and an augmentation's name, and augmentations change joints
        before streams are made of them.

        Computed in single precision, as exported models are: the folded weights of lean forms are not for autocast.

        Args:
            batch: raw ``joints``, ``lengths`` and ``keys``.
            augmentation: of the step; None where its clips are not varied.
            dtype: of the numbers: float64 where tests compare exactly.

        Returns:
            (N, K) probabilities, softened by the temperature.
        """
        joints, total = batch["joints"], None
        with torch.autocast(joints.device.type, enabled=False):
            for share, preprocess, network in zip(self.options.shares, self.preprocess, self.networks, strict=True):
                assert isinstance(preprocess, Preprocess)
                preprocess.dtype = dtype
                scores = network(preprocess(joints, batch["lengths"], batch["keys"], augmentation))
                said = share * torch.softmax(scores / self.options.temperature, dim=1)
                total = said if total is None else total + said
        assert total is not None
        return total
