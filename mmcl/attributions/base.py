"""What every attribution is: how much each joint of a clip speaks for a class, and what of the score is left over."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmcl.attributions import ATTRIBUTIONS
from mmcl.common.errors import UserError
from mmcl.common.method import Method
from mmcl.models.model import Model


@dataclass(frozen=True)
class Attributed:
    """What an attribution found.

    Attributes:
        values: (N, V), or (N, T, V) where frames are told apart; in units of the score.
        scores: (N,) of the target class.
        baseline: (N,) the score without the clip's own content: its mean over the background.
    """

    values: Tensor
    scores: Tensor
    baseline: Tensor

    @property
    def residual(self) -> Tensor:
        """(N,) score - baseline - sum of values: 0 where an attribution is additive."""
        return self.scores - self.baseline - self.values.flatten(1).sum(dim=1)


@dataclass(frozen=True)
class AttributionOptions:
    """Options that every attribution has.

    Attributes:
        over: joints gives one number a joint, frames one a frame and joint.
        seed: of whatever is drawn.
    """

    over: Literal["joints", "frames"] = "joints"
    seed: int = 0


class Attribution(Method):
    """A way to share a score among joints.

    The options of a subclass extend :class:`AttributionOptions`, and it implements :meth:`attribute`.
    """

    registry, options_type = ATTRIBUTIONS, AttributionOptions

    @abstractmethod
    def attribute(
        self, model: Model, joints: Tensor, lengths: Tensor | None, target: Tensor, background: Tensor
    ) -> Tensor:
        """(N, T, V), or (N, V) where a method cannot tell frames apart; arguments as in :meth:`run`."""

    def run(
        self, model: Model, joints: Tensor, lengths: Tensor | None, target: Tensor, background: Tensor
    ) -> Attributed:
        """Attribute the score of one class a clip.

        Args:
            model: with its weights.
            joints: (N, M, T, V, C) float32 clips, metres, missing joints zero.
            lengths: (N,) real frames of each clip, or None where all have T.
            target: (N,) classes whose scores are explained.
            background: (B, M, T, V, C) clips that stand for "nothing in particular", of the same persons and frames.

        Raises:
            UserError: shapes that do not go together, a class that the model does not have, or ``over: frames`` for a
                method that gives one number a joint.
        """
        if background.shape[1:] != joints.shape[1:] or not len(background):
            raise UserError(
                f"background clips must be (B, {', '.join(map(str, joints.shape[1:]))}) with B of at least 1, not "
                f"{tuple(background.shape)}"
            )
        if target.shape != joints.shape[:1] or target.is_floating_point():
            raise UserError(f"target must be whole numbers ({len(joints)},), not {target.dtype} {tuple(target.shape)}")
        if len(target) and not (int(target.min()) >= 0 and int(target.max()) < len(model.class_names)):
            raise UserError(f"target must be from 0 to {len(model.class_names) - 1}, the classes of the model")
        values = self.attribute(model, joints, lengths, target, background).detach()
        if values.dim() == 2 and self.options.over == "frames":
            raise UserError(f"'{self.name}' gives one number a joint, and none a frame")
        if values.dim() == 3 and self.options.over == "joints":
            values = values.sum(dim=1)
        scores = model(joints, lengths).gather(1, target[:, None])[:, 0]
        baseline = model(background).mean(dim=0)[target]
        return Attributed(values, scores, baseline)


def target_gradient(model: Model, joints: Tensor, lengths: Tensor | None, target: Tensor) -> Tensor:
    """(N, M, T, V, C) gradient of each clip's target score by its joints; missing ones get none."""
    leaf = joints.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        total = model(leaf, lengths, grad=True).gather(1, target[:, None]).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
    return gradient


build_attribution = Attribution.build
