"""Tasks around an encoder, without a store behind them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from mmcl.encoders.base import Encoder
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.tasks.context import Context


def context_of(encoder: Encoder, window: int, labels: list[int], options: dict[str, Any] | None = None) -> Context:
    """What a task is built from: all clips train, classes are all that there are."""
    preprocess = Preprocess(
        encoder.layout, encoder.layout, encoder.options.persons, PreprocessOptions(window=window, **(options or {}))
    )
    return Context(
        encoder, preprocess, Augmentation(), SimpleNamespace(labels=np.array(labels)),  # type: ignore[arg-type]
        training_clips=np.arange(len(labels)), validation_clips=np.array([], dtype=np.int64),
        classes=np.unique(labels), prompts=dict, all_prompts=dict, device=torch.device("cpu"),
    )  # fmt: skip
