"""Named motion primitives, and how they add up to the movement of one person.

A primitive brings one *channel* of the body away from rest and back, smoothly: it is an :class:`Act`, plain data.
Channels and their units:

- ``right_hand``, ``left_hand``: wrist relative to its shoulder, (out, up, forward) of the chest, in arm lengths;
- ``right_elbow``, ``left_elbow``: direction into which the elbow points, same axes;
- ``right_foot``, ``left_foot``: ankle relative to where it stands, (out, up, forward), in leg lengths;
- ``pelvis``: (right, up, forward) in leg lengths, feet stay; ``travel``: the same in metres, feet come along;
- ``torso``, ``head``: bend forward, lean to the right, turn to the left, in radians.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmcl.data.demo.body import Array, Person

Vector = tuple[float, float, float]
NOWHERE: Vector = (0.0, 0.0, 0.0)
HAND, ELBOW = (0.10, -0.95, 0.08), (0.35, -0.2, -1.0)
REST: dict[str, Vector] = {
    "right_hand": HAND, "left_hand": HAND, "right_elbow": ELBOW, "left_elbow": ELBOW,
    "right_foot": NOWHERE, "left_foot": NOWHERE, "pelvis": NOWHERE, "travel": NOWHERE,
    "torso": NOWHERE, "head": NOWHERE,
}  # fmt: skip
MIRROR = {"hand": (1, 1, 1), "elbow": (1, 1, 1), "foot": (1, 1, 1), "pelvis": (-1, 1, 1), "travel": (-1, 1, 1),
          "torso": (1, -1, -1), "head": (1, -1, -1)}  # fmt: skip


@dataclass(frozen=True)
class Act:
    """One channel goes to a place, swings about it, and comes back to rest.

    Attributes:
        channel: which part of the body, a key of ``REST``.
        to: where it goes (hands, elbows: the place itself; the others rest at zero).
        start, end: when, as shares of the clip; an end beyond 1 + ramp stays there.
        ramp: share of the clip that going there takes, and coming back.
        swing: amplitude of the oscillation about ``to``.
        cycles: how many oscillations between start and end.
        bulge: detour on the way there and back, so that a hand goes round the body and not through it.
    """

    channel: str
    to: Vector
    start: float = 0.08
    end: float = 0.92
    ramp: float = 0.26
    swing: Vector = NOWHERE
    cycles: float = 0.0
    bulge: Vector = NOWHERE


def reach(hand: str, to: Vector, elbow: Vector = (0.7, -0.7, -0.4), swing: Vector = NOWHERE, cycles: float = 0.0,
          start: float = 0.08, end: float = 0.92, ramp: float = 0.26) -> list[Act]:  # fmt: skip
    """Bring a hand ("right", "left") to a place, possibly swinging there: wave, clap, point, drink, shake."""
    return [
        Act(f"{hand}_hand", to, start, end, ramp, swing, cycles, bulge=(0.08, 0.0, 0.3)),
        Act(f"{hand}_elbow", elbow, start, end, ramp),
    ]


def both(to: Vector, elbow: Vector = (0.7, -0.7, -0.4), swing: Vector = NOWHERE, cycles: float = 0.0,
         start: float = 0.08, end: float = 0.92, ramp: float = 0.26) -> list[Act]:  # fmt: skip
    """The same reach with both hands, mirrored: clap, push, hold something before the chest."""
    return [act for hand in ("right", "left") for act in reach(hand, to, elbow, swing, cycles, start, end, ramp)]


def bend(torso: Vector, head: Vector = NOWHERE, start: float = 0.08, end: float = 0.92, ramp: float = 0.3) -> list[Act]:
    """Bend, lean or turn the trunk, and the head on top of it."""
    return [Act("torso", torso, start, end, ramp), Act("head", head, start, end, ramp)]


def sink(down: float, back: float, start: float = 0.08, end: float = 0.92, ramp: float = 0.38) -> list[Act]:
    """Lower the pelvis by a share of the leg, and move it back to keep the balance; the feet stay where they are."""
    return [Act("pelvis", (0.0, -down, -back), start, end, ramp)]


def swing_leg(foot: str, to: Vector, start: float = 0.3, end: float = 0.75, ramp: float = 0.2) -> list[Act]:
    """Lift a foot to a place and put it back: a kick."""
    return [Act(f"{foot}_foot", to, start, end, ramp, bulge=(0.0, 0.18, -0.12))]


def step(foot: str, forward: float, start: float, ramp: float = 0.16) -> list[Act]:
    """Put one foot forward (back when negative) and shift the weight onto it; it stays there."""
    moved = Act(f"{foot}_foot", (0.02, 0.0, forward), start, 2.0, ramp, bulge=(0.0, 0.1, 0.0))
    return [moved, Act("pelvis", (0.0, -0.02, 0.5 * forward), start, 2.0, ramp)]


def walk(metres: float, start: float, ramp: float = 0.2) -> list[Act]:
    """Two quick steps forward (back when negative): the body travels and the feet are lifted one after the other."""
    lifts = [Act(f"{foot}_foot", (0.0, 0.09, 0.0), at, at + 0.8 * ramp, 0.4 * ramp)
             for foot, at in (("right", start), ("left", start + 0.5 * ramp))]  # fmt: skip
    return [Act("travel", (0.0, 0.0, metres), start, 2.0, ramp), *lifts]


def smoothstep(x: Array) -> Array:
    """0 below 0, 1 above 1, and 3x^2 - 2x^3 between: leaves and arrives at rest."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def vary(acts: list[Act], person: Person, rng: np.random.Generator) -> list[Act]:
    """One performance: the subject's habits and the chance of one take on the amplitudes, tempo and delay.

    The delay is at most 0.05 of the clip either way, so an act that starts no earlier leaves from rest.
    """
    size = person.amplitude * rng.uniform(0.9, 1.1)
    tempo, delay = person.speed * rng.uniform(0.9, 1.1), rng.uniform(-0.05, 0.05)
    off = {side: person.habit + rng.normal(0, 0.035, 3) for side in ("right_hand", "left_hand")}

    def one(act: Act) -> Act:
        if act.channel in off:
            to = np.array(act.to) + off[act.channel]
        else:
            to = np.array(act.to) * (1.0 if act.channel.endswith("elbow") else size)
        swing = np.array(act.swing) * size
        return replace(act, to=tuple(to), swing=tuple(swing), cycles=act.cycles * tempo,
                       start=act.start + delay, end=act.end + delay)  # fmt: skip

    return [one(act) for act in acts]


