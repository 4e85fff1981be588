"""What encoders share that compute body by body and take the mean over persons, frames and joints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from mmcl.encoders.base import Encoder
from mmcl.encoders.bodies import pack
from mmcl.skeletons.layout import Layout


class BodyEncoder(Encoder):
    """A batch norm of the input, units for each body in turn, means, a linear classifier.

    A subclass adds its units, then calls :meth:`add_classifier`. Its options have ``persons``, ``channels``,
    ``dropout`` (on the feature) and ``empty_bodies``: "once" computes the empty bodies of a batch once a slot, "each"
    one by one (``bodies.py``).

    Args:
        layout: V joints.
        classes: K.
        options: of the encoder.
    """

    head_parts: ClassVar[tuple[str, ...]] = ("dropout", "classifier")
    units: nn.ModuleList

    def __init__(self, layout: Layout, classes: int, options: Any) -> None:
        super().__init__(layout, classes, options)
        self.data_bn = nn.BatchNorm1d(options.persons * layout.joint_count * options.channels)

    def add_classifier(self, width: int) -> None:
        """The head over features of this width, initialised as published."""
        self.feature_width = width
        self.dropout = nn.Dropout(self.options.dropout) if self.options.dropout else nn.Identity()
        self.classifier = nn.Linear(width, self.classes)
        nn.init.normal_(self.classifier.weight, 0.0, (2.0 / self.classes) ** 0.5)

    def trunk(self, bodies: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, D, V, T'): bodies as :meth:`normalise` gives them, and what is averaged."""
        for unit in self.units:
            bodies = unit(bodies)
        return bodies

    def depth(self) -> list[list[nn.Module | nn.Parameter]]:
        """The batch norm of the input, then unit by unit."""
        units: list[list[nn.Module | nn.Parameter]] = [[unit] for unit in self.units]
        return [[self.data_bn], *units]

    def features(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, D): the mean over frames and joints, then over persons.

        Raises:
            UserError: another number of persons, joints or channels than the encoder was built for.
        """
        return self.each_body(lambda bodies: self.trunk(bodies).mean(dim=(2, 3)), x).mean(dim=1)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """``tokens`` (N, M, T', V, D) before any mean, and of them ``features`` (N, D) and ``scores`` (N, K)."""
        tokens = self.each_body(self.trunk, x).permute(0, 1, 4, 3, 2)
        features = tokens.mean(dim=(2, 3)).mean(dim=1)
        return {"features": features, "scores": self.head(features), "tokens": tokens}

    def each_body(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Call a function of bodies (B, C, V, T) -> (B, …) on a batch (N, M, T, V, C) -> (N, M, …).

        Only bodies that differ are given to it, where the options say so.
        """
        self.check(x)
        measured = self.data_bn.training and not self.training  # statistics are re-estimated: every body counts
        once = self.options.empty_bodies == "once" and not measured
        packing = pack(x, exact=not self.training) if once else None
        bodies = self.normalise(x)
        found = function(bodies) if packing is None else function(bodies[packing.rows])[packing.places]
        return found.unflatten(0, (-1, self.options.persons))

    def normalise(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N * M, C, V, T), what the trunk takes; empty bodies count in the statistics."""
        M, V, C = self.options.persons, self.layout.joint_count, self.options.channels
        x = self.data_bn(x.permute(0, 1, 3, 4, 2).flatten(1, 3))  # channels in the order person, joint, coordinate
        return x.unflatten(1, (M, V, C)).flatten(0, 1).transpose(1, 2).contiguous()

    def head(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K) unnormalised scores."""
        return self.classifier(self.dropout(features))
