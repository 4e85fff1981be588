"""A run's open vocabulary: its learned projection, and the words that it was learned with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from mmcl.data.store import ClipStore
from mmcl.deploy.vocabulary import Vocabulary
from mmcl.engine.checkpoint import LEARNED
from mmcl.engine.config import TrainConfig
from mmcl.engine.setup import run_texts

PREFIX = "joint."
LOG_SCALE = "alignment.siglip.log_scale"
ORIGIN = "semantics.origin"


def run_vocabulary(config: TrainConfig, checkpoint: Path, store: ClipStore) -> Vocabulary | None:
    """The vocabulary that a checkpoint of a run learned, without a table; None where its task has none.

    Args:
        config: of the run.
        checkpoint: folder of the checkpoint.
        store: of the run: of a run that did not record its texts, they are those of the store's prompts.

    Raises:
        UserError: the run's record of its texts is damaged, or what stands in for it is gone.
    """
    learned = load_file(checkpoint / LEARNED)
    tensors = {key.removeprefix(PREFIX): tensor for key, tensor in learned.items() if key.startswith(PREFIX)}
    if not tensors:
        return None
    text, clip = config.task.text, config.task.clip
    # A projection that learned from pictures alone lies in CLIP's space: its text tower has the words.
    sentence = text.weight > 0 and text.source == "sentence"
    facts = {
        "source": "sentence" if sentence else "clip",
        "model": text.model if sentence else None,
        "clip_model": None if sentence else clip.model,
        "clip_pretrained": None if sentence else clip.pretrained,
    }
    temperature = text.temperature if text.weight > 0 else config.task.alignment.temperature
    if text.weight <= 0 and LOG_SCALE in learned:  # SigLIP learns its own
        temperature = float(torch.exp(-learned[LOG_SCALE]))
    texts, source = run_texts(config, checkpoint.parent.parent, store)
    origin, words = learned.get(ORIGIN), replace(texts, dataset=source)
    return Vocabulary(tensors, temperature, facts, texts.templates, origin=origin, words=words)