def mirror(tracks: dict[str, Array]) -> dict[str, Array]:
    """The same movement with left and right exchanged: a left-hander's."""
    other = {"right": "left", "left": "right"}
    mirrored = {}
    for channel, values in tracks.items():
        side, _, part = channel.rpartition("_")
        mirrored[f"{other[side]}_{part}" if side else part] = values * np.array(MIRROR[part], float)
    return mirrored


def perform(acts: list[Act], frames: int, rng: np.random.Generator) -> dict[str, Array]:
    """Add acts up to tracks: channel -> (T, 3), over the whole clip, with breathing and sway at rest."""
    phase = np.linspace(0.0, 1.0, frames)[:, None]
    tracks = {channel: np.tile(np.array(rest), (frames, 1)) for channel, rest in REST.items()}
    for act in acts:
        there = smoothstep((phase - act.start) / act.ramp) * (1 - smoothstep((phase - act.end + act.ramp) / act.ramp))
        turns = np.sin(2 * np.pi * act.cycles * (phase - act.start) / (act.end - act.start))
        away = np.array(act.to) - np.array(REST[act.channel])
        detour = 4 * there * (1 - there) * np.array(act.bulge)
        tracks[act.channel] += there * (away + np.array(act.swing) * turns) + detour
    for channel, size in (("torso", 0.018), ("head", 0.025), ("right_hand", 0.012), ("left_hand", 0.012)):
        rate, offset = rng.uniform(0.3, 1.2, 3), rng.uniform(0, 2 * np.pi, 3)
        tracks[channel] += size * np.sin(2 * np.pi * rate * phase * frames / 50 + offset)
    return tracks
