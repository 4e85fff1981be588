"""Adversarial training: some clips of every batch are attacked before the task sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmcl.attacks.base import Attack, build_attack
from mmcl.common.errors import UserError
from mmcl.tasks.base import Task

SEEN = ("joints", "lengths", "keys")  # of a batch: what the encoder's input is made of


@dataclass(frozen=True)
class AdversarialOptions:
    """Attacks in the loop of training.

    Attributes:
        attack: name of an attack that needs nothing but the network; none where empty.
        options: of it; epsilon is its budget.
        share: of the clips that are attacked, each drawn anew in every epoch.
    """

    attack: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    share: float = 0.5


def build_adversary(options: AdversarialOptions) -> Attack | None:
    """The attack, or None where none is asked for.

    Raises:
        UserError: no such attack, wrong options, a share that is none, or an attack that must be prepared.
    """
    if not 0.0 < options.share <= 1.0:
        raise UserError(f"task.adversarial.share is {options.share}: it must be in (0, 1]")
    if not options.attack:
        return None
    attack: Attack = build_attack(options.attack, options.options)
    if type(attack).prepare is not Attack.prepare:
        raise UserError(
            f"task.adversarial.attack is {options.attack}, which must be fitted to a trained model: take one like ifgsm"
        )
    return attack


class _Learner:
    """A task's network in training as attacks see a model: through the clips' own augmentation."""

    def __init__(self, task: Task, batch: dict[str, Any]) -> None:
        self.task, self.batch = task, batch
        self.layout = task.preprocess.source
        self.class_names = [str(output) for output in range(task.encoder.classes)]

    def __call__(self, joints: Tensor, lengths: Tensor | None = None, grad: bool = False) -> Tensor:
        scores: Tensor = self.task.encoder(self.task.augmented({**self.batch, "joints": joints}))
        return scores


def attacked(task: Task, attack: Attack, share: float, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with a share of its clips attacked, in single precision; the network is in evaluation meanwhile.

    Which clips, and what is drawn for them, is a function of seed, epoch and clip. Weights get no gradient of it.

    Args:
        task: with the network.
        attack: of :func:`build_adversary`.
        share: of the clips.
        batch: of training.
    """
    chosen = (task.noise(batch, "attacked").uniform() < share).nonzero().flatten()
    if not len(chosen):
        return batch
    part = {key: batch[key][chosen] for key in SEEN} | {"augment": batch.get("augment", True)}
    training, joints = task.encoder.training, batch["joints"].clone()
    task.encoder.eval()
    try:
        with torch.autocast(joints.device.type, enabled=False):
            model: Any = _Learner(task, part)
            joints[chosen] = attack.run(model, part["joints"], batch["labels"][chosen]).to(joints)
    finally:
        task.encoder.train(training)
    return {**batch, "joints": joints}
