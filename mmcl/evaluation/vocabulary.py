"""A run's open vocabulary: its learned projection, and the words that it was learned with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from mmcl.data.store import ClipStore
from mmcl.deploy.vocabulary import Vocabulary
from mmcl.engine.checkpoint import LEARNED
from mmcl.engine.config import TrainConfig
from mmcl.engine.setup import run_texts
from mmcl.tasks import TASKS


def run_vocabulary(config: TrainConfig, checkpoint: Path, store: ClipStore) -> Vocabulary | None:
    """The vocabulary that a checkpoint of a run learned, without a table; None where its task has none.

    Args:
        config: of the run.
        checkpoint: folder of the checkpoint.
        store: of the run: of a run that did not record its texts, they are those of the store's prompts.

    Raises:
        UserError: the run's record of its texts is damaged, or what stands in for it is gone.
    """
    space = TASKS[config.task_name].text_space(load_file(checkpoint / LEARNED), config.task)
    if space is None:
        return None
    texts, source = run_texts(config, checkpoint.parent.parent, store)
    return Vocabulary(
        space.projection, space.temperature, space.text, texts.templates, origin=space.origin,
        words=replace(texts, dataset=source),
    )  # fmt: skip
