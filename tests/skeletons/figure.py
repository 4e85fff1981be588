"""A person who stands upright and faces the sensor, with every joint that a layout of the package names."""

import numpy as np

from mmcl.skeletons.layout import Layout

# Metres, y up, x > 0 on the person's left (the sensor sees it on its right), toes towards the sensor.
MIDDLE = {
    "base_spine": (0.0, 0.95), "spine_navel": (0.0, 1.08), "mid_spine": (0.0, 1.18), "spine_chest": (0.0, 1.28),
    "spine_shoulder": (0.0, 1.42), "neck": (0.0, 1.5), "head": (0.0, 1.62), "head_top": (0.0, 1.78), "nose": (0.0, 1.6),
    "chin": (0.0, 1.5), "upper_lip": (0.0, 1.55), "upper_inner_lip": (0.0, 1.545), "lower_inner_lip": (0.0, 1.54),
    "lower_lip": (0.0, 1.535), "nose_base": (0.0, 1.58),
    "nose_bridge_1": (0.0, 1.66), "nose_bridge_2": (0.0, 1.64), "nose_bridge_3": (0.0, 1.62),
    "nose_bridge_4": (0.0, 1.61),
}  # fmt: skip
LEFT = {
    "eye_inner": (0.02, 1.65), "eye": (0.035, 1.65), "eye_outer": (0.05, 1.65), "ear": (0.08, 1.63),
    "mouth": (0.025, 1.545), "clavicle": (0.07, 1.42), "shoulder": (0.19, 1.42), "elbow": (0.3, 1.15),
    "wrist": (0.38, 0.92), "hand": (0.4, 0.85), "hand_tip": (0.42, 0.76), "thumb": (0.35, 0.84),
    "hand_root": (0.385, 0.9), "hip": (0.1, 0.93), "knee": (0.12, 0.5), "ankle": (0.13, 0.08), "heel": (0.12, 0.03),
    "foot": (0.17, 0.02), "big_toe": (0.16, 0.01), "small_toe": (0.2, 0.02),
    "nostril_1": (0.02, 1.585), "nostril_2": (0.01, 1.58), "lip_1": (0.03, 1.545), "lip_2": (0.02, 1.555),
    "lip_3": (0.01, 1.555), "lip_4": (0.01, 1.53), "lip_5": (0.02, 1.535), "inner_lip_1": (0.025, 1.543),
    "inner_lip_2": (0.012, 1.547), "inner_lip_3": (0.012, 1.538),
    **{f"jaw_{i}": (0.09 - 0.001 * i * i, 1.68 - 0.021 * i) for i in range(1, 9)},
    **{f"brow_{i}": (0.07 - 0.01 * i, 1.685 + 0.005 * min(i, 3)) for i in range(1, 6)},
    **{f"eyelid_{i}": (0.035 + 0.015 * np.cos(i * np.pi / 3), 1.65 + 0.008 * np.sin(i * np.pi / 3))
       for i in range(1, 7)},
    **{f"{finger}_{i}": (0.385 + 0.03 * (number - 1.5) * (0.6 + 0.2 * i), 0.9 - 0.045 - 0.025 * i)
       for number, finger in enumerate(("thumb", "index", "middle", "ring", "pinky")) for i in range(1, 5)},
}  # fmt: skip


def standing(layout: Layout) -> np.ndarray:
    """(V, 3) joints of the person, 2.5 m from the sensor."""
    return np.array([_place(joint) for joint in layout.joints])


def _place(joint: str) -> tuple[float, float, float]:
    side, _, name = joint.partition("_")
    if side in ("left", "right"):
        x, y = LEFT[name]
        depth = 2.4 if name in ("foot", "big_toe", "small_toe") else 2.5
        return (x if side == "left" else -x), y, depth
    x, y = MIDDLE[joint]
    return x, y, 2.5
