"""Options of long-tailed learning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mmcl.common.errors import UserError
from mmcl.tasks.long_tail.part_mix import LONGEST, SHORTEST


@dataclass(frozen=True)
class LongTailOptions:
    """How classes of uneven size are learned.

    Attributes:
        loss: cross_entropy, or balanced (balanced softmax, which is logit adjustment by the true counts of the
            training clips).
        adjustment: factor on the logarithm of the classes' shares in the balanced loss; 1 is balanced softmax.
        mixing: none; mixup (clips are added); st_mix (body parts of a stretch of time, drawn evenly); shap_mix (parts
            drawn so that the rarer class keeps, or gives, what it is recognised by).
        window: shortest and longest stretch of time that parts are pasted into, as shares of the clip. The default is
            28 to 44 of 64 frames; the paper has 13/25 and 20/25 for Kinetics.
        warmup_epochs: of the run, in which shap_mix draws parts evenly, since saliencies say nothing yet.
        saliency_clips: share of each batch from which saliencies are estimated. A smaller share is as unbiased, slower
            to settle, and cheaper; ``released`` takes all.
        label_smoothing: share of the target spread over all classes, of the clips as they are.
        released: as the released code has it: what takes chance away counts nothing in saliencies, parts have no
            context in the warm-up, classes are ranked by their number instead of their count, the warm-up replaces
            saliencies instead of averaging them, saliencies are estimated from all clips, and bodies that are absent
            are mixed, too.
    """

    loss: Literal["cross_entropy", "balanced"] = "balanced"
    adjustment: float = 1.0
    mixing: Literal["none", "mixup", "st_mix", "shap_mix"] = "shap_mix"
    window: tuple[float, float] = (SHORTEST, LONGEST)
    warmup_epochs: int = 5
    saliency_clips: float = 0.25
    label_smoothing: float = 0.0
    released: bool = False

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key, its value and what it should be.
        """
        checks = [
            ("adjustment", 0 <= self.adjustment < math.inf, "0 or more"),
            ("window", 0 < self.window[0] <= self.window[1] <= 1, "two shares in (0, 1], the smaller one first"),
            ("warmup_epochs", self.warmup_epochs >= 0, "0 or more"),
            ("saliency_clips", 0 < self.saliency_clips <= 1, "in (0, 1]"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
        ]
        for key, good, wanted in checks:
            if not good:
                raise UserError(f"task.{key} is {getattr(self, key)}: it must be {wanted}")
