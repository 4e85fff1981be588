"""One clip before anything looks at it: who does what where, as joints on the stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmcl.data.demo.actions import ACTIONS, Action
from mmcl.data.demo.body import JOINT, Array, Person, make_person, pose
from mmcl.data.demo.camera import Sensor, View
from mmcl.data.demo.motions import mirror, perform, smoothstep, vary

SHORTEST, USUAL, LONGEST = 40, 50, 60  # frames of a clip, at 30 per second


@dataclass(frozen=True)
class Scene:
    """A performance.

    Attributes:
        key: the numbers that everything random in this clip comes from.
        action: the class.
        people: M persons, the subject first.
        bodies: M arrays (T, 25, 3), joints without noise, stage frame, metres.
        heading: where the subject faces, radians to the left of -z.
        sensor, camera, view: what watches, the number of its view (from 1), and that view.
        light: brightness of the room.
    """

    key: tuple[int, ...]
    action: Action
    people: list[Person]
    bodies: list[Array]
    heading: float
    sensor: Sensor
    camera: int
    view: View
    light: float


def make_scene(label: int, subject: int, trial: int, seed: int, sensor: Sensor) -> Scene:
    """The clip of these numbers, always the same one. Cameras take turns, so that no class or subject keeps to one."""
    key = (seed, label, subject, trial)
    rng = np.random.default_rng([*key, 0])
    action = ACTIONS[label]
    actor = make_person(seed, subject)
    camera = 1 + (label + subject + trial) % len(sensor.views)
    frames = int(np.clip(round(USUAL / actor.speed * rng.uniform(0.92, 1.08)), SHORTEST, LONGEST))
    place, light = rng.uniform(-0.18, 0.18, 2), rng.uniform(0.88, 1.1)
    heading = rng.uniform(-0.2, 0.2)
    people, both, headings, places = [actor], [action.acts], [heading], [place]
    if action.partner:
        people.append(make_person(seed, subject, companion=True))
        both.append(action.partner)
        gap = action.gap * (people[0].arm + people[1].arm) / 2
        side = 1.0 if rng.random() < 0.5 else -1.0  # the subject stands on the left of the stage, or on the right
        turn = 0.6 * heading
        line = gap / 2 * np.array([np.cos(turn), -np.sin(turn)])
        headings = [turn - side * np.pi / 2, turn + side * np.pi / 2]
        places = [place - side * line, place + side * line]
    tracks = [perform(vary(acts, who, rng), frames, rng) for who, acts in zip(people, both, strict=True)]
    if not action.joined:
        tracks = [mirror(track) if who.hand == "left" else track for who, track in zip(people, tracks, strict=True)]
    bodies = [pose(*each) for each in zip(people, tracks, places, headings, strict=True)]
    if action.joined:
        ways = _meet(bodies)
        bodies = [pose(*each) for each in zip(people, tracks, places, headings, ways, strict=True)]
    return Scene(key, action, people, bodies, headings[0], sensor, camera, sensor.views[camera - 1], light)


def _meet(bodies: list[Array]) -> list[Array]:
    """How far (T, 3) each right hand must still go for the two to meet, once they are near each other."""
    first, second = (body[:, JOINT["right_hand"]] for body in bodies)
    apart = second - first
    near = smoothstep((0.6 - np.linalg.norm(apart, axis=-1, keepdims=True)) / 0.35)
    return [0.5 * near * apart, -0.5 * near * apart]
