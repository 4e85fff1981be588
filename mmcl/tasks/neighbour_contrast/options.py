"""Options of nearest-neighbour contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mmcl.common.errors import UserError


@dataclass(frozen=True)
class NeighbourContrastOptions:
    """Options of nearest-neighbour contrast; the defaults are STARS' for NTU RGB+D.

    Attributes:
        views: same gives both views of a clip the very same input, without augmentation, as STARS does: the neighbour
            is all that differs. augmented draws two, by the run's augmentation, as NNCLR does.
        queue: projections of earlier clips that are held. Far fewer than this are of use on small data sets, where
            all are versions of the same few clips.
        among: a neighbour is drawn from so many nearest ones.
        hidden: width of the predictor's hidden layer.
        temperature: cosines are divided by it.
        tuned: share of the encoder's levels that is trained, from the last one on; 0 trains the head alone.
        decay: factor on the learning rate from one level to the one before (STARS: 0.45 for NTU RGB+D, 0.4 for NTU
            RGB+D 120, 0.35 for PKU-MMD II).
        clip: largest norm of the gradient of each tensor; 0 does not clip.
        head_epochs: first train the head alone, for so many epochs more (STARS' variant in three stages: 20).
        released: let the gradient flow through one view alone, as the released code does: half of the gradient where
            both views are the same, before it is clipped. Batch statistics of the head are then updated twice a step.
    """

    views: Literal["same", "augmented"] = "same"
    queue: int = 32768
    among: int = 1
    hidden: int = 4096
    temperature: float = 0.07
    tuned: float = 0.5
    decay: float = 0.45
    clip: float = 3.0
    head_epochs: int = 0
    released: bool = False

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key, its value and what it should be.
        """
        checks: list[tuple[str, Any, bool, str]] = [
            ("queue", self.queue, self.queue >= 1, "at least 1"),
            ("among", self.among, 1 <= self.among <= self.queue, f"from 1 to task.queue ({self.queue})"),
            ("hidden", self.hidden, self.hidden >= 1, "at least 1"),
            ("temperature", self.temperature, self.temperature > 0, "positive"),
            ("tuned", self.tuned, 0 <= self.tuned <= 1, "in [0, 1]"),
            ("decay", self.decay, 0 < self.decay <= 1, "in (0, 1]"),
            ("clip", self.clip, self.clip >= 0, "0 or more"),
            ("head_epochs", self.head_epochs, self.head_epochs >= 0, "0 or more"),
        ]
        for key, value, good, wanted in checks:
            if not good:
                raise UserError(f"task.{key} is {value}: it must be {wanted}")
