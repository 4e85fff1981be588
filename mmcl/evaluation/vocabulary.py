"""A run's open vocabulary: its learned projection, and the texts of classes in the projection's space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmcl.data.store import ClipStore
from mmcl.deploy.vocabulary import Vocabulary
from mmcl.engine.checkpoint import LEARNED
from mmcl.engine.config import TrainConfig
from mmcl.engine.setup import task_prompts
from mmcl.prompts import Prompts, prompt_names

PREFIX = "joint."
LOG_SCALE = "alignment.siglip.log_scale"
ORIGIN = "semantics.origin"


def run_vocabulary(config: TrainConfig, checkpoint: Path, store: ClipStore) -> Vocabulary | None:
    """The vocabulary that a checkpoint of a run learned, without a table; None where its task has none.

    Args:
        config: of the run.
        checkpoint: folder of the checkpoint.
        store: of the run: its prompts say with which templates the classes' texts were made.
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
    known = config.data.prompts is not None or store.dataset in prompt_names()
    templates = task_prompts(config, store).templates if known else ("{name}",)
    return Vocabulary(tensors, temperature, facts, templates, origin=learned.get(ORIGIN))


def text_encoder(vocabulary: Vocabulary, device: torch.device) -> Callable[[Sequence[str]], Tensor]:
    """The text model of a vocabulary's space: n texts -> (n, D), unit length, on the CPU.

    Raises:
        UserError: it cannot be loaded here.
    """
    from mmcl.towers.clip import ClipOptions
    from mmcl.towers.text import TextOptions, build_text_tower

    facts: dict[str, Any] = vocabulary.text
    if facts["source"] == "sentence":
        options, clip = TextOptions("sentence", facts["model"]), ClipOptions()
    else:
        options, clip = TextOptions("clip"), ClipOptions(facts["clip_model"], facts["clip_pretrained"])
    tower = build_text_tower(options, clip).to(device)
    return lambda texts: tower.encode_text(texts).cpu()


def class_text_rows(vocabulary: Vocabulary, prompts: Prompts, device: torch.device) -> Tensor:
    """(K, D) unit-length texts of classes: from the vocabulary's table where it has them all, else computed.

    Raises:
        UserError: they are not in the table, and the text model cannot be loaded here.
    """
    from mmcl.towers.text import class_rows

    if not vocabulary.missing(prompts.names):
        return vocabulary.rows_of(prompts.names)
    encode = text_encoder(vocabulary, device)
    return vocabulary.rows(class_rows(encode, [prompts.texts(label) for label in range(len(prompts.names))]))
