"""What the towers are shown of a training batch: features read from a cache, or tensors made from the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from mmcl.data.dataset import Sample
from mmcl.errors import UserError
from mmcl.tasks.base import Context
from mmcl.towers.cache import FeatureCache
from mmcl.towers.clip import ClipPreprocess, ClipTower
from mmcl.towers.llm import LLMTower


@dataclass
class TowerInputs:
    """Adds what the towers need to a batch: features from a cache, or tensors made from the pictures (live).

    Runs in loader workers, so it holds transforms and processors but no weights.

    Attributes:
        pairing: clip -> the clip whose features it gets from a cache; None where that is itself.
    """

    questions: tuple[str, ...] = ()
    answers: list[str] | None = None
    clip_cache: FeatureCache | None = None
    clip_preprocess: ClipPreprocess | None = None
    llm_caches: list[FeatureCache] = field(default_factory=list)
    chat: Any = None
    pairing: np.ndarray | None = None

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Batch entries ``image_features`` (N, D) or ``pixels`` (N, m, 3, H, W); ``text_features`` or ``chats``.

        Of strips, m is 1.
        """
        clips = [sample.clip if self.pairing is None else int(self.pairing[sample.clip]) for sample in samples]
        entries: dict[str, Any] = {}
        if self.clip_cache is not None:
            entries["image_features"] = self.clip_cache(clips)
        elif self.clip_preprocess is not None:
            entries["pixels"] = torch.stack([self.clip_preprocess(sample.images) for sample in samples])
        if self.llm_caches:
            entries["text_features"] = [cache(clips) for cache in self.llm_caches]
        elif self.chat is not None:
            pictures = [sample.images for sample in samples]
            answers = [self.answers[sample.label] for sample in samples] if self.answers else None
            entries["chats"] = [self.chat(pictures, question, answers) for question in self.questions]
        return entries

    @property
    def live(self) -> bool:
        """Whether pictures are needed."""
        return self.clip_preprocess is not None or self.chat is not None


def shuffled_pairs(clips: np.ndarray, total: int) -> np.ndarray:
    """A pairing in which every training clip gets the video of another one: the control that co-learning must beat.

    Args:
        clips: positions of the training clips.
        total: clips in the store.

    Returns:
        (total,) clip -> clip; one random cycle through the training clips, the same for one seed of torch.
    """
    generator = torch.Generator().manual_seed(torch.initial_seed())
    order = np.asarray(clips)[torch.randperm(len(clips), generator=generator).numpy()]
    pairing = np.arange(total)
    pairing[order] = np.roll(order, 1)
    return pairing


def look(tower: ClipTower, device: torch.device, rows: list[list[Image]]) -> Tensor:
    """(n, D) embeddings of n clips' pictures."""
    return tower(torch.stack([tower.preprocess(images) for images in rows]).to(device))


def ask(tower: LLMTower, device: torch.device, question: str, rows: list[list[Image]]) -> Tensor:
    """(n, D) answer features of n clips' pictures."""
    inputs = {name: tensor.to(device) for name, tensor in tower.encode(rows, question).items()}
    return tower(inputs).features


def describe_tower(name: str, tower: torch.nn.Module, trained: bool) -> str:
    """A tower in words: where it is from, how large it is, how much of it is trained."""
    everything = sum(parameter.numel() for parameter in tower.parameters())
    tuned = sum(parameter.numel() for parameter in tower.parameters() if parameter.requires_grad)
    return f"{name}, {everything:,} parameters, " + (f"{tuned:,} of them trained" if trained else "frozen")


def require_video(context: Context) -> None:
    """Make sure that every training clip has pictures.

    Raises:
        UserError: naming how many have none.
    """
    store = context.store
    without = [store.ids[clip] for clip in context.training_clips if not store.video_frames[clip]]
    if without:
        raise UserError(
            f"co-learning needs video: {len(without)} of {len(context.training_clips)} training clips in "
            f"{store.location} have none (first: {without[0]}); prepare with --video, or use --task.name=supervised"
        )
