"""Options of SA-DVAE."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from mmcl.common.errors import UserError
from mmcl.towers.clip import ClipOptions
from mmcl.towers.text import SpaceOptions


@dataclass(frozen=True)
class SADVAEOptions:
    """Options of the task `sa_dvae`.

    Attributes:
        meaning: latent numbers that skeletons and texts share (r).
        manner: latent numbers of the skeleton alone (v).
        cycles: each is `schedule.epochs` passes over the clips (published: one); weights grow anew in each, and each is
            kept as a checkpoint.
        weights: annealing (zero for a third of a cycle, then linear, up to the two weights below) or ramp (the released
            default: late in a cycle, up to 0.0233 and 0.0113, the second one from the third cycle on).
        skeleton_weight: of the divergences of meaning and manner at the end of a cycle; annealing alone.
        text_weight: of the texts' divergence and of what the critic finds, at the end of a cycle; annealing alone.
        entanglement: factor on what the VAEs pay for what the critic finds; 0 is SA-DVAE without its critic.
        critic_every: the critic is updated at every so many steps of a cycle, from the first one on.
        rate: of Adam, of VAEs and critic alike; `optimiser.rates` names another one for each.
        text: what the texts of classes are read by.
        clip: which CLIP, where texts are read by one.
        cache: keep the backbone's features beside the clips, for other runs; else every run computes them once.
        released: as the released code has it: one random number a clip instead of one for each latent number; decoders
            and classifier end in a ReLU; the critic's loss is multiplied by the weight of the moment, so that it learns
            nothing where that is zero; the critic is updated at the last of every `critic_every` steps of a cycle;
            features are not scaled. It does not include that the released code updates the critic before the VAEs pay
            for what it finds (here both see the weights of before the step), nor that it joins texts of several sources
            as they are (here each part is brought to length 1 first).
    """

    meaning: int = 160
    manner: int = 8
    cycles: int = 10
    weights: Literal["annealing", "ramp"] = "ramp"
    skeleton_weight: float = 0.023
    text_weight: float = 0.011
    entanglement: float = 1.0
    critic_every: int = 5
    rate: float = 3.4e-5
    text: SpaceOptions = field(default_factory=SpaceOptions)
    clip: ClipOptions = field(default_factory=ClipOptions)
    cache: bool = True
    released: bool = False

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key.
        """
        for key in ("meaning", "manner", "cycles", "critic_every"):
            if getattr(self, key) < 1:
                raise UserError(f"task.{key} is {getattr(self, key)}: it must be at least 1")
        for key in ("skeleton_weight", "text_weight", "entanglement"):
            if not 0 <= getattr(self, key) < math.inf:
                raise UserError(f"task.{key} is {getattr(self, key)}: it must be 0 or more")
        if not 0 < self.rate < math.inf:
            raise UserError(f"task.rate is {self.rate}: it must be more than 0")
        self.text.check()
