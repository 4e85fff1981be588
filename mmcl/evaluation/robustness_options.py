"""What is asked of models under attack: attacks with their options, budgets, other models, clips."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mmcl.attacks.base import Attack, Budget, build_attack
from mmcl.common.errors import UserError

# Options of an attack that are said once for all attacks: how the evaluation calls each, and `mmcl attack`.
SHARED = {
    "epsilon": "epsilons (--epsilon)", "unit": "unit (--unit)", "targeted": "targeted (--targeted)",
    "seed": "draws (--draws)",
}  # fmt: skip
NOTE = "/"  # between an attack's name and what tells it from others of that name


@dataclass(frozen=True)
class RobustnessOptions:
    """Options of :class:`~mmcl.evaluation.robustness.Robustness`.

    Attributes:
        attacks: names; the first one's success on the model itself is the main number. Noise is always tried, too. A
            slash begins a note, with which one attack is tried with several options: tasar, tasar/still.
        options: attack -> its options, but for epsilon, unit, targeted and seed.
        epsilons: budgets; the first is the main one.
        unit: of the budgets, metres or body.
        targeted: a clip succeeds where a model gives the class that was asked for, another one for each true class.
        models: name -> folders of other models; several folders are seeds of one thing.
        seeds: folders of other seeds of the model itself.
        name: what the model itself is called; its folder's name where not given.
        every_pair: attack each of the models in turn, not the given one alone.
        smoothing: deviations of input smoothing; each model is judged behind each of them, too.
        draws: seeds of the attacks.
        clips: how many, at most.
        seed: of their choice, and of targets.
        save: keep the changed clips of the first model in scores.npz; they are recordings of people.
    """

    attacks: tuple[str, ...] = ("ifgsm",)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    epsilons: tuple[float, ...] = (0.01,)
    unit: Literal["metres", "body"] = "metres"
    targeted: bool = False
    models: dict[str, list[str]] = field(default_factory=dict)
    seeds: tuple[str, ...] = ()
    name: str = ""
    every_pair: bool = False
    smoothing: tuple[float, ...] = ()
    draws: tuple[int, ...] = (0,)
    clips: int = 100
    seed: int = 0
    save: bool = False

    def __post_init__(self) -> None:
        if not (self.attacks and self.epsilons and self.draws) or self.clips < 1:
            raise UserError("robustness needs an attack, an epsilon, a draw and at least one clip")
        if min(self.draws) < 0:
            raise UserError(f"robustness.draws holds {min(self.draws)}: seeds must be 0 or more")
        for epsilon in self.epsilons:
            Budget(epsilon, self.unit)
        for name, told in (("an epsilon", self.epsilons), ("a smoothing", self.smoothing)):
            if len({f"{number:g}" for number in told}) < len(told):
                raise UserError(f"robustness: {name} is there twice, in six digits: {', '.join(map(str, told))}")
        if unused := sorted(set(self.options) - set(self.attacks)):
            raise UserError(f"robustness has options of attacks that are not asked for: {', '.join(unused)}")
        for name in self.attacks:
            self.attack(name)

    def attack(self, name: str) -> Attack:
        """An attack with its options; its budget is that of the first epsilon.

        Raises:
            UserError: no such attack, or options that are wrong.
        """
        own = self.options.get(name, {})
        if said := next((key for key in SHARED if key in own), None):
            raise UserError(f"'{said}' is no option of {name} alone: give {SHARED[said]}, which is for all attacks")
        common = {"epsilon": self.epsilons[0], "unit": self.unit, "targeted": self.targeted}
        return build_attack(name.partition(NOTE)[0], {**own, **common})

    @property
    def tried(self) -> tuple[str, ...]:
        """Names of the attacks, noise among them."""
        return self.attacks if "noise" in self.attacks else (*self.attacks, "noise")


def attack_options(options: RobustnessOptions) -> dict[str, Any]:
    """All options of every attack, as plain data."""
    varied = ("epsilon", "seed")
    return {name: {key: value for key, value in asdict(options.attack(name).options).items() if key not in varied}
            for name in options.tried}  # fmt: skip
