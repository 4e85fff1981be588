"""The contract between what is trained (a task) and how it is trained (the engine)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmcl.data.dataset import Extras
from mmcl.data.store import ClipStore
from mmcl.encoders.base import Encoder
from mmcl.prompts import Prompts
from mmcl.skeletons.augment import Augmentation
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
        class_names: K names of the classes that are trained.
        prompts: gives their descriptions, instructions, templates; called by tasks that need text.
        device: where frozen towers may work before training starts.
    """

    encoder: Encoder
    preprocess: Preprocess
    augmentation: Augmentation
    store: ClipStore
    training_clips: Any
    class_names: list[str]
    prompts: Callable[[], Prompts]
    device: torch.device


@dataclass
class ParameterGroup:
    """Parameters that share an optimiser and a learning rate.

    Attributes:
        name: for logs and for ``optimiser.rates`` ("encoder", "projection", "lora", …).
        kind: which of the run's optimisers updates it.
        parameters: the tensors.
        rate: AdamW's learning rate where ``optimiser.rates`` names none.
    """

    name: str
    kind: Literal["main", "adamw"]
    parameters: list[nn.Parameter]
    rate: float = 1e-3


class Task(nn.Module, ABC):
    """One ``nn.Module`` whose forward pass turns a batch into losses and outputs.

    The engine wraps it as a whole, sums nothing, and knows no task by name: it calls ``forward`` for the dictionary,
    backpropagates ``loss``, and evaluates with :meth:`scores`, which is the skeleton branch alone. ``state_dict()``
    is what a checkpoint holds: towers leave their frozen weights out of it.
    """

    options: ClassVar[type]

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.encoder = context.encoder
        self.preprocess = context.preprocess
        self.augmentation = context.augmentation

    @abstractmethod
    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses and outputs of a training batch: ``loss`` (what is minimised), ``loss_*`` parts, ``scores`` (N, K)."""

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Every trainable parameter, in exactly one group."""

    def extras(self) -> Extras | None:
        """What loader workers add to a training batch beyond skeletons; None for nothing."""
        return None

    @property
    def needs_images(self) -> bool:
        """Whether training batches need the decoded person crops."""
        return False

    @property
    def pairing(self) -> Any:
        """(clips in the store,) the clip whose pictures each clip gets, or None where that is itself."""
        return None

    def loaded(self) -> dict[str, str]:
        """What was loaded besides the encoder, in words, for the run's summary."""
        return {}

    def scores(self, joints: Tensor, lengths: Tensor) -> Tensor:
        """Class scores (N, K) of raw joints (N, M, T, V, C): exactly what the exported bundle computes."""
        return self.encoder(self.preprocess(joints, lengths))

    def augmented(self, batch: dict[str, Any]) -> Tensor:
        """Preprocessed and augmented encoder input (N, M, T, V, C) of a training batch.

        Always in float32: under autocast, coordinates would lose the digits that motion streams are made of.
        """
        joints = batch["joints"]
        with torch.autocast(joints.device.type, enabled=False):
            return self.preprocess(joints, batch["lengths"], batch["draws"], self.augmentation)
