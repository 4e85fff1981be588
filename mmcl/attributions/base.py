"""What every attribution is: how much each joint of a clip speaks for a class, and what of the score is left over.

Joints are those that the encoder sees, behind all preprocessing: there a joint of one clip can stand in for that of
another, since all people stand at the same place, look through the same window, and have the encoder's own layout.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmcl.attributions import ATTRIBUTIONS
from mmcl.attributions.released import released_shares
from mmcl.attributions.view import View, Watched
from mmcl.common.errors import UserError
from mmcl.common.method import Method
from mmcl.models.model import Model


@dataclass(frozen=True)
class Attributed:
    """What an attribution found.

    Attributes:
        values: (N, V), or (N, W, V) where frames are told apart; in units of the score. V joints of the encoder's
            layout, W frames of its window. A joint that a clip does not show has 0.
        scores: (N,) of the target class.
        baseline: (N,) the score without the clip's own content, which the method shares out the rest from.
        target: (N,) the class.
    """

    values: Tensor
    scores: Tensor
    baseline: Tensor
    target: Tensor

    @property
    def residual(self) -> Tensor:
        """(N,) score - baseline - sum of values: 0 where an attribution is additive."""
        return self.scores - self.baseline - self.values.flatten(1).sum(dim=1)

    @property
    def over_time(self) -> Tensor:
        """(N, V): the sum over frames."""
        return self.values if self.values.dim() == 2 else self.values.sum(dim=1)


@dataclass(frozen=True)
class AttributionOptions:
    """Options that every attribution has.

    Attributes:
        over: joints gives one number a joint, frames one a frame and joint.
        seed: of whatever is drawn.
        released: aggregate as ShapGCN does for NTU: the first body and 150 frames alone, and the mean over frames where
            shares would be summed, so that they no longer sum to the score.
    """

    over: Literal["joints", "frames"] = "joints"
    seed: int = 0
    released: bool = False


class Attribution(Method):
    """A way to share a score among joints.

    The options of a subclass extend :class:`AttributionOptions`, and it implements :meth:`attribute`.
    """

    registry, options_type = ATTRIBUTIONS, AttributionOptions

    @property
    def timed(self) -> bool:
        """Whether it tells frames apart."""
        return True

    @abstractmethod
    def attribute(self, view: View) -> Tensor:
        """(N, M, W, V, C) shares of the target's score; (N, W, V) or (N, V) where a method tells less apart."""

    def baseline(self, view: View) -> Tensor:
        """(N,) the score that shares are added to: by default its mean over the background."""
        return view.background_scores().mean(dim=1)

    def run(
        self, model: Model, joints: Tensor, lengths: Tensor | None, target: Tensor, background: Tensor,
        background_lengths: Tensor | None = None, rows: int = 64, watched: Watched = iter,
    ) -> Attributed:  # fmt: skip
        """Attribute the score of one class a clip; the mean over the model's views where it has several.

        Args:
            model: with its weights.
            joints: (N, M, T, V', C) float32 clips in the model's layout, metres, missing joints zero.
            lengths: (N,) real frames of each clip, or None where all have T.
            target: (N,) classes whose scores are explained.
            background: (B, M, T', V', C) clips that stand for "nothing in particular".
            background_lengths: (B,), or None.
            rows: clips at once in a forward pass.
            watched: what the batches of the longest loop go through, ``tqdm.tqdm`` for instance.

        Raises:
            UserError: no clips, shapes that do not go together, a class that the model does not have, or ``over:
                frames`` for a method that gives one number a joint.
        """
        _check(model, joints, target, background)
        found = []
        for number in range(model.preprocess.options.views):
            clips = (joints, lengths), (background, background_lengths)
            view = View.of(model, *clips, target, self.options.seed, number, rows, watched)
            scores = view.scores(view.x, target)
            with self.registry.blamed(type(self)):
                shares = self.attribute(view).detach()
                if not bool(torch.isfinite(shares).all()):
                    raise RuntimeError(f"attribution '{self.name}' gave shares that are not finite")
                found.append((self._gathered(shares), scores, self.baseline(view)))
        values, scores, baseline = (torch.stack(each).mean(dim=0) for each in zip(*found, strict=True))
        return Attributed(values, scores, baseline, target)

    def _gathered(self, shares: Tensor) -> Tensor:
        """Shares of an attribution as its options want them."""
        if self.options.released:
            if shares.dim() != 5:
                raise UserError(f"'{self.name}' tells no bodies and frames apart, as the released aggregation does")
            if self.options.over == "frames":
                raise UserError(f"{self.name}.over is frames: the released aggregation has one number a joint")
            shares = released_shares(shares)
        elif shares.dim() == 5:
            shares = shares.sum(dim=(1, 4))
        if shares.dim() == 2 and self.options.over == "frames":
            raise UserError(f"'{self.name}' gives one number a joint, and none a frame")
        return shares.sum(dim=1) if shares.dim() == 3 and self.options.over == "joints" else shares


def _check(model: Model, joints: Tensor, target: Tensor, background: Tensor) -> None:
    """Refuse what does not go together."""
    if joints.dim() != 5:
        raise UserError(f"clips must be (N, persons, frames, joints, 3), not {tuple(joints.shape)}")
    if not len(joints):
        raise UserError("there are no clips to explain")
    if background.dim() != 5 or background.shape[3] != joints.shape[3] or not len(background):
        raise UserError(
            f"background clips must be (B, persons, frames, {joints.shape[3]}, 3) with B of at least 1, not "
            f"{tuple(background.shape)}"
        )
    if target.shape != joints.shape[:1] or target.is_floating_point() or target.dtype == torch.bool:
        raise UserError(f"target must be whole numbers ({len(joints)},), not {target.dtype} {tuple(target.shape)}")
    if not (int(target.min()) >= 0 and int(target.max()) < len(model.class_names)):
        raise UserError(f"target must be from 0 to {len(model.class_names) - 1}, the classes of the model")


build_attribution = Attribution.build
