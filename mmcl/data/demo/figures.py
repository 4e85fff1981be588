"""What there is to see of the demo's people and the things they hold, as shapes in the picture.

Shapes are worked out for all frames of a clip at once; :mod:`mmcl.data.demo.render` paints them frame by frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmcl.data.demo.body import JOINT, Array, Person
from mmcl.data.demo.camera import Intrinsics, View
from mmcl.data.demo.props import Face

Bone = tuple[Array, Array, float, float]  # from (T, 3), to (T, 3), radius there and there, metres


@dataclass(frozen=True)
class Shape:
    """One surface of one colour over a clip.

    Attributes:
        depth: (T,) distance along the line of sight; what is further is painted first.
        colour: (T, 3) RGB.
        capsules: (T, B, 6) x0, y0, x1, y1, radius0, radius1 in pixels: rounded limbs; empty for a polygon.
        polygon: (T, n, 2) corners in pixels of a flat face; empty for capsules.
        visible: (T,) whether it is to be drawn at all.
    """

    depth: Array
    colour: Array
    capsules: Array
    polygon: Array
    visible: Array


class Figure:
    """The shapes of one person.

    Args:
        person: proportions and looks.
        joints: (T, 25, 3) in camera space, metres.
        camera: the pinhole.
    """

    def __init__(self, person: Person, joints: Array, camera: Intrinsics) -> None:
        self.person, self.camera = person, camera
        self.at = {name: joints[:, i] for name, i in JOINT.items()}
        self.shapes: list[Shape] = []
        for side in ("right", "left"):
            self._arm(side)
            self._leg(side)
        self._trunk()
        self._head()

    def part(self, look: str, bones: Sequence[Bone], nearer: float = 0.0) -> None:
        """Add one surface made of bones; ``nearer`` (metres) moves it to the front of what is at the same depth."""
        ends = np.stack([np.stack([start, end], 1) for start, end, _, _ in bones], 1)  # (T, B, 2, 3)
        radii = self.person.build * np.array([[first, second] for _, _, first, second in bones])
        depth = ends[..., 2].mean((1, 2))
        size = self.camera.focal * radii / np.maximum(ends[..., 2], 0.3)
        capsules = np.concatenate([self.camera.project(ends).reshape(*ends.shape[:2], 4), size], -1)
        light = np.clip(1.0 - 0.45 * (depth - self.at["base_spine"][:, 2]), 0.65, 1.2)
        colour = light[:, None] * np.array(self.person.looks[look])
        nothing = np.zeros((len(depth), 0, 2))
        self.shapes.append(Shape(depth - nearer, colour, capsules, nothing, np.ones(len(depth), bool)))

    def _arm(self, side: str) -> None:
        names = ("shoulder", "elbow", "wrist", "hand_tip", "thumb")
        shoulder, elbow, wrist, tip, thumb = (self.at[f"{side}_{name}"] for name in names)
        self.part("shirt", [(shoulder, elbow, 0.056, 0.043)])
        self.part("shirt" if self.person.long_sleeves else "skin", [(elbow, wrist, 0.041, 0.031)])
        self.part("skin", [(wrist, tip, 0.03, 0.034), (wrist, thumb, 0.026, 0.02)], nearer=0.01)

    def _leg(self, side: str) -> None:
        hip, knee, ankle, foot = (self.at[f"{side}_{name}"] for name in ("hip", "knee", "ankle", "foot"))
        self.part("trousers", [(hip, knee, 0.082, 0.06)])
        self.part("trousers", [(knee, ankle, 0.058, 0.042)])
        self.part("shoes", [(ankle + 0.2 * (ankle - foot), foot, 0.045, 0.038)])

    def _trunk(self) -> None:
        at = self.at
        self.part("trousers", [(at["right_hip"], at["left_hip"], 0.095, 0.095)])
        waist = 0.75 * at["base_spine"] + 0.25 * at["mid_spine"]
        across = 0.14 * (at["right_shoulder"] - at["left_shoulder"])
        right, left = at["right_shoulder"] - across, at["left_shoulder"] + across
        self.part("shirt", [
            (right, left, 0.062, 0.062), (right, waist + 0.6 * across, 0.075, 0.095),
            (left, waist - 0.6 * across, 0.075, 0.095), (at["spine_shoulder"], at["mid_spine"], 0.09, 0.11),
        ])  # fmt: skip
        self.part("skin", [(at["spine_shoulder"], at["neck"], 0.05, 0.045)], nearer=-0.02)

    def _head(self) -> None:
        up = _unit(self.at["head"] - self.at["neck"])
        ahead = _unit(np.cross(up, self.at["right_shoulder"] - self.at["left_shoulder"]))
        right = np.cross(ahead, up)
        head = self.at["head"] + 0.02 * up
        self.part("skin", [(head - 0.055 * up + 0.012 * ahead, head + 0.02 * up, 0.074, 0.096)])
        self.part("hair", [(head + 0.055 * up - 0.012 * ahead, head - 0.02 * up - 0.045 * ahead, 0.092, 0.09)])
        for eye in (-0.034, 0.034):
            spot = head + 0.09 * ahead + eye * right + 0.005 * up
            self.part("hair", [(spot, spot, 0.011, 0.011)])
        nose = head + 0.1 * ahead - 0.03 * up
        self.part("skin", [(nose + 0.02 * up, nose, 0.008, 0.016)])


def prop_shapes(faces: Sequence[Face], origins: Array, frames: Array, view: View, camera: Intrinsics) -> list[Shape]:
    """Shapes of a held object.

    Args:
        faces: of :data:`mmcl.data.demo.props.PROPS`.
        origins: (T, 3) where it is, stage frame.
        frames: (T, 3, 3) how it is turned.
        view: which looks at the stage.
        camera: the pinhole.
    """
    shapes = []
    for face in faces:
        corners = view.to_camera(origins[:, None] + np.einsum("tij,nj->tni", frames, face.corners))
        outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1])
        towards = (outward * corners[:, 0]).sum(-1) < 0
        depth = corners[..., 2].mean(1) - 0.05  # in front of the hand that holds it
        colour = np.tile(np.array(face.colour, float), (len(depth), 1))
        nothing = np.zeros((len(depth), 0, 6))
        seen = towards & (corners[..., 2].min(1) > 0.3)
        shapes.append(Shape(depth, colour, nothing, camera.project(corners), seen))
    return shapes


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
