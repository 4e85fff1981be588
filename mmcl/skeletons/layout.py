"""A layout says what the joints of one sensor are: names, tree, left/right pairs, body parts, centre.

Layouts are data: a YAML file each in ``skeletons/layouts/``, or a user's own file of the same form. A loaded
layout turns into a plain dictionary, which is how a bundle carries it (no YAML is needed to run a bundle).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcl.errors import UserError
from mmcl.files import read_yaml

BUILTIN = Path(__file__).parent / "layouts"


@dataclass(frozen=True)
class Layout:
    """Joints of one sensor, in the order in which its files store them.

    Attributes:
        name: short name ("kinect_v2_25").
        joints: V joint names. Names are shared between layouts: conversion goes by name.
        parents: V indices; the root is its own parent.
        centre: index of the joint that centring subtracts.
        parts: body part -> joint indices.
        derived: joint name -> {other joint name: weight}, how to make it where a source lacks it.
        description: one line for people.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    centre: int
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    derived: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    description: str = ""

    @property
    def joint_count(self) -> int:
        """V."""
        return len(self.joints)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) index pairs, towards the root; V - 1 of them for a tree."""
        return tuple((joint, parent) for joint, parent in enumerate(self.parents) if joint != parent)

    @property
    def left_right(self) -> tuple[tuple[int, int], ...]:
        """(left, right) index pairs: names that differ in their ``left_`` / ``right_`` prefix only."""
        index = {name: i for i, name in enumerate(self.joints)}
        return tuple(
            (i, index["right_" + name[5:]])
            for name, i in index.items()
            if name.startswith("left_") and "right_" + name[5:] in index
        )

    def to_dict(self) -> dict[str, Any]:
        """The same facts by joint name, in the form of a layout file."""
        return {
            "name": self.name,
            "description": self.description,
            "centre": self.joints[self.centre],
            "joints": list(self.joints),
            "parents": {self.joints[child]: self.joints[parent] for child, parent in self.edges},
            "parts": {part: [self.joints[i] for i in members] for part, members in self.parts.items()},
            "derived": {joint: dict(weights) for joint, weights in self.derived.items()},
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], where: str = "layout") -> Layout:
        """Build and check a layout from the form of a layout file.

        Raises:
            UserError: a key is missing or unknown, a joint is named that does not exist, or the parents are no tree.
        """
        known = {"name", "description", "centre", "joints", "parents", "parts", "derived"}
        if unknown := set(facts) - known:
            raise UserError(f"{where}: unknown key {sorted(unknown)}; a layout has {sorted(known)}")
        if missing := {"name", "joints", "parents"} - set(facts):
            raise UserError(f"{where}: missing {sorted(missing)}")
        if not isinstance(facts["joints"], (list, tuple)) or any(isinstance(name, bool) for name in facts["joints"]):
            raise UserError(f"{where}: 'joints' must be a list of names (on, off, yes and no only in quotes)")
        joints = tuple(str(joint) for joint in facts["joints"])
        if len(set(joints)) != len(joints) or not joints:
            raise UserError(f"{where}: 'joints' must be a list of different names")
        index = {name: i for i, name in enumerate(joints)}

        def find(name: Any, key: str) -> int:
            if isinstance(name, (bool, list, dict)) or str(name) not in index:
                raise UserError(f"{where}: '{key}' names the joint '{name}', which is not in 'joints'")
            return index[str(name)]

        parents = list(range(len(joints)))
        for child, parent in _pairs(facts, "parents", where).items():
            parents[find(child, "parents")] = find(parent, "parents")
        layout = cls(
            name=str(facts["name"]),
            joints=joints,
            parents=tuple(parents),
            centre=find(facts.get("centre", joints[0]), "centre"),
            parts={
                str(part): tuple(find(joint, "parts") for joint in _members(part, members, where))
                for part, members in _pairs(facts, "parts", where).items()
            },
            derived={
                str(joint): _weights(joint, weights, where)
                for joint, weights in _pairs(facts, "derived", where).items()
            },
            description=str(facts.get("description", "")),
        )
        layout._check_tree(where)
        return layout

    def _check_tree(self, where: str) -> None:
        roots = [joint for joint, parent in enumerate(self.parents) if joint == parent]
        if len(roots) != 1:
            names = [self.joints[root] for root in roots]
            raise UserError(f"{where}: exactly one joint must have no parent (the root), found {names}")
        for joint in range(self.joint_count):
            seen = joint
            for _ in range(self.joint_count):
                seen = self.parents[seen]
            if seen != roots[0]:
                raise UserError(f"{where}: '{self.joints[joint]}' does not reach the root: 'parents' has a cycle")


def _pairs(facts: Mapping[str, Any], key: str, where: str) -> Mapping[Any, Any]:
    value = facts.get(key, {})
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: '{key}' must be pairs of a name and what belongs to it, not {value!r:.60}")
    return value


def _members(part: Any, members: Any, where: str) -> Sequence[Any]:
    if not isinstance(members, (list, tuple)):
        raise UserError(f"{where}: part '{part}' must be a list of joints, not {members!r:.60}")
    return members


def _weights(joint: Any, weights: Any, where: str) -> dict[str, float]:
    """Weights of other joints, which must sum to 1: otherwise a shift of the body would not shift this joint alike."""
    if not isinstance(weights, Mapping) or not all(
        isinstance(weight, (int, float)) and not isinstance(weight, bool) for weight in weights.values()
    ):
        raise UserError(f"{where}: 'derived' makes '{joint}' of {weights!r:.60}: give joints and their weights")
    if abs(sum(weights.values()) - 1.0) > 1e-3:
        raise UserError(f"{where}: the weights that make '{joint}' sum to {sum(weights.values()):g}, not to 1")
    return {str(name): float(weight) for name, weight in weights.items()}


def layout_names() -> list[str]:
    """Names of the layouts that come with the package."""
    return sorted(path.stem for path in BUILTIN.glob("*.yaml"))


def load_layout(name: str | Path) -> Layout:
    """Load a built-in layout by name, or a user's own from a ``.yaml`` file.

    Raises:
        UserError: no such layout, or the file is not a layout.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else BUILTIN / f"{name}.yaml"
    if len(path.name) > 255 or not path.is_file():  # looking for a longer name is an OSError
        raise UserError(f"no layout '{str(name):.80}': choose one of {', '.join(layout_names())}, or give a .yaml file")
    facts = read_yaml(path)
    if not isinstance(facts, dict):
        raise UserError(f"{path}: a layout file holds keys and values; see `mmcl/skeletons/layouts/`")
    return Layout.from_dict({"name": path.stem, **facts}, where=str(path))
