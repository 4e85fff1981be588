"""What the towers are shown of a training batch: what a cache holds, or tensors made from the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcl.common.draws import uniform
from mmcl.common.errors import UserError
from mmcl.data.dataset import Sample
from mmcl.tasks.colearn.oracle import ClassTexts
from mmcl.tasks.context import Context
from mmcl.towers.clip import ClipPreprocess
from mmcl.towers.feature_cache import FeatureCache
from mmcl.towers.prefix_cache import PrefixCache
from mmcl.towers.views import draw_view, view


@dataclass
class TowerInputs:
    """Adds what the towers need to a batch: what caches hold, or tensors made from the pictures (live).

    Runs in loader workers, so it holds transforms and processors but no weights.

    Attributes:
        questions: the instructions.
        answers: the answer to learn, by class.
        clip_cache: CLIP's features, or the class texts that stand in for them.
        clip_preprocess: pictures -> CLIP's input, where it runs live.
        llm_caches: the LLM's answer features, one cache a question.
        prefix_caches: the LLM's hidden states before its first adapted layer, one cache a question.
        chat: pictures and text -> the LLM's input, where all of it runs live.
        shown_clip: clip -> the clip whose features it gets from a cache; None where that is itself.
        views: of a clip's pictures for CLIP.
        mirror: see :func:`mmcl.towers.views.view`.
        share: of the clips that the LLM looks at.
        at_once: clips that the LLM takes at a time; 0 for all.
    """

    questions: tuple[str, ...] = ()
    answers: list[str] | None = None
    clip_cache: FeatureCache | ClassTexts | None = None
    clip_preprocess: ClipPreprocess | None = None
    llm_caches: list[FeatureCache] = field(default_factory=list)
    prefix_caches: list[PrefixCache] = field(default_factory=list)
    chat: Any = None
    shown_clip: np.ndarray | None = None
    views: int = 1
    mirror: bool = False
    share: float = 1.0
    at_once: int = 0

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Batch entries ``image_features`` (N, D) or ``pixels`` (N, m, 3, H, W); ``text_features`` or ``chats``.

        Of strips, m is 1. ``text_features`` has a tensor, ``chats`` a list of inputs of some clips each for every
        question. Where the LLM looks at a share of the clips, they hold these alone, and ``asked`` (n,) says which.
        """
        entries: dict[str, Any] = self._pictured(samples)
        if not (self.llm_caches or self.prefix_caches or self.chat is not None):
            return entries
        if self.share < 1:
            asked = draw_share(samples, self.share)
            entries["asked"] = torch.from_numpy(asked)
            samples = [samples[row] for row in asked]
        if self.llm_caches:
            clips = self._clips(samples)
            entries["text_features"] = [cache(clips) for cache in self.llm_caches]
        else:
            size = self.at_once or len(samples)
            parts = [samples[start : start + size] for start in range(0, len(samples), size)]
            entries["chats"] = [[self._chat(part, number) for part in parts] for number in range(len(self.questions))]
        return entries

    def _clips(self, samples: Sequence[Sample]) -> list[int]:
        """The clips whose pictures these clips get."""
        return [sample.clip if self.shown_clip is None else int(self.shown_clip[sample.clip]) for sample in samples]

    def _pictured(self, samples: Sequence[Sample]) -> dict[str, Any]:
        clips, views = self._clips(samples), [draw_view(sample.key, self.views) for sample in samples]
        if self.clip_cache is not None:
            return {"image_features": self.clip_cache(clips, views)}
        if self.clip_preprocess is None:
            return {}
        rows = [
            self.clip_preprocess(view(sample.images, clip, number, self.mirror))
            for sample, clip, number in zip(samples, clips, views, strict=True)
        ]
        return {"pixels": torch.stack(rows)}

    def _chat(self, samples: Sequence[Sample], question: int) -> dict[str, Tensor]:
        if self.prefix_caches:
            return self.prefix_caches[question](self._clips(samples))
        answers = [self.answers[sample.label] for sample in samples] if self.answers else None
        encoded: dict[str, Tensor] = self.chat([sample.images for sample in samples], self.questions[question], answers)
        return encoded

    @property
    def live(self) -> bool:
        """Whether pictures are needed."""
        return self.clip_preprocess is not None or self.chat is not None


def draw_share(samples: Sequence[Sample], share: float) -> np.ndarray:
    """Rows of a batch that the LLM looks at: (n,) ascending, n at least 1, any subset of that size equally likely.

    The same for the same clips of the same epoch and run seed, which their keys come from.
    """
    lots = uniform(torch.tensor([sample.key for sample in samples]), "share")
    count = max(1, round(share * len(samples)))
    return np.sort(lots.argsort(stable=True)[:count].numpy())


def shuffled_pairs(clips: np.ndarray, total: int) -> np.ndarray:
    """Give every training clip the video of another one: the control that co-learning must beat.

    Args:
        clips: positions of the training clips.
        total: clips in the store.

    Returns:
        (total,) clip -> clip; one random cycle through the training clips, the same for one seed of torch.
    """
    generator = torch.Generator().manual_seed(torch.initial_seed())
    order = np.asarray(clips)[torch.randperm(len(clips), generator=generator).numpy()]
    shown = np.arange(total)
    shown[order] = np.roll(order, 1)
    return shown


def require_video(context: Context) -> None:
    """Make sure that every training clip has pictures.

    Raises:
        UserError: naming how many have none.
    """
    store = context.store
    without = [store.ids[clip] for clip in context.training_clips if not store.video_frames[clip]]
    if without:
        others = len(context.training_clips) - len(without)
        alone = f"train on the other {others} alone (--data.require_video=true), " if others else ""
        raise UserError(
            f"co-learning needs video: {len(without)} of {len(context.training_clips)} training clips in "
            f"{store.location} have none (first: {without[0]}); prepare with --video, {alone}"
            "or train without towers (--task.alignment.weight=0 --task.refinement.weight=0)"
        )
