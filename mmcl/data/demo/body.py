"""Synthetic people: body proportions of a subject, and the joints of a posed body.

A body stands in the *stage* frame: metres, x to the right of somebody who looks along -z, y up, floor at y = 0.
That frame is right-handed, like the camera space of a Kinect. Directions of a person are written
(right, up, forward); "out" instead of "right" where the two sides of the body mirror each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmcl.skeletons.layout import load_layout

LAYOUT = load_layout("kinect_v2_25")
JOINT = {name: i for i, name in enumerate(LAYOUT.joints)}
SIDES = {"right": 1.0, "left": -1.0}

# Lengths as shares of body height: segment ratios of Drillis and Contini (1966), with the spine, hips and hands
# placed where a Kinect v2 reports them.
PROPORTIONS = {
    "lower_spine": 0.145, "upper_spine": 0.125, "neck": 0.045, "head": 0.075,
    "shoulder_width": 0.105, "shoulder_drop": 0.012, "hip_width": 0.048, "hip_drop": 0.022,
    "upper_arm": 0.172, "forearm": 0.146, "hand": 0.045, "fingers": 0.032, "thumb": 0.024,
    "thigh": 0.245, "shin": 0.246, "ankle_height": 0.045, "foot": 0.072,
}  # fmt: skip
SHARPEST_ELBOW = np.cos(np.radians(32))  # a joint folds no further than 32 degrees between its two bones

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Person:
    """One subject: bone lengths in metres, style of moving, and looks.

    Attributes:
        lengths: name in ``PROPORTIONS`` -> metres.
        build: thickness of the drawn limbs, 1 is average.
        hand: the hand this subject prefers, "right" or "left".
        amplitude, speed: factors on how far and how fast the subject moves, 1 is average.
        habit: (3,) where this subject's hands go, relative to the average, in arm lengths.
        looks: "shirt", "trousers", "skin", "hair", "shoes" -> RGB.
        long_sleeves: whether the shirt covers the forearms.
    """

    lengths: Mapping[str, float]
    build: float
    hand: str
    amplitude: float
    speed: float
    habit: Array
    looks: Mapping[str, tuple[int, int, int]]
    long_sleeves: bool

    @property
    def arm(self) -> float:
        """Shoulder to wrist, straight, in metres."""
        return self.lengths["upper_arm"] + self.lengths["forearm"]

    @property
    def leg(self) -> float:
        """Hip to ankle, straight, in metres."""
        return self.lengths["thigh"] + self.lengths["shin"]


SHIRTS = ((196, 60, 52), (52, 104, 186), (64, 148, 88), (222, 168, 58), (126, 84, 164), (232, 232, 226), (70, 78, 92))
TROUSERS = ((44, 52, 78), (74, 66, 58), (34, 36, 42), (108, 112, 118), (66, 84, 64))
SKINS = ((240, 204, 176), (222, 178, 142), (178, 128, 94), (122, 82, 58))
HAIR = ((46, 34, 28), (62, 38, 22), (204, 164, 96), (28, 28, 32), (136, 134, 132))
SHOES = ((40, 40, 44), (226, 226, 222), (148, 54, 46))


def make_person(seed: int, subject: int, companion: bool = False) -> Person:
    """Draw a subject, the same one for the same numbers.

    The companion is the second person of a subject's clips. It appears with nobody else, so that a split by
    subjects shares no body between its sides.
    """
    rng = np.random.default_rng([seed, subject, int(companion), 1])
    height = rng.uniform(1.52, 1.92)
    lengths = {name: height * share * rng.uniform(0.94, 1.06) for name, share in PROPORTIONS.items()}

    def pick(colours: tuple[tuple[int, int, int], ...]) -> tuple[int, int, int]:
        return colours[rng.integers(len(colours))]

    return Person(
        lengths=lengths,
        build=rng.uniform(0.88, 1.14),
        hand="left" if subject % 8 in (3, 6) else "right",  # left-handers on both sides of an odd/even split
        amplitude=rng.uniform(0.82, 1.15),
        speed=rng.uniform(0.85, 1.2),
        habit=rng.normal(0, 0.035, 3),
        looks={
            "shirt": SHIRTS[(subject + 3 * companion) % len(SHIRTS)],
            "trousers": pick(TROUSERS),
            "skin": pick(SKINS),
            "hair": pick(HAIR),
            "shoes": pick(SHOES),
        },  # fmt: skip
        long_sleeves=bool(rng.random() < 0.5),
    )


def rotation(angles: Array) -> Array:
    """Matrices (..., 3, 3) of angles (..., 3): bend forward, lean to the right, turn to the left, in radians."""
    (cx, cz, cy), (sx, sz, sy) = np.moveaxis(np.cos(angles), -1, 0), np.moveaxis(np.sin(angles), -1, 0)
    zero, one = np.zeros_like(cx), np.ones_like(cx)

    def matrix(*rows: list[Array]) -> Array:
        return np.stack([np.stack(row, -1) for row in rows], -2)

    bend = matrix([one, zero, zero], [zero, cx, sx], [zero, -sx, cx])
    lean = matrix([cz, sz, zero], [-sz, cz, zero], [zero, zero, one])
    turn = matrix([cy, zero, sy], [zero, one, zero], [-sy, zero, cy])
    return turn @ lean @ bend


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _limb(start: Array, target: Array, pole: Array, upper: float, lower: float) -> tuple[Array, Array]:
    """Middle and end joint (T, 3) of a two-bone limb that reaches for ``target`` and bends towards ``pole``.

    Law of cosines; the reach is clamped to what the bones and the sharpest bend allow, so lengths are exact.
    """
    direction = _unit(target - start)
    nearest = np.sqrt(upper**2 + lower**2 - 2 * upper * lower * SHARPEST_ELBOW)
    reach = np.clip(np.linalg.norm(target - start, axis=-1, keepdims=True), nearest, 0.998 * (upper + lower))
    across = _unit(pole - (pole * direction).sum(-1, keepdims=True) * direction)
    cosine = np.clip((upper**2 + reach**2 - lower**2) / (2 * upper * reach), -1, 1)
    middle = start + upper * (cosine * direction + np.sqrt(1 - cosine**2) * across)
    return middle, start + reach * direction


def pose(person: Person, tracks: Mapping[str, Array], place: Array, heading: float,
         pull: Array | None = None) -> Array:  # fmt: skip
    """Joints (T, 25, 3) in the stage frame, in the order of ``kinect_v2_25``.

    Args:
        person: whose body.
        tracks: channel -> (T, 3), every channel of :data:`mmcl.data.demo.motions.REST`.
        place: (2,) x and z of the person on the floor before any travel.
        heading: turn of the whole person to the left, radians; 0 faces -z.
        pull: (T, 3) added to where the right hand goes, stage frame: to meet another hand.
    """
    size, joints = person.lengths, np.zeros((len(tracks["pelvis"]), LAYOUT.joint_count, 3))
    facing = rotation(np.array([0.0, 0.0, heading]))
    chest = facing @ rotation(tracks["torso"])

    def put(name: str, origin: Array, frame: Array, right: float, up: float, forward: float = 0.0) -> Array:
        joints[:, JOINT[name]] = origin + frame @ np.array([right, up, -forward])
        return joints[:, JOINT[name]]

    def ahead(frame: Array, vectors: Array, side: float = 1.0) -> Array:
        return (frame @ (vectors * np.array([side, 1.0, -1.0]))[..., None])[..., 0]

    floor = np.array([place[0], 0.0, place[1]]) + ahead(facing, tracks["travel"])
    height = size["ankle_height"] + 0.99 * person.leg + size["hip_drop"]
    base = put("base_spine", floor + ahead(facing, tracks["pelvis"] * person.leg), facing, 0, height)
    middle = put("mid_spine", base, facing @ rotation(0.55 * tracks["torso"]), 0, size["lower_spine"])
    top = put("spine_shoulder", middle, chest, 0, size["upper_spine"])
    neck = put("neck", top, chest, 0, size["neck"])
    put("head", neck, chest @ rotation(tracks["head"]), 0, size["head"], 0.015)

    for side, sign in SIDES.items():
        shoulder = put(f"{side}_shoulder", top, chest, sign * size["shoulder_width"], -size["shoulder_drop"])
        target = shoulder + person.arm * ahead(chest, tracks[f"{side}_hand"], sign)
        if pull is not None and side == "right":
            target = target + pull
        pole = ahead(chest, tracks[f"{side}_elbow"], sign)
        elbow, wrist = _limb(shoulder, target, pole, size["upper_arm"], size["forearm"])
        along = _unit(wrist - elbow)
        thumb_side = _unit(-pole + (pole * along).sum(-1, keepdims=True) * along)
        hand = wrist + size["hand"] * along
        for name, point in (
            ("elbow", elbow), ("wrist", wrist), ("hand", hand), ("hand_tip", hand + size["fingers"] * along),
            ("thumb", hand + size["thumb"] * thumb_side),
        ):  # fmt: skip
            joints[:, JOINT[f"{side}_{name}"]] = point

        hip = put(f"{side}_hip", base, facing, sign * size["hip_width"], -size["hip_drop"])
        stance = np.array([1.25 * size["hip_width"], size["ankle_height"], 0.0])
        target = floor + ahead(facing, tracks[f"{side}_foot"] * person.leg + stance, sign)
        knee, ankle = _limb(hip, target, ahead(facing, np.array([0.12, 0.0, 1.0]), sign), size["thigh"], size["shin"])
        joints[:, JOINT[f"{side}_knee"]], joints[:, JOINT[f"{side}_ankle"]] = knee, ankle
        joints[:, JOINT[f"{side}_foot"]] = ankle + size["foot"] * _toes(facing, ankle - knee, tracks[f"{side}_foot"])
    return joints


def _toes(facing: Array, shin: Array, foot: Array) -> Array:
    """Unit direction (T, 3) of the foot: flat on the floor, at a right angle to the shin once it is in the air."""
    flat = facing @ np.array([0.0, -0.45, -1.0])
    shin = _unit(shin)
    forward = facing @ np.array([0.0, 0.0, -1.0])
    square = _unit(forward - (shin * forward).sum(-1, keepdims=True) * shin + 1e-6 * flat)
    lifted = np.clip(foot[:, 1:2] / 0.15, 0.0, 1.0)
    return _unit((1 - lifted) * _unit(flat) + lifted * _unit(square + 0.35 * shin))
