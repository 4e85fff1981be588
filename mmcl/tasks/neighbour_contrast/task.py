"""Nearest-neighbour contrast: STARS' second stage (arXiv 2407.10935), on any encoder. No label is used.

A clip's prediction shall be found, among those of the whole batch, by the nearest neighbour that the clip has among
earlier clips. The later levels of an encoder that was trained by something else before are tuned by it for a few
epochs, the later the faster.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcl.common.distributed import gather_rows, rank
from mmcl.common.draws import derived_keys
from mmcl.common.precision import widen
from mmcl.tasks.base import Apply, Task
from mmcl.tasks.context import Context
from mmcl.tasks.levels import head_parameters, level_groups
from mmcl.tasks.nearest import NearestClip
from mmcl.tasks.neighbour_contrast.contrast import (
    ContrastHead,
    NeighbourQueue,
    neighbour_loss,
    two_view_loss,
)
from mmcl.tasks.neighbour_contrast.options import NeighbourContrastOptions
from mmcl.tasks.stages import ParameterGroup, Stage


class NeighbourContrast(Task):
    """Contrast of predictions with nearest neighbours from a queue, which is filled after each step.

    Predictions of all processes are told apart from each other, and the projections of all of them enter every
    process's queue, in the order in which one process would see them.

    Args:
        context: with any encoder; what is contrasted are its features.
        options: see :class:`NeighbourContrastOptions`.

    Raises:
        UserError: options out of range.
    """

    options = NeighbourContrastOptions
    classifies = False
    compares = True
    labels: Tensor

    def __init__(self, context: Context, options: NeighbourContrastOptions) -> None:
        super().__init__(context)
        options.check()
        self.settings, width = options, self.encoder.feature_width
        self.head = ContrastHead(width, options.hidden)
        self.queue = NeighbourQueue(options.queue, width, self.generator("queue"))
        self.nearest = NearestClip(context)
        # For the log alone: whether neighbours are of the same class.
        self.register_buffer("labels", torch.from_numpy(np.asarray(context.store.labels)).long(), persistent=False)

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """A small queue and predictor."""
        return {"task.queue": 20, "task.hidden": 16}

    def stages(self) -> list[Stage]:
        """One, or the head alone before it; nothing trains the classifier, nor the levels that are not tuned."""
        augment, levels = self.settings.views == "augmented", len(self.encoder.depth())
        first = math.floor(levels * (1 - self.settings.tuned) + 1e-9)
        tuned = [f"level{level}" for level in range(first, levels)]
        every = Stage("contrast", train=(*tuned, "head"), augment=augment)
        if not self.settings.head_epochs:
            return [every]
        return [Stage("head", epochs=self.settings.head_epochs, train=("head",), augment=augment), every]

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        """Levels of the encoder, each at its own rate, its classifier, and the head of the contrast."""
        clip = self.settings.clip
        return [
            *level_groups(self.encoder, self.settings.decay, clip),
            ParameterGroup("classifier", head_parameters(self.encoder)),
            ParameterGroup("head", list(self.head.parameters()), clip=clip),
        ]

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``loss``, ``share_same_class`` of the neighbours, and ``projected`` (N, D) for the queue."""
        first, second = self.encoder.features(self.augmented(batch)), None
        if self.settings.views == "augmented":
            other = batch | {"keys": derived_keys(batch["keys"], "second view")}
            second = self.encoder.features(self.augmented(other))
        choice = None
        if self.settings.among > 1:
            drawn = self.noise(batch, "neighbour").uniform(2)
            choice = (drawn * self.settings.among).long().clamp(max=self.settings.among - 1)
        return self.contrast(first, second, batch["clips"], choice)

    def contrast(
        self, first: Tensor, second: Tensor | None, owners: Tensor, choice: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The loss of features.

        Args:
            first: (N, D) of the first view, which enters the queue.
            second: (N, D) of the second view; None where it is the same.
            owners: (N,) positions of the clips in the store.
            choice: (N, 2) which of the nearest vectors is each view's neighbour; None for the nearest.

        Returns:
            As :meth:`forward`.
        """
        views = [self.head(first)]
        if second is not None or self.settings.released:
            views.append(self.head(first if second is None else second))
        with torch.autocast(first.device.type, enabled=False):  # cosines are divided by a small temperature
            return self._compare([(widen(z), widen(p)) for z, p in views], owners, choice)

    def _compare(
        self, views: list[tuple[Tensor, Tensor]], owners: Tensor, choice: Tensor | None
    ) -> dict[str, Tensor]:  # fmt: skip
        """The loss of projections and predictions of one view or two."""
        found = [
            self.queue.find(z.detach(), owners, None if choice is None else choice[:, view], self.settings.among)
            for view, (z, _) in enumerate(views)
        ]
        start = rank() * len(owners)
        losses = [  # a view's predictions are found by the other view's neighbours
            neighbour_loss(self.queue.vectors[near], gather_rows(p), self.settings.temperature, start)
            for (_, p), near in zip(views, reversed(found), strict=True)
        ]
        loss = losses[0] if len(views) == 1 else two_view_loss(losses[0], losses[1], self.settings.released)
        return {
            "loss": loss, "loss_contrast": loss.detach(), "share_same_class": self._same_class(found[0], owners),
            "projected": views[0][0].detach(),
        }  # fmt: skip

    def _same_class(self, found: Tensor, owners: Tensor) -> Tensor:
        """Share of neighbours that are of a clip of the same class; what nobody has put into the queue counts not."""
        other = self.queue.owners[found]
        return ((other >= 0) & (self.labels[other.clamp(min=0)] == self.labels[owners])).float().mean()

    def after_step(
        self, stage: Stage, batches: list[dict[str, Any]], outputs: list[dict[str, Tensor]]
    ) -> None:  # fmt: skip
        """Put the step's projections into the queue, those of all processes."""
        for batch, given in zip(batches, outputs, strict=True):
            self.queue.push(gather_rows(given["projected"], "queue"), gather_rows(batch["clips"], "queue"))

    def validation(self, apply: Apply, clips: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """``nearest_top1``: the loss says little of features, since neighbours come nearer as features collapse."""
        return {"nearest_top1": self.nearest.top1(self, apply, clips, labels)}
