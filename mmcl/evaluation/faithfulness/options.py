"""How an attribution is tested."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmcl.common.errors import UserError


@dataclass(frozen=True)
class FaithfulnessOptions:
    """Options of :class:`~mmcl.evaluation.faithfulness.evaluation.Faithfulness`.

    Attributes:
        method: name of the attribution.
        options: of the attribution.
        clips: at most so many, chosen at random from the side that is judged.
        background: clips of the training side.
        counts: how many joints are damaged, in turn.
        draws: random choices of joints for each clip and number, the control.
        shift: how far edge importance is moved away from zero, in ranges of E.
        stable: clips of which stability and the check of random weights are computed; 0 leaves them out.
        neighbours: noisy versions of each of them.
        noise: of these, standard deviation in metres.
        seed: of all that is drawn.
        released: sets of edge importance as released, of unequal sizes.
    """

    method: str = "deep_lift"
    options: dict[str, int | float | bool | str] = field(default_factory=dict)
    clips: int = 100
    background: int = 20
    counts: tuple[int, ...] = (1, 2, 3, 5, 8)
    draws: int = 20
    shift: float = 0.5
    stable: int = 20
    neighbours: int = 5
    noise: float = 0.005
    seed: int = 0
    released: bool = False

    def __post_init__(self) -> None:
        if min(self.clips, self.background, self.draws, self.neighbours, *self.counts) < 1 or not self.counts:
            raise UserError("faithfulness: clips, background, counts, draws and neighbours must be 1 or more")
        if len(set(self.counts)) < len(self.counts):
            raise UserError(f"faithfulness.counts is {list(self.counts)}: each number of joints may stand there once")
        checks = (("shift", self.shift >= 0, "0 or more"), ("stable", self.stable >= 0, "0 or more"),
                  ("noise", self.noise > 0, "above 0"))  # fmt: skip
        for key, good, wanted in checks:
            if not good:
                raise UserError(f"faithfulness.{key} is {getattr(self, key):g}: it must be {wanted}")
