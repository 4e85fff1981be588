"""What a task is built from: encoder, preprocessing, clips and the texts of classes, as a run has opened them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mmcl.data.class_texts import Prompts
from mmcl.data.store import ClipStore
from mmcl.encoders.base import Encoder
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.preprocess import Preprocess


@dataclass(frozen=True)
class Context:
    """What a task is built from.

    Attributes:
        encoder: the skeleton branch.
        preprocess: raw joints -> encoder input.
        augmentation: of training clips.
        store: the clips.
        training_clips: positions of the clips that will be trained on.
        validation_clips: positions of the clips held out of the training side; empty where there are none.
        classes: (K,) labels of the store that are trained, ascending: output k of the encoder is ``classes[k]``.
        prompts: gives the texts of the K trained classes; called by tasks that need text.
        all_prompts: gives the texts of all of the store's classes, withheld ones too, in the order of its labels.
        device: where frozen towers may work before training starts.
        seed: of the run.
        stream: outputs of the classes that arrive together, part by part; empty where all arrive at once.
    """

    encoder: Encoder
    preprocess: Preprocess
    augmentation: Augmentation
    store: ClipStore
    training_clips: np.ndarray
    validation_clips: np.ndarray
    classes: np.ndarray
    prompts: Callable[[], Prompts]
    all_prompts: Callable[[], Prompts]
    device: torch.device
    seed: int = 0
    stream: tuple[np.ndarray, ...] = ()

    @property
    def class_names(self) -> list[str]:
        """K names of the classes that are trained, in the order of the encoder's outputs."""
        return [self.store.class_names[label] for label in self.classes]

    @property
    def all_class_names(self) -> list[str]:
        """Names of all of the store's classes, withheld ones too, in the order of its labels."""
        return self.store.class_names

    @property
    def withheld(self) -> np.ndarray:
        """Labels of the store that are not trained, ascending."""
        return np.setdiff1d(np.arange(len(self.store.class_names)), self.classes)
