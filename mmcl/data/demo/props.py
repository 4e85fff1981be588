"""Held objects: their shapes as flat faces in metres, and where they are in each frame.

An object's own axes are (right, up, towards the person who holds it). Faces turned away from the camera are not
drawn, so every object is a closed shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmcl.data.demo.body import JOINT, Array, rotation
from mmcl.data.demo.motions import smoothstep

Colour = tuple[int, int, int]
GRAVITY, FRAME_RATE, RELEASE = 9.81, 30.0, 0.53


@dataclass(frozen=True)
class Face:
    """A flat polygon: corners (n, 3), counter-clockwise seen from outside."""

    corners: Array
    colour: Colour


def _box(size: tuple[float, float, float], colours: tuple[Colour, Colour, Colour], shift: float = 0.0,
         turn: float = 0.0) -> list[Face]:  # fmt: skip
    """A box of (width, height, depth): colours of its front (towards the holder), its back and its rim."""
    x, y, z = np.array(size) / 2
    corners = np.array([[-x, -y, z], [x, -y, z], [x, y, z], [-x, y, z], [-x, -y, -z], [x, -y, -z], [x, y, -z],
                        [-x, y, -z]])  # fmt: skip
    corners = (corners + np.array([shift, 0.0, 0.0])) @ rotation(np.array([0.0, 0.0, turn])).T
    front, back, rim = colours
    sides = [([0, 1, 2, 3], front), ([5, 4, 7, 6], back), ([1, 5, 6, 2], rim), ([4, 0, 3, 7], rim), ([3, 2, 6, 7], rim),
             ([4, 5, 1, 0], rim)]  # fmt: skip
    return [Face(corners[order], colour) for order, colour in sides]


def _round(rings: list[tuple[float, float, Colour]], sides: int = 12) -> list[Face]:
    """A lathe shape about the up axis: (height, radius, colour of the wall above it), closed at both ends."""
    angles = 2 * np.pi * np.arange(sides) / sides
    circle = np.stack([np.cos(angles), np.zeros(sides), -np.sin(angles)], -1)
    loops = [radius * circle + np.array([0.0, height, 0.0]) for height, radius, _ in rings]
    faces = [Face(loops[0][::-1], rings[0][2]), Face(loops[-1], rings[-1][2])]
    for low, high, (_, _, colour) in zip(loops, loops[1:], rings, strict=False):
        for i in range(sides):
            shade = 0.72 + 0.28 * np.cos(angles[i] - 2.2)
            j = (i + 1) % sides
            tone = tuple(int(part * shade) for part in colour)
            faces.append(Face(np.stack([low[i], low[j], high[j], high[i]]), (tone[0], tone[1], tone[2])))
    return faces


_RED, _CREAM, _ORANGE = (206, 44, 40), (248, 244, 230), (240, 128, 32)
_BLACK, _SCREEN, _SILVER, _COVER = (24, 24, 28), (120, 226, 255), (208, 214, 222), (128, 40, 30)
_COFFEE, _PAGES, _CASE = (92, 56, 36), (250, 246, 226), (16, 176, 164)
_ball = [(0.095 * np.sin(a), 0.095 * np.cos(a), _ORANGE if i != 2 else (250, 226, 190))
         for i, a in enumerate(np.linspace(-1.45, 1.45, 7))]  # fmt: skip
PROPS: dict[str, list[Face]] = {
    "ball": _round(_ball),
    "cup": [*_round([(-0.075, 0.042, _CREAM), (-0.02, 0.05, _RED), (0.03, 0.055, _CREAM), (0.075, 0.06, _COFFEE)]),
            *_box((0.05, 0.07, 0.02), (_CREAM, _CREAM, _CREAM), shift=0.07)],
    "phone": [*_box((0.085, 0.17, 0.02), (_SCREEN, _CASE, _BLACK)),
              *_box((0.03, 0.04, 0.024), (_SCREEN, _BLACK, _BLACK))],
    "book": [face for side in (-1, 1) for face in (
        *_box((0.19, 0.26, 0.012), (_PAGES, _COVER, _COVER), side * 0.095, side * 0.5),
        *_box((0.17, 0.24, 0.05), (_PAGES, _COVER, _PAGES), side * 0.09, side * 0.5),
    )],
    "tablet": [*_box((0.32, 0.22, 0.016), (_SCREEN, _SILVER, _BLACK)),
               *_box((0.27, 0.17, 0.02), (_SCREEN, _BLACK, _BLACK))],
}  # fmt: skip


def place(name: str, joints: Array, hand: str, heading: float) -> tuple[Array, Array]:
    """Where an object is: origins (T, 3) and frames (T, 3, 3) in the stage frame.

    Args:
        name: key of :data:`PROPS`.
        joints: (T, 25, 3) of the person who holds it, stage frame.
        hand: the hand that holds it, "right" or "left".
        heading: direction the person faces, as in :func:`mmcl.data.demo.body.pose`.
    """
    side = 1.0 if hand == "right" else -1.0
    holding, other = joints[:, JOINT[f"{hand}_hand"]], joints[:, JOINT["left_hand" if side > 0 else "right_hand"]]
    head = joints[:, JOINT["head"]]
    facing = rotation(np.array([0.0, 0.0, heading]))
    frames = len(joints)
    if name == "ball":
        return _flight(holding + np.array([0.0, 0.04, 0.0]), frames), np.tile(facing, (frames, 1, 1))
    if name == "cup":
        raised = smoothstep((0.42 - np.linalg.norm(holding - head, axis=-1)) / 0.2)[:, None]
        mouth = head + facing @ np.array([0.05 * side, -0.06, -0.17])
        tilt = np.stack([-0.5 * raised[:, 0], np.zeros(frames), np.zeros(frames)], -1)
        return _pull(holding, mouth, 0.09) * raised + holding * (1 - raised), facing @ rotation(tilt)
    if name == "phone":
        ear = head + facing @ np.array([0.11 * side, 0.0, -0.03])
        angles = np.array([0.2, 0.15 * side, 0.45 * side])  # the screen leans against the cheek
        return _pull(holding, ear, 0.1), np.tile(facing @ rotation(angles), (frames, 1, 1))
    together = smoothstep((0.55 - np.linalg.norm(holding - other, axis=-1)) / 0.3)[:, None]
    centre = holding + 0.5 * together * (other - holding) + facing @ np.array([0.0, 0.05, -0.04])
    return centre, np.tile(facing @ rotation(np.array([0.55, 0.0, 0.0])), (frames, 1, 1))


def _pull(points: Array, goal: Array, furthest: float) -> Array:
    """Points moved towards a goal, by no more than ``furthest`` metres: a hand holds an object by its edge."""
    away = goal - points
    distance = np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-9)
    return points + away * np.minimum(1.0, furthest / distance)


def _flight(hand: Array, frames: int) -> Array:
    """In the hand until it is let go, then free flight, bouncing once on the floor."""
    start = int(RELEASE * frames)
    path = hand.copy()
    speed = np.clip((hand[start] - hand[start - 2]) * FRAME_RATE / 2, -2.2, 2.2) + np.array([0.0, 0.6, 0.0])
    for t in range(start + 1, frames):
        speed = speed - np.array([0.0, GRAVITY / FRAME_RATE, 0.0])
        path[t] = path[t - 1] + speed / FRAME_RATE
        if path[t, 1] < 0.095:
            path[t, 1], speed[1] = 0.095, 0.6 * abs(speed[1])
    return path
