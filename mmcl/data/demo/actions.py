"""The classes of the demo dataset: which primitives make up each, what is held, and who else is there.

Everything is written for a right-hander. "drink from a cup" and "make a phone call" share one movement but for a
few centimetres and a tilt of the head, less than the spread between subjects; so do "read a book" and "look at a
tablet". What tells each pair apart is the object, which the video shows and the skeleton does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mmcl.data.demo.motions import Act, Vector, bend, both, reach, sink, step, swing_leg, walk


@dataclass(frozen=True)
class Action:
    """One class.

    Attributes:
        name: as in ``prompts/demo.yaml``.
        acts: what the subject does.
        held: name of the object in the subject's hands, a key of :data:`mmcl.data.demo.props.PROPS`, or "".
        partner: what the second person does; empty for a class of one person.
        gap: distance between the two, in mean arm lengths (shoulder to wrist).
        joined: whether the right hands of the two meet; left-handers do not mirror such a movement.
    """

    name: str
    acts: list[Act]
    held: str = ""
    partner: list[Act] = field(default_factory=list)
    gap: float = 0.0
    joined: bool = False


def _to_head(at: Vector, head: Vector) -> list[Act]:
    """A hand comes up to the face and stays there a while."""
    return [*reach("right", at, (0.75, -0.9, 0.05), swing=(0.0, 0.03, 0.0), cycles=1.5), *bend((0.0, 0.0, 0.0), head)]


def _before_chest(at: Vector, swing: Vector) -> list[Act]:
    """Both hands hold something before the chest, and the head looks down at it."""
    return [*both(at, (0.5, -0.8, -0.4), swing, cycles=1.5), *bend((0.06, 0.0, 0.0), (0.38, 0.0, 0.0))]


_SHAKE = [
    *reach("right", (-0.26, -0.28, 0.70), (0.35, -0.8, -0.5), swing=(0.0, 0.10, 0.0), cycles=3.2, ramp=0.3),
    *bend((0.10, 0.0, 0.0)),
]

ACTIONS: list[Action] = [
    Action("wave a hand", reach("right", (0.38, 0.56, 0.18), (0.9, -0.7, -0.1), swing=(0.24, 0.02, 0.0), cycles=3.2)),
    Action("clap hands", both((-0.08, -0.22, 0.55), (0.6, -0.8, -0.2), swing=(0.15, 0.0, 0.0), cycles=4.5)),
    Action("bow", [*bend((0.95, 0.0, 0.0), (0.25, 0.0, 0.0), ramp=0.34), *sink(0.02, 0.14)]),
    Action("kick", [
        *swing_leg("right", (-0.03, 0.52, 0.78)), *bend((-0.22, 0.0, 0.0), start=0.25, end=0.8, ramp=0.22),
        *both((0.42, -0.62, 0.22), start=0.15, end=0.9, ramp=0.25), *sink(0.04, 0.06, start=0.2, end=0.85, ramp=0.25),
    ]),
    Action("squat", [*sink(0.46, 0.24), *bend((0.55, 0.0, 0.0), (-0.3, 0.0, 0.0), ramp=0.38),
                     *both((-0.05, 0.40, 0.78), ramp=0.38)]),
    Action("throw a ball", [
        *reach("right", (0.34, 0.42, -0.28), (0.9, -0.3, -0.3), start=0.07, end=0.56, ramp=0.25),
        *reach("right", (-0.08, 0.18, 0.92), (0.6, -0.7, -0.2), start=0.38, end=0.96, ramp=0.18),
        *reach("left", (0.05, -0.25, 0.6), start=0.07, end=0.55, ramp=0.22), *step("left", 0.26, start=0.28),
        Act("torso", (-0.12, 0.0, -0.5), 0.07, 0.56, 0.25), Act("torso", (0.25, 0.0, 0.45), 0.38, 0.98, 0.18),
    ], held="ball"),
    Action("drink from a cup", _to_head((-0.17, 0.19, 0.27), (-0.10, 0.0, 0.0)), held="cup"),
    Action("make a phone call", _to_head((-0.10, 0.23, 0.22), (0.02, 0.06, 0.0)), held="phone"),
    Action("read a book", _before_chest((-0.08, -0.30, 0.52), (0.0, 0.015, 0.0)), held="book"),
    Action("look at a tablet", _before_chest((-0.11, -0.26, 0.49), (0.015, 0.0, 0.0)), held="tablet"),
    Action("shake hands", _SHAKE, partner=_SHAKE, gap=1.72, joined=True),
    Action("push another person", [
        *both((-0.10, -0.12, 0.42), start=0.07, end=0.48, ramp=0.18),
        *both((-0.12, -0.06, 0.95), start=0.32, end=0.86, ramp=0.16),
        *bend((0.22, 0.0, 0.0), start=0.3, end=0.9, ramp=0.2), *step("left", 0.3, start=0.3),
    ], partner=[
        *walk(-0.32, start=0.45), *bend((-0.32, 0.0, 0.0), (0.2, 0.0, 0.0), start=0.43, end=0.98, ramp=0.2),
        *both((0.30, -0.55, 0.45), start=0.42, end=0.98, ramp=0.18),
    ], gap=1.7),
]  # fmt: skip
CLASS_NAMES = [action.name for action in ACTIONS]
OBJECT_PAIRS = (("drink from a cup", "make a phone call"), ("read a book", "look at a tablet"))
