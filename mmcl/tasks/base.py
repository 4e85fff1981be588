"""The contract between what is trained (a task) and how it is trained (the engine)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmcl.data.dataset import Extras
from mmcl.data.prompts import Prompts
from mmcl.data.store import ClipStore
from mmcl.encoders.base import Encoder
from mmcl.skeletons.augment import Augmentation
from mmcl.skeletons.preprocess import Preprocess
from mmcl.tasks.colearn.text_space import TextSpace


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

    Two rules let many processes train it without waste and without waiting for each other for ever:

    - A tower that may be frozen is taken in by :meth:`hold`, so that nobody sends its weights around.
    - ``loss`` depends on every trained parameter at every step, on all processes alike. Where a step does without some
      of them, it adds :meth:`idle` of these: their gradients are then exactly zero instead of missing.
    """

    options: ClassVar[type]
    helpers: ClassVar[tuple[str, ...]] = ()  # names of all AdamW groups there may be, for optimiser.rates

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.encoder = context.encoder
        self.preprocess = context.preprocess
        self.augmentation = context.augmentation
        self.aside: list[nn.Module] = []  # wholly frozen towers: attributes, but no submodules

    def hold(self, name: str, tower: nn.Module) -> None:
        """Make a tower the attribute ``name``: as a submodule if anything of it is trained, set aside if nothing is.

        What is set aside is in evaluation mode for good, moves with the task from device to device, and is in nothing
        that goes through its modules: parameters, state, what is wrapped, broadcast, reduced or sharded.
        """
        if any(parameter.requires_grad for parameter in tower.parameters()):
            setattr(self, name, tower)
        else:
            self.aside.append(tower.eval())
            object.__setattr__(self, name, tower)  # past nn.Module, which would take it in

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Task:
        super()._apply(fn, recurse)
        for tower in self.aside:
            tower._apply(fn)
        return self

    def idle(self, *modules: nn.Module | None) -> Tensor:
        """Zero that depends on every trained parameter of these modules, to be added to a loss that does not.

        Parameters that are sharded need no such thing, and are left out.
        """
        zero = next(self.encoder.parameters()).new_zeros(())
        for module in modules:
            for parameter in module.parameters() if module is not None else ():
                if parameter.requires_grad and not hasattr(parameter, "full_tensor"):
                    # An empty slice: nothing to compute, and no infinite weight can turn zero into not-a-number.
                    zero = zero + parameter.flatten()[:0].sum()
        return zero

    @abstractmethod
    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses and outputs of a training batch.

        Args:
            batch: skeletons, labels and extras (:func:`mmcl.data.dataset.collate`), and how far the run is: ``epoch``,
                from 0, and ``progress``, the share of its steps that are done.

        Returns:
            ``loss``, what is minimised; its parts ``loss_*``, for the log; ``scores`` (N, K), if the batch was scored.
        """

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

    @staticmethod
    def text_space(learned: Mapping[str, Tensor], options: Any) -> TextSpace | None:
        """Where the features of a checkpoint's encoder meet texts; None where they do not.

        Args:
            learned: tensors of the checkpoint, by their names in ``state_dict()``.
            options: of the task.
        """
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
            return self.preprocess(joints, batch["lengths"], batch["keys"], self.augmentation)
