"""One attack on several models at once, in the hope that it meets others, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mmcl.attacks.iterative import Ascent
from mmcl.attacks.mifgsm import MIFGSM, MomentumOptions
from mmcl.attacks.scene import Scene
from mmcl.common.errors import UserError
from mmcl.models.model import Model

if TYPE_CHECKING:
    from mmcl.data.selection import Selection


@dataclass(frozen=True)
class EnsembleOptions(MomentumOptions):
    """Options of :class:`Ensemble`.

    Attributes:
        models: folders of the other models, runs or bundles.
    """

    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.models:
            raise UserError(
                "ensemble needs models beside the one that is attacked: give --option models=[runs/a,runs/b]"
            )


class Ensemble(MIFGSM):
    """Scores summed over models: Dong et al., CVPR 2018, section 3.2, "ensemble in logits".

    Attributes:
        others: models beside the one that is attacked; :meth:`prepare` opens those of the options.
    """

    options_type = EnsembleOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"steps": 2})  # a test adds models

    def __init__(self, options: EnsembleOptions) -> None:
        super().__init__(options)
        self.others: list[Model] = []

    @property
    def beside(self) -> Sequence[Model]:
        """The other models."""
        return self.others

    def prepare(self, model: Model, data: Selection | None) -> Model:
        """Open the other models.

        Raises:
            UserError: one is no model, or has other classes.
        """
        from mmcl.models.folder import open_model

        self.others = [open_model(folder, layout=model.layout, device=model.device) for folder in self.options.models]
        for other in self.others:
            class_places(model, other)
        return model

    def slope(self, scene: Scene) -> Ascent:
        """The gradient of the loss of all models' scores together."""
        places = [class_places(scene.model, other).to(scene.joints.device) for other in self.others]

        def together(joints: Tensor) -> Tensor:
            total = scene.scores(joints)
            for other, place in zip(self.others, places, strict=True):
                total = total + other(joints, scene.lengths, grad=True)[:, place]
            return total

        return lambda joints, number: scene.gradient(joints, together)


def class_places(model: Model, other: Model) -> Tensor:
    """(K,) where another model has the classes of a model.

    Raises:
        UserError: it does not have the same classes.
    """
    if sorted(model.class_names) != sorted(other.class_names) or len(set(other.class_names)) < len(other.class_names):
        raise UserError(f"{other.path} has other classes than {model.path}: attacks go between models of the same ones")
    return torch.tensor([other.class_names.index(name) for name in model.class_names])
