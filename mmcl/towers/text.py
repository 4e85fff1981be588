"""Text that carries the meaning of a class: CLIP's text tower, or a sentence encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.towers.clip import ClipOptions, ClipTower
from mmcl.towers.sentence import SentenceTower


@dataclass(frozen=True)
class TextOptions:
    """Which text tower.

    Attributes:
        source: clip: the text tower of the CLIP in use; sentence: a sentence encoder.
        model: the sentence encoder: a transformers folder, or its name on the model hub. Not used with clip.
    """

    source: Literal["clip", "sentence"] = "clip"
    model: str = ""


@dataclass(frozen=True)
class SpaceOptions:
    """Which texts, read by which towers, make the row of a class.

    Attributes:
        sources: `clip` for the text tower of the CLIP in use, or folders or hub names of sentence encoders. The rows of
            several are laid side by side.
        joined: templates are laid side by side, too, instead of averaged: a name, a description and a motion each have
            a place of their own then.
    """

    sources: list[str] = field(default_factory=lambda: ["clip"])
    joined: bool = False

    def check(self) -> None:
        """Fail where there is no source.

        Raises:
            UserError: naming the key.
        """
        if not self.sources or "" in self.sources:
            raise UserError("task.text.sources needs `clip`, or the folder or hub name of a sentence encoder")


def build_text_tower(options: TextOptions, clip: ClipOptions) -> ClipTower | SentenceTower:
    """The text tower that ``options`` names; both kinds have ``width`` and ``encode_text``.

    Raises:
        UserError: it cannot be loaded.
    """
    return SentenceTower(options.model) if options.source == "sentence" else ClipTower(clip, text=True)


def class_rows(encode: Callable[[Sequence[str]], Tensor], texts: Sequence[Sequence[str]]) -> Tensor:
    """One row a class: the mean of its texts' embeddings, brought to length 1 again (CLIP's prompt ensembling).

    Args:
        encode: n texts -> (n, D) of length 1.
        texts: the texts of each of K classes, one or more.

    Returns:
        (K, D) float32.

    Raises:
        UserError: a class has no text.
    """
    if empty := [str(position) for position, row in enumerate(texts) if not row]:
        raise UserError(f"no text for class {', '.join(empty)} (counted from 0): give each a name or a description")
    return torch.stack([F.normalize(encode(row).mean(dim=0), dim=0) for row in texts])


def space_facts(options: SpaceOptions, clip: ClipOptions) -> dict[str, Any]:
    """A space of texts as :attr:`mmcl.models.text_head.TextHead.text` describes it.

    Where it is made of more than a mean over templates by one tower, it has ``beside``, the other towers, and
    ``joined``, whether templates are side by side.
    """
    parts: list[dict[str, Any]] = [
        {"source": "clip", "model": None, "clip_model": clip.model, "clip_pretrained": clip.pretrained}
        if source == "clip"
        else {"source": "sentence", "model": source, "clip_model": None, "clip_pretrained": None}
        for source in options.sources
    ]
    if len(parts) == 1 and not options.joined:
        return parts[0]
    return {**parts[0], "beside": parts[1:], "joined": options.joined}


def encoder_of(facts: Mapping[str, Any], device: torch.device) -> Callable[[Sequence[str]], Tensor]:
    """The text tower that :func:`space_facts` speaks of, ready: n texts -> (n, D), unit length, on the CPU.

    Raises:
        UserError: it cannot be loaded.
    """
    if facts["source"] == "sentence":
        options, clip = TextOptions("sentence", facts["model"] or ""), ClipOptions()
    else:
        options, clip = TextOptions("clip"), ClipOptions(facts["clip_model"] or "", facts["clip_pretrained"])
    tower = build_text_tower(options, clip).to(device)
    return lambda texts: tower.encode_text(texts).cpu()


def space_rows(
    space: Mapping[str, Any],
    texts: Sequence[Sequence[str]],
    encoder: Callable[[Mapping[str, Any]], Callable[[Sequence[str]], Tensor]],
) -> Tensor:
    """Rows of classes in a space of texts.

    Args:
        space: see :func:`space_facts`.
        texts: the texts of each of K classes, in the order of the templates.
        encoder: makes the text tower that an entry of the space speaks of, as :func:`encoder_of` does.

    Returns:
        (K, D) float32 of length 1, on the CPU.

    Raises:
        UserError: a tower cannot be loaded, or a class has no text.
    """
    columns: list[Sequence[Sequence[str]]] = [texts]
    if space.get("joined"):
        columns = [[[text] for text in column] for column in zip(*texts, strict=True)]
    parts = []
    for one in (space, *space.get("beside", ())):
        encode = encoder(one)
        parts += [class_rows(encode, column) for column in columns]
    return parts[0] if len(parts) == 1 else F.normalize(torch.cat(parts, dim=1), dim=1)
