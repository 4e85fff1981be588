"""The space of texts into which a task has taught an encoder's features the way: an open vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mmcl.tasks.colearn.options import CoLearningOptions

JOINT, ORIGIN, LOG_SCALE = "joint.", "semantics.origin", "alignment.siglip.log_scale"  # in a co-learning checkpoint


@dataclass(frozen=True)
class TextSpace:
    """A projection, and which texts lie where it leads to.

    Attributes:
        projection: tensors of a :func:`~mmcl.encoders.projection.projection`, by their names in it.
        temperature: what cosines are divided by.
        text: the text model: ``source`` (sentence or clip), ``model``, ``clip_model``, ``clip_pretrained``.
        origin: (D,) mean text of the trained classes, where classes are judged by the difference to it.
    """

    projection: dict[str, Tensor]
    temperature: float
    text: dict[str, str | None]
    origin: Tensor | None


def colearned_space(learned: Mapping[str, Tensor], options: CoLearningOptions) -> TextSpace | None:
    """The space that co-learning led to; None where features were compared with no text and with no picture's space.

    Args:
        learned: tensors of a checkpoint.
        options: of the task.
    """
    projection = {key.removeprefix(JOINT): tensor for key, tensor in learned.items() if key.startswith(JOINT)}
    if not projection:
        return None
    text, clip = options.text, options.clip
    # A projection that learned from pictures alone lies in CLIP's space: its text tower has the words.
    sentence = text.weight > 0 and text.source == "sentence"
    facts = {
        "source": "sentence" if sentence else "clip",
        "model": text.model if sentence else None,
        "clip_model": None if sentence else clip.model,
        "clip_pretrained": None if sentence else clip.pretrained,
    }
    temperature = text.temperature if text.weight > 0 else options.alignment.temperature
    if text.weight <= 0 and LOG_SCALE in learned:  # SigLIP learns its own
        temperature = float(torch.exp(-learned[LOG_SCALE]))
    return TextSpace(projection, temperature, facts, learned.get(ORIGIN))
