"""What every attack is: clips go in, clips that a model errs on come out, inside a budget that is checked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mmcl.attacks import ATTACKS
from mmcl.common.errors import UserError
from mmcl.common.method import Method
from mmcl.common.precision import widen
from mmcl.models.model import Model

if TYPE_CHECKING:  # reads clip stores, which needs more than attacking does
    from mmcl.data.selection import Selection

AXES = 3  # what follows the coordinates is the confidence of a pose estimator
MOST = 1e6  # of an epsilon, in metres or bodies: more means nothing, and single precision ends far above
SLACK = 1e-6  # relative, of the budget: rounding of adding and subtracting in float32


@dataclass(frozen=True)
class Budget:
    """How far a coordinate may move.

    Attributes:
        epsilon: largest change of a coordinate, 0 or more.
        unit: metres, or body: the clip's own body size, the median over frames and persons there of the largest extent
            along an axis.
    """

    epsilon: float = 0.01
    unit: Literal["metres", "body"] = "metres"

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= MOST:
            raise UserError(f"the epsilon of an attack must be from 0 to {MOST:g}, not {self.epsilon}")

    def limit(self, joints: Tensor, mask: Tensor) -> Tensor:
        """(N, 1, 1, 1, 1) metres that a coordinate of each clip may move; arguments as in :meth:`Attack.run`."""
        clips = joints.shape[0]
        if self.unit == "metres":
            return joints.new_full((clips, 1, 1, 1, 1), self.epsilon)
        high = joints.masked_fill(~mask[..., None], -torch.inf).amax(dim=3)
        low = joints.masked_fill(~mask[..., None], torch.inf).amin(dim=3)
        extent = torch.where(torch.isfinite(high - low), high - low, 0.0).amax(dim=-1)  # (N, M, T): of every body
        sizes = torch.where(extent > 0, extent, torch.nan).flatten(1).nanmedian(dim=1).values.nan_to_num(0.0)
        return self.epsilon * sizes.view(-1, 1, 1, 1, 1)


@dataclass(frozen=True)
class AttackOptions:
    """Options that every attack has.

    Attributes:
        epsilon: budget, see :class:`Budget`.
        unit: of the budget.
        targeted: labels say what the model shall answer, not what it shall not.
        seed: of whatever is drawn.
    """

    epsilon: float = 0.01
    unit: Literal["metres", "body"] = "metres"
    targeted: bool = False
    seed: int = 0

    @property
    def budget(self) -> Budget:
        """Epsilon and its unit."""
        return Budget(self.epsilon, self.unit)


class Attack(Method):
    """A change of clips within a budget.

    The options of a subclass extend :class:`AttackOptions`, and it implements :meth:`perturb`.
    """

    registry, options_type = ATTACKS, AttackOptions

    def prepare(self, model: Model, data: Selection | None) -> Model:
        """Make ready what the attack needs beside the clips, once, before :meth:`run`.

        Args:
            model: that will be attacked.
            data: clips that the attack may learn from, never those that it will change.

        Returns:
            The model to give to :meth:`run`: the same, or one that was fitted further.

        Raises:
            UserError: it needs clips, or files that are not there.
        """
        return model

    @property
    def beside(self) -> Sequence[Model]:
        """Models that it looks at beside the one that is attacked: what it does to them is no transfer."""
        return ()

    @abstractmethod
    def perturb(
        self, model: Model, joints: Tensor, lengths: Tensor, labels: Tensor, mask: Tensor, limit: Tensor
    ) -> Tensor:
        """Change joints.

        Args:
            model: as in :meth:`run`.
            joints: (N, M, T, V, C) without NaN; those outside the mask have zeros as coordinates, and must stay so.
            lengths: (N,) frames of each clip up to the last in which anybody is there.
            labels: as in :meth:`run`.
            mask: (N, M, T, V) bool.
            limit: (N, 1, 1, 1, C), the budget in metres; zero for what is no coordinate.

        Returns:
            (N, M, T, V, C).
        """

    def run(self, model: Model, joints: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attack clips.

        Args:
            model: one's own; attacks that need gradients take them from it.
            joints: (N, M, T, V, C) clips, metres; float32, or float64 where the model computes in it. A confidence
                behind the coordinates stays as it is.
            labels: (N,) true classes, or with ``targeted`` those that the model shall answer.
            mask: (N, M, T, V) bool, joints that are there; where not given, those of :func:`shown`. Frames behind the
                end of a clip are absent.

        Returns:
            (N, M, T, V, C) changed joints. No coordinate is further from its place than the budget, absent joints have
            zeros as coordinates, and every confidence is what it was.

        Raises:
            UserError: labels of another shape, or classes that the model does not have.
            RuntimeError: the attack left its budget, which is a fault of the attack; a UserError that names the attack
                where it is one of an installed package.
        """
        if labels.shape != joints.shape[:1] or labels.is_floating_point():
            raise UserError(f"labels must be whole numbers ({len(joints)},), not {labels.dtype} {tuple(labels.shape)}")
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(model.class_names)):
            raise UserError(f"labels must be from 0 to {len(model.class_names) - 1}, the classes of the model")
        clean = widen(joints.detach()).nan_to_num(nan=0.0)
        there = shown(joints) if mask is None else mask
        clean = torch.cat([clean[..., :AXES] * there[..., None], clean[..., AXES:]], dim=-1)
        limit = self.options.budget.limit(clean[..., :AXES], there)
        limit = limit * (torch.arange(clean.shape[-1], device=clean.device) < AXES)
        frames = torch.arange(1, joints.shape[2] + 1, device=joints.device)
        lengths = (there.any(dim=3).any(dim=1) * frames).amax(dim=1)
        with self.registry.blamed(type(self)):
            found = self.perturb(model, clean, lengths, labels, there, limit).detach()
            self._check(found, clean, there, limit)
        return found

    def _check(self, found: Tensor, clean: Tensor, mask: Tensor, limit: Tensor) -> None:
        if found.shape != clean.shape or not bool(torch.isfinite(found).all()):
            raise RuntimeError(f"attack '{self.name}' gave joints of another shape, or such that are not finite")
        moved = (found - clean).abs()
        room = limit * (1 + SLACK) + SLACK * clean.abs()  # float32 keeps seven digits of the coordinate itself
        if bool((moved > room).any()):
            most = float(moved.max())
            raise RuntimeError(f"attack '{self.name}' moved a coordinate by {most:.3g}, beyond its budget")
        if bool((moved[~mask] != 0).any()):
            raise RuntimeError(f"attack '{self.name}' moved joints that are not there")


def shown(joints: Tensor) -> Tensor:
    """(N, M, T, V) bool, joints of clips (N, M, T, V, C) that are there.

    Those are finite, their coordinates are not all zero, and their confidence, where there is one, is positive. Models
    take joints for missing by the same rule.
    """
    there = joints.isfinite().all(dim=-1) & (joints[..., :AXES] != 0).any(dim=-1)
    return there & (joints[..., AXES:] > 0).all(dim=-1)


build_attack = Attack.build
