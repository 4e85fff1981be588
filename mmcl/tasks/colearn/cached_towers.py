"""What co-learning asks its frozen towers about the training clips, once, before training begins."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.data.dataset import load_crops
from mmcl.tasks.context import Context
from mmcl.towers.cache import tower_fingerprint
from mmcl.towers.clip import ClipTower
from mmcl.towers.feature_cache import FeatureCache, Pictures
from mmcl.towers.llm import LLMTower
from mmcl.towers.prefix import CannotCut
from mmcl.towers.prefix_cache import PrefixCache, Question

AT_ONCE = 16  # clips, where the recipe does not say


def clip_identity(tower: ClipTower) -> str:
    """Hash of all that an embedding depends on besides the pictures."""
    return tower_fingerprint(tower, [asdict(tower.options), str(tower.preprocess), tower.vision])


def answer_identity(tower: LLMTower) -> str:
    """Hash of all that an answer feature depends on besides pictures and question, of an LLM without LoRA."""
    options = {key: value for key, value in asdict(tower.options).items() if key != "shown"}
    settings = [options | {"images": tower.chat.images}, tower.configuration(), *tower.chat.identity()[1:]]
    return tower_fingerprint(tower, settings)


def clip_features(tower: ClipTower, context: Context, at_once: int) -> FeatureCache:
    """Embeddings of the training clips, a row for each view of one."""
    options = tower.options
    key = ["clip", clip_identity(tower)]
    look = partial(_look, tower.to(context.device), context.device)
    return FeatureCache(
        context.store, context.training_clips, key, look, "CLIP features", at_once or AT_ONCE, options.views,
        options.mirror,
    )  # fmt: skip


def answer_features(
    tower: LLMTower, context: Context, questions: tuple[str, ...], at_once: int
) -> list[FeatureCache]:  # fmt: skip
    """Answer features of the training clips, of an LLM without LoRA; one cache a question."""
    identity = answer_identity(tower)
    tower.to(context.device)
    return [
        FeatureCache(
            context.store, context.training_clips, ["llm", identity, question],
            partial(_ask, tower, context.device, question), "LLM features", at_once or AT_ONCE,
        )
        for question in questions
    ]  # fmt: skip


def answer_prefixes(
    tower: LLMTower, context: Context, questions: tuple[str, ...], answers: list[str] | None,
    shown_clip: np.ndarray | None, at_once: int,
) -> list[PrefixCache]:  # fmt: skip
    """Hidden states that enter the first layer with LoRA in it; one cache a question. The tower keeps the rest alone.

    Args:
        tower: with LoRA.
        context: gives the training clips.
        questions: the instructions.
        answers: by class, where answers are learned.
        shown_clip: clip -> the clip whose pictures it gets, or None.
        at_once: clips the tower takes at a time; 0 for the default.

    Returns:
        No cache, after a note, where the model has no constant part.
    """
    store, clips = context.store, context.training_clips
    tower.to(context.device)
    try:
        cut = tower.cut(tower.encode([load_crops(store, int(clip)) for clip in clips[:2]], questions[0]))
    except CannotCut as reason:
        print(
            f"LLM '{tower.options.path}' runs live, its prefix is not cached: {reason}", file=sys.stderr, flush=True
        )  # fmt: skip
        return []
    taught = _answers_of(context, answers, shown_clip) if answers is not None else None
    identity = tower.prefix_fingerprint()
    caches = [
        PrefixCache(store, clips, identity, tower, Question(question, taught, at_once or AT_ONCE))
        for question in questions
    ]
    cut.release()
    return caches


def describe_tower(name: str, tower: nn.Module, trained: bool) -> str:
    """A tower in words: where it is from, how large it is, how much of it is trained."""
    everything = sum(parameter.numel() for parameter in tower.parameters())
    tuned = sum(parameter.numel() for parameter in tower.parameters() if parameter.requires_grad)
    return f"{name}, {everything:,} parameters, " + (f"{tuned:,} of them trained" if trained else "frozen")


def describe_pictures(tower: LLMTower, pictures: int) -> str:
    """How an LLM sees a clip, in words.

    Args:
        tower: the LLM.
        pictures: that a clip has.
    """
    chat = tower.chat
    if pictures < 2 or chat.images == "separate":
        return ""
    if chat.square is None:
        return ", which sees a clip's pictures glued into one strip"
    width, height = chat.square
    return (
        f", which sees a clip's {pictures} pictures squeezed into one of {width} x {height}, {width // pictures} "
        "columns each: --task.llm.images=separate shows them whole, for more tokens"
    )


def _answers_of(context: Context, answers: list[str], shown_clip: np.ndarray | None) -> dict[int, str]:
    """Training clip -> the answer that is learned with its pictures: that of the clip they are shown to."""
    store, clips = context.store, context.training_clips
    shown_to = np.arange(len(store))
    if shown_clip is not None:
        shown_to[shown_clip[clips]] = clips
    number = {name: label for label, name in enumerate(context.class_names)}
    return {int(clip): answers[number[store.class_names[store.labels[shown_to[clip]]]]] for clip in clips}


def _look(tower: ClipTower, device: torch.device, rows: Pictures) -> Tensor:
    """(n, D) embeddings of n clips' pictures."""
    return tower(torch.stack([tower.preprocess(images) for images in rows]).to(device))


def _ask(tower: LLMTower, device: torch.device, question: str, rows: Pictures) -> Tensor:
    """(n, D) answer features of n clips' pictures."""
    inputs = {name: tensor.to(device) for name, tensor in tower.encode(rows, question).items()}
    return tower(inputs).features
