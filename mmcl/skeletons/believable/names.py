"""What a joint is, by whatever name a layout gives it: LEFT_HIP, LHip, l_hip, hip.L and mixamorig:LeftUpLeg are one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SIDES = {"left": "left", "l": "left", "lft": "left", "right": "right", "r": "right", "rgt": "right", "rt": "right"}
_PREFIXES = {"mixamorig", "bip", "joint", "jnt", "j", "k", "skel", "kp", "keypoint"}
_PARTS = {
    "hip": ("hip", "hipjoint", "upleg", "upperleg", "thigh", "femur"),
    "knee": ("knee", "leg", "lowleg", "lowerleg", "shin", "calf", "tibia"),
    "ankle": ("ankle",),
    "heel": ("heel",),
    "foot": ("foot", "footindex", "forefoot", "midfoot"),
    "toe": ("toe", "toes", "toebase", "bigtoe", "ball"),
    "clavicle": ("clavicle", "collar"),
    "shoulder": ("shoulder", "shoulderjoint", "upperarm", "uparm", "humerus"),
    "arm": ("arm",),
    "elbow": ("elbow", "forearm", "lowerarm"),
    "wrist": ("wrist",),
    "hand": ("hand", "palm"),
    "ear": ("ear",),
    "eye": ("eye",),
    "nose": ("nose",),
    "head": ("head", "skull", "headcenter", "headcentre"),
    "head_top": ("headtop", "topofhead", "vertex", "crown", "headend"),
    "base_spine": ("basespine", "spinebase", "pelvis", "hips", "hip", "hipcenter", "hipcentre", "midhip", "root",
                   "waist", "centerhip", "lowertorso"),
    "torso": ("torso", "trunk", "body", "midspine", "spinemid", "spine", "chest"),
}  # fmt: skip
_MIDDLE = ("head", "head_top", "nose", "base_spine", "torso")
_MEANING = {word: part for part, words in _PARTS.items() if part not in _MIDDLE for word in words}
_UNSIDED = {word: part for part in _MIDDLE for word in _PARTS[part]}


_OF_A_PART = {"thumb", "index", "middle", "ring", "little", "pinky", "pinkie", "finger", "palm", "knuckle", "mcp",
              "pip", "dip", "cmc", "metacarpal", "phalanx", "brow", "eyebrow", "eyelid", "lip", "mouth", "jaw", "cheek",
              "chin", "pupil", "iris"}  # fmt: skip


@lru_cache(maxsize=64)
def of_a_body(joints: Sequence[str]) -> bool:
    """Whether a layout is of a whole body, and not of a hand or a face alone, as far as its names say it."""
    limbs = any(part.endswith(("hip", "shoulder", "knee", "spine")) for part in places(joints))
    parts = sum(any(word.lower() in _OF_A_PART for word in _WORDS.findall(name)) for name in joints)
    return limbs or parts <= len(joints) / 2


@lru_cache(maxsize=64)
def places(joints: Sequence[str]) -> dict[str, int]:
    """Part of the body ("head", "left_hip") -> joint, as far as the names say it; the first joint of a part counts."""
    found: dict[str, int] = {}
    for index, name in enumerate(joints):
        if (part := meaning(name)) is not None:
            found.setdefault(part, index)
    for side in ("left", "right"):
        if f"{side}_arm" in found:  # rigs call the clavicle shoulder, and the shoulder arm
            found[f"{side}_shoulder"] = found.pop(f"{side}_arm")
        if f"{side}_ankle" not in found and f"{side}_toe" in found and f"{side}_foot" in found:  # and the ankle foot
            found[f"{side}_ankle"] = found.pop(f"{side}_foot")
        if f"{side}_foot" not in found and f"{side}_toe" in found:
            found[f"{side}_foot"] = found[f"{side}_toe"]
    return found


def meaning(name: str) -> str | None:
    """``left_hip`` for LHip; None for a name that says nothing."""
    words = [word.lower() for word in _WORDS.findall(name)]
    while len(words) > 1 and words[0] in _PREFIXES:
        del words[0]
    side = next((_SIDES[word] for word in words if word in _SIDES), None)
    rest = "".join(word for word in words if word not in _SIDES)
    if side is None:
        side, rest = _glued(rest)
    part = _UNSIDED.get(rest) if side is None else _MEANING.get(rest)
    return None if part is None else part if side is None else f"{side}_{part}"


def _glued(word: str) -> tuple[str | None, str]:
    """A side that is written together with its joint: lhip, lefthip, hipleft."""
    for mark, side in (("left", "left"), ("right", "right"), ("l", "left"), ("r", "right")):
        if word.startswith(mark) and word[len(mark) :] in _MEANING:
            return side, word[len(mark) :]
        if len(mark) > 1 and word.endswith(mark) and word[: -len(mark)] in _MEANING:
            return side, word[: -len(mark)]
    return None, word
