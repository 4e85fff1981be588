"""Classes and texts of body parts, as STEP-CATFormer is trained (Long et al., BMVC 2023).

Cross-entropy of the scores and of the trunk's own scores; and, with a weight, the mean of the contrastive losses
between what the encoder finds in the whole body and in its parts and what a frozen text tower says of these in the
clip's class. Texts are embedded once, before training; the tower is not kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.encoders.building import encoder_name
from mmcl.tasks.base import Task
from mmcl.tasks.context import Context
from mmcl.tasks.part_texts.loss import text_losses
from mmcl.tasks.part_texts.texts import texts_of_parts
from mmcl.tasks.stages import ParameterGroup, Stage
from mmcl.tasks.supervised import check_smoothing
from mmcl.towers.clip import ClipOptions
from mmcl.towers.text import TextOptions, build_text_tower, class_rows


@dataclass(frozen=True)
class PartTextsOptions:
    """Options of the task `part_texts`; the defaults are the paper's.

    Attributes:
        weight: of the mean of the text losses of body and parts; 0 leaves them out.
        trunk_weight: of the cross-entropy of the trunk's own scores, of an encoder that has some.
        label_smoothing: share of the target spread over all classes, of all scores alike.
        text: what reads the texts.
        clip: which CLIP, where texts are read by one.
        released: multiply cosines with the logarithm of the scale, as the released code does.
    """

    weight: float = 0.8
    trunk_weight: float = 1.0
    label_smoothing: float = 0.0
    text: TextOptions = field(default_factory=TextOptions)
    clip: ClipOptions = field(default_factory=ClipOptions)
    released: bool = False

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key.
        """
        check_smoothing(self.label_smoothing)
        for key in ("weight", "trunk_weight"):
            if not 0 <= getattr(self, key) < math.inf:
                raise UserError(f"task.{key} is {getattr(self, key)}: it must be 0 or more")


class PartTexts(Task):
    """Supervision by labels and by texts of body parts.

    Args:
        context: its encoder has ``described_parts``.
        options: see :class:`PartTextsOptions`.

    Attributes:
        rows: (K, 1 + P, E) unit-length texts of the whole body and of P parts in each class.

    Raises:
        UserError: options out of range, an encoder that meets no texts or of another width, or a text tower that
            cannot be loaded.
    """

    options = PartTextsOptions
    rows: Tensor

    def __init__(self, context: Context, options: PartTextsOptions) -> None:
        super().__init__(context)
        options.check()
        self.settings = options
        if not self.encoder.described_parts:
            raise UserError(
                f"part_texts needs an encoder that offers features of body parts, and {encoder_name(self.encoder)} "
                "offers none: give --encoder.name=step_catformer"
            )
        self._tower = options.text.model if options.text.source == "sentence" else options.clip.model
        self.register_buffer("rows", self._read(context), persistent=False)

    def _read(self, context: Context) -> Tensor:
        """The text tower's rows; none where the texts have no weight."""
        parts, width = self.encoder.described_parts, self.encoder.options.text_width
        if not self.settings.weight:
            return torch.zeros(0, 1 + len(parts), width)
        tower = build_text_tower(self.settings.text, self.settings.clip).to(context.device)
        if tower.width != width:
            raise UserError(
                f"texts by {self._tower} are {tower.width} wide, the encoder meets them in a space of {width}: give "
                f"--encoder.text_width={tower.width}"
            )
        texts = texts_of_parts(context.prompts(), parts)
        return torch.stack([class_rows(tower.encode_text, one) for one in texts]).cpu()

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """A made-up text tower, and few joints: matrices are as wide as a frame."""
        from mmcl.towers.build import build_tower

        if not (folder / "tiny-clip").is_dir():
            build_tower("tiny-clip", folder / "tiny-clip")
        return {
            "task.clip.model": folder / "tiny-clip", "encoder.name": "step_catformer", "encoder.text_width": 32,
            "data.layout": "jhmdb_15",
        }  # fmt: skip

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``loss``, its parts ``loss_classes``, ``loss_trunk`` and ``loss_text``, and ``scores`` (N, K)."""
        settings, labels = self.settings, batch["labels"]
        found = self.encoder.outputs(self.augmented(batch))
        scores = widen(found["scores"])
        parts = {"loss_classes": self._entropy(scores, labels)}
        loss = parts["loss_classes"]
        if not (settings.weight and settings.trunk_weight):
            loss = loss + self.idle(self.encoder)
        if settings.trunk_weight and "trunk_scores" in found:
            parts["loss_trunk"] = self._entropy(widen(found["trunk_scores"]), labels)
            loss = loss + settings.trunk_weight * parts["loss_trunk"]
        if settings.weight:
            texts, scales = self.rows[labels], found["text_scales"]
            each = text_losses(found["text_features"], texts, labels, scales, settings.released)
            parts["loss_text"] = each.mean()
            loss = loss + settings.weight * parts["loss_text"]
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}, "scores": scores}

    def _entropy(self, scores: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(scores, labels, label_smoothing=self.settings.label_smoothing)

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        """One group: the encoder, text heads and their scales included."""
        return [ParameterGroup("encoder", list(self.encoder.parameters()))]

    def loaded(self) -> dict[str, str]:
        """Which text tower."""
        return {"texts of parts": f"{self._tower}, frozen, read once"} if self.settings.weight else {}
