"""The contract between what is trained (a task) and how it is trained (the engine)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.data.dataset import ExtraInputs
from mmcl.models.text_head import TextHead
from mmcl.tasks.context import Context
from mmcl.tasks.distil import Teachers, distillation_loss
from mmcl.tasks.stages import ParameterGroup, Stage
from mmcl.tasks.toolbox import Toolbox

# A function of raw joints (N, M, T, V, C) and lengths (N,), one row a clip, and the clips it is applied to (positions
# in the store) -> (clips, ...) array. All processes share the work, and all get the whole result.
Apply = Callable[[Callable[[Tensor, Tensor], Tensor], Sequence[int] | np.ndarray], np.ndarray]


class Task(Toolbox, ABC):
    """One ``nn.Module`` whose forward pass turns a batch into one loss, and which says how it is to be trained.

    The engine wraps it as a whole and knows no task by name. It goes through :meth:`stages`; in each, it calls
    :meth:`begin`, ``forward`` with every batch, backpropagates ``loss``, updates the groups that are due, calls
    :meth:`after_step`, and at last :meth:`end`. ``encoder`` and ``text_head`` are what leaves a task: what is exported
    and judged, found in a checkpoint by these prefixes. ``state_dict()`` is what a checkpoint holds: towers leave their
    frozen weights out of it.

    A killed run goes on as if nothing had happened, and many processes take the steps of one, if a task keeps to this:

    - Everything it remembers is a parameter, or a buffer of fixed size that is changed in place. Plain attributes that
      are set after ``__init__`` are lost when a run is resumed.
    - :meth:`begin` and :meth:`end` are functions of saved state, since both may run again after a kill.
    - ``loss`` depends on every trained parameter at every step, on all processes alike. Where a step does without some
      of them, it adds :meth:`idle` of these: their gradients are then exactly zero instead of missing.
    - Random numbers come from :meth:`noise`, :meth:`dice` and :meth:`generator` (dropout modules excepted).
    - A tower that may be frozen is taken in by :meth:`hold`, so that nobody sends its weights around.
    - An adversary is met through :meth:`fixed`, in one backward pass with its own loss.
    - Outside ``forward``, weights are reached through ``apply`` or :meth:`applied`.
    """

    options: ClassVar[type]
    classifies: ClassVar[bool] = True  # whether it trains the encoder's classifier
    compares: bool = False  # whether clips of a micro-batch are told from each other, which takes two of them
    own_rates: ClassVar[tuple[str, ...]] = ()  # all groups there may be with an update of their own: optimiser.rates
    memory_savers: ClassVar[tuple[str, ...]] = ()  # keys that save memory, with the values that do: task.x=4
    text_head: TextHead | None
    teachers: Teachers | None = None  # held like any frozen tower, where `distil` names some

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.text_head = None

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Keys of a configuration (``task.x``, ``encoder.name``, ...) with which a test trains this task in seconds.

        Args:
            folder: for files that the task needs, such as made-up towers.
        """
        return {}

    def stages(self) -> list[Stage]:
        """The phases of training, in order; their names differ."""
        return [Stage()]

    @abstractmethod
    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        """Every trainable parameter, in exactly one group, whatever the stage trains: that is ``stage.train``."""

    @abstractmethod
    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses and outputs of a training batch.

        Args:
            batch: joints, lengths, labels, keys, clips and extras (:func:`mmcl.data.dataset.collate`), and where the
                run is: ``epoch`` and ``step``, both from 0 over the whole run; ``progress``, the share of its steps
                that are done; ``micro``, which of the ``micros`` micro-batches of the step it is; ``stage``, the name;
                ``stage_step`` of ``stage_steps``, how far the stage is; ``due``, names of the groups that this step
                updates; ``augment``; ``step_key`` for :meth:`dice`.

        Returns:
            ``loss``, what is minimised; for the log its parts ``loss_*`` and shares of the batch ``share_*``,
            detached; ``scores`` (N, K) of its clips, in their order, if it was scored, with their gradients: teachers
            are compared with them; and whatever :meth:`after_step` needs, detached.
        """

    def begin(self, stage: Stage, apply: Apply) -> None:
        """Called before the first step of a stage, on all processes, in evaluation mode, without gradients."""

    def end(self, stage: Stage, apply: Apply) -> None:
        """Called after the last step of a stage, on all processes, in evaluation mode, without gradients."""

    def after_step(
        self, stage: Stage, batches: list[dict[str, Any]], outputs: list[dict[str, Tensor]]
    ) -> None:  # fmt: skip
        """Called after each update, without gradients; not where a gradient scaler skipped it.

        Args:
            stage: the stage.
            batches: this process's micro-batches of the step, in order. Rows of other processes are gathered by
                :func:`mmcl.common.distributed.gather_rows`.
            outputs: what ``forward`` gave for each.
        """

    def validation(self, apply: Apply, clips: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """How good the task is on held-out clips; the higher the first number, the better.

        Args:
            apply: see :data:`Apply`; the task is in evaluation mode.
            clips: (n,) positions in the store.
            labels: (n,) outputs that are right for them.
        """
        return {"top1": float((apply(self.scores, clips).argmax(axis=1) == labels).mean())}

    def show(self, folder: Path, epochs: int) -> list[str]:
        """Write into the run folder what people may want to see of the training; returns lines for the log.

        Called on the main process alone, in evaluation mode, without gradients: before the first step, behind the 1st,
        2nd, 4th, 8th … epoch, and at the end; not where weights are sharded. It asks nothing of other processes, draws
        no random numbers, and nothing is learned from it.

        Args:
            folder: of the run.
            epochs: of the run that are done.
        """
        return []

    def remarks(self, values: Mapping[str, float]) -> list[str]:
        """What is to be said of a line of the log, in words; each is said once.

        Args:
            values: losses, and ``gradient_norm/NAME`` of the groups that were due.
        """
        return []

    def extras(self) -> ExtraInputs | None:
        """What loader workers add to a training batch beyond skeletons; None for nothing."""
        return None

    @property
    def needs_images(self) -> bool:
        """Whether training batches need the decoded person crops."""
        return False

    @property
    def shown_clip(self) -> Any:
        """(clips in the store,) the clip whose pictures each clip gets, or None where that is itself."""
        return None

    def loaded(self) -> dict[str, str]:
        """What was loaded besides the encoder, in words, for the run's summary."""
        return {}

    def helpers(self) -> dict[str, str]:
        """All that helps it to learn, in words: what it loaded, and its teachers."""
        return self.loaded() | (self.teachers.words if self.teachers is not None else {})

    def taught(self, batch: dict[str, Any], outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What ``forward`` gave for a batch, with what teachers say of its clips in the loss, where there are any.

        Called by the engine, outside ``forward``. Teachers see the augmented clips of the batch. Where a task attacks
        its clips, ``scores`` are of the attacked clips and teachers still see the clean ones.
        """
        if self.teachers is None:
            return outputs
        scores, options = outputs.get("scores"), self.teachers.options
        if scores is None:
            raise UserError(f"{type(self).__name__} scores no clips as it trains: distil.teacher can teach it nothing")
        if not scores.requires_grad and any(parameter.requires_grad for parameter in self.encoder.parameters()):
            raise ValueError(f"{type(self).__name__} detaches the scores that it gives: no teacher could reach it")
        augmentation = self.augmentation if batch.get("augment", True) else None
        said = self.teachers(batch, augmentation, self.preprocess.dtype)
        loss = distillation_loss(scores, said, options.temperature)
        return outputs | {"loss": outputs["loss"] + options.weight * loss, "loss_distil": loss.detach()}
