"""BASAR: an attack that sees nothing but answers, and keeps to bodies whose bones fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmcl.attacks.base import Attack, AttackOptions
from mmcl.attacks.scene import Scene, fitted_to, per_clip, per_coordinate
from mmcl.attacks.walk import around, frame_distance, keep_bones, released_around, released_delta, towards
from mmcl.common.errors import UserError
from mmcl.common.printing import complain
from mmcl.models.model import Model

if TYPE_CHECKING:
    from mmcl.data.selection import Selection

FIRST_DELTA, MOST_DELTA, CHANGE = 0.1, 0.4, 0.9  # of the exploration
FEW, MANY = 0.2, 0.8  # shares of trials that hit: below the first the exploration gets smaller, above the second larger
FIRST_SHARE = 0.9  # of the way to the clean clip, and again where it would be all of it
HALVINGS = 12  # of the search for the border at the beginning
EACH = 4  # clips of a class to begin at, where one is asked for
AT_ONCE = 64  # of these clips in a forward pass


@dataclass(frozen=True)
class BASAROptions(AttackOptions):
    """Options of :class:`BASAR`.

    Attributes:
        steps: rounds; each asks the model ``trials`` + 1 times, and once more where bones are fitted.
        trials: random displacements of a round.
        fit_every: rounds from one fit of the bones to the next.
        starts: clips that may be begun at, of other classes; with ``targeted`` first those that the model answers with
            the class that is wanted.
        released: explore as the released code does, see :func:`mmcl.attacks.walk.released_around` and
            :func:`mmcl.attacks.walk.released_delta`; clips with one body.
    """

    steps: int = 100
    trials: int = 5
    fit_every: int = 25
    starts: int = 20
    released: bool = False

    def __post_init__(self) -> None:
        for key in ("steps", "trials", "fit_every", "starts"):
            if getattr(self, key) < 1:
                raise UserError(f"basar.{key} is {getattr(self, key)}: it must be at least 1")


class BASAR(Attack):
    """Diao, Shao, Yang, Zhou, Wang, "BASAR: black-box attack on skeletal action recognition", CVPR 2021.

    It begins at a clip of another class and walks along the border of the classes towards the clean clip. The released
    code fits bones and joint angles by a solver; here every bone is brought to its own length. What is still further
    away than the budget at the end is cut to it, and may not fool anybody then.

    Attributes:
        begins: clips (n, M, T, V, C) to begin at and their lengths, from :meth:`prepare`; None: the attacked clips
            themselves, each of which may be where another one begins.
    """

    options_type = BASAROptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"steps": 2, "trials": 2, "fit_every": 1, "starts": 4})

    def __init__(self, options: BASAROptions) -> None:
        super().__init__(options)
        self.begins: tuple[Tensor, Tensor] | None = None

    def prepare(self, model: Model, data: Selection | None) -> Model:
        """Keep clips to begin at: one of every class, and several where a class is asked for (``targeted``).

        A class that has none is named: clips that shall be answered so may stay as they are.

        Raises:
            UserError: there are none.
        """
        if data is None or not len(data.clips):
            raise UserError("basar begins at clips of other classes: give it training clips")
        from mmcl.data.dataset import ClipDataset, collate

        order = np.random.default_rng(self.options.seed).permutation(data.clips)
        each = EACH if self.options.targeted else 1
        labels, chosen = data.store.labels, []
        for label in dict.fromkeys(labels[order].tolist()):
            chosen += [int(clip) for clip in order[labels[order] == label][:each]]
        known = {data.store.class_names[int(labels[clip])] for clip in chosen}
        if self.options.targeted and (without := [name for name in model.class_names if name not in known]):
            some = f"{', '.join(without[:5])}{' …' if without[5:] else ''}"
            complain(
                "note", f"basar has no training clip of {some}: where that is asked for, clips may stay as they are"
            )
        batch = collate([ClipDataset(data.store)[(0, clip)] for clip in chosen])
        self.begins = batch["joints"], batch["lengths"]
        return model

    def perturb(
        self, model: Model, joints: Tensor, lengths: Tensor, labels: Tensor, mask: Tensor, limit: Tensor
    ) -> Tensor:
        """The nearest clip found that fools the model, within the budget; the clean one where none was found."""
        scene = Scene(model, joints, lengths, labels, mask, limit, self.options.targeted)

        def fools(x: Tensor) -> Tensor:
            return per_clip(scene.fooled(model(x, lengths)))

        current = self._start(scene, fools)
        delta, share = (per_clip(joints.new_full((len(joints),), value)) for value in (FIRST_DELTA, FIRST_SHARE))
        for number in range(self.options.steps):
            current, delta = self._explore(scene, fools, current, delta, number)
            nearer = current + towards(current, joints, share)
            hit = fools(nearer)
            current = torch.where(hit, nearer, current)
            share = torch.where(hit, 2 * share, share / 2)
            share = torch.where(share >= 1, FIRST_SHARE, share)
            if self.options.released:
                delta = released_delta(delta, per_clip(frame_distance(current, joints, lengths)))
            if (number + 1) % self.options.fit_every == 0:
                current = self._accept(fools, current, keep_bones(current, joints, mask, model.layout.parents))
        found = joints + scene.inside(current - joints)
        fitted = joints + scene.inside(keep_bones(current, joints, mask, model.layout.parents) - joints)
        return self._accept(fools, found, fitted)

    def _accept(self, fools: Callable[[Tensor], Tensor], current: Tensor, other: Tensor) -> Tensor:
        """The other clips where they fool the model."""
        return torch.where(fools(other), other, current)

    def _start(self, scene: Scene, fools: Callable[[Tensor], Tensor]) -> Tensor:
        """Clips on the far side of the border, as near to it as a bisection finds; the clean ones where none is."""
        begins = [part.to(scene.joints.device) for part in self.begins or (scene.joints, scene.lengths)]
        far, done = scene.joints, fools(scene.joints)
        order = self._order(scene, *begins)
        for place in range(min(self.options.starts, order.shape[1])):
            other = fitted_to(scene, begins[0][order[:, place]], begins[1][order[:, place]])
            hit = fools(other) & ~done
            far, done = torch.where(hit, other, far), done | hit
        near = scene.joints
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            hit = fools(middle)
            near, far = torch.where(hit, near, middle), torch.where(hit, middle, far)
        return torch.where(done, far, scene.joints)

    def _order(self, scene: Scene, joints: Tensor, lengths: Tensor) -> Tensor:
        """(N, B) random orders of B clips to begin at; those come first that are answered as is asked for."""
        order = scene.draws(self.options.seed, "begin").order(len(joints)).to(joints.device)
        if not scene.targeted:
            return order
        parts = zip(joints.split(AT_ONCE), lengths.split(AT_ONCE), strict=True)
        answers = torch.cat([scene.model(*part).argmax(dim=1) for part in parts])
        wanted = answers[order] == scene.labels[:, None]
        return order.gather(1, wanted.int().argsort(dim=1, descending=True, stable=True))

    def _explore(
        self, scene: Scene, fools: Callable[[Tensor], Tensor], current: Tensor, delta: Tensor, number: int
    ) -> tuple[Tensor, Tensor]:
        """Another clip that fools the model as far away, and how far to look for the next one."""
        found, hits = current, torch.zeros_like(delta)
        for trial in range(self.options.trials):
            moved = current + self._aside(scene, current, delta, f"explore {number} {trial}")
            hit = fools(moved)
            found, hits = torch.where(hit, moved, found), hits + hit
        ratio = hits / self.options.trials
        delta = torch.where(ratio <= FEW, delta * CHANGE, torch.where(ratio >= MANY, delta / CHANGE, delta))
        return found, delta.clamp(max=MOST_DELTA)

    def _aside(self, scene: Scene, current: Tensor, delta: Tensor, name: str) -> Tensor:
        draws = scene.draws(self.options.seed, name)
        if self.options.released:
            (bodies, T, V), C = current.shape[1:4], current.shape[-1]
            if bodies > 1:
                raise UserError(f"basar released takes clips with one body, not {bodies}")
            noise = draws.normal(1, T, T, C).to(current)
            rest = None
            if V > T:
                rest = scene.draws(self.options.seed, f"{name} rest").normal(1, T, V, C).to(current)
            return released_around(current, scene.joints, noise, delta, rest=rest) * scene.movable
        noise = per_coordinate(draws, current, normal=True) * scene.movable
        return around(current, scene.joints, noise, delta) * scene.movable
