"""A layout says what the joints of one sensor are: names, tree, links, left/right pairs, body parts, pools, centre.

Layouts are data: a YAML file each in ``skeletons/layouts/``, or a user's own file of the same form. A loaded
layout turns into a plain dictionary, which is how a bundle carries it (no YAML is needed to run a bundle). Both may
come from strangers, so that sizes are bounded and every check takes time in proportion to what the file says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.files import read_yaml

BUILTIN = Path(__file__).parent / "layouts"
MOST_JOINTS = 1000
MOST_LEVELS = 10
LARGEST_WEIGHT = 1000.0


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
        links: pairs of joints that a graph connects beside the tree; each pair once, in either order.
        pools: level -> {joint of the level: {joint: weight}}, ever smaller sets of joints. The first level is made of
            the layout's joints, each further one of the level before; weights of a joint sum to 1.
        description: one line for people.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    centre: int
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    derived: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    links: tuple[tuple[int, int], ...] = ()
    pools: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
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
            "links": [[self.joints[a], self.joints[b]] for a, b in self.links],
            "pools": {
                level: {joint: dict(weights) for joint, weights in members.items()}
                for level, members in self.pools.items()
            },
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], where: str = "layout") -> Layout:
        """Build and check a layout from the form of a layout file.

        Raises:
            UserError: a key is missing or unknown, a joint is named that does not exist, the parents are no tree, or
                weights do not sum to 1.
        """
        known = {"name", "description", "centre", "joints", "parents", "parts", "derived", "links", "pools"}
        if unknown := sorted(str(key) for key in facts if key not in known):
            raise UserError(f"{where}: unknown key {unknown}; a layout has {sorted(known)}")
        if missing := {"name", "joints", "parents"} - set(facts):
            raise UserError(f"{where}: missing {sorted(missing)}")
        joints = _joints(facts["joints"], where)
        index = {name: i for i, name in enumerate(joints)}

        def find(name: Any, key: str) -> int:
            if isinstance(name, (bool, list, dict)) or str(name) not in index:
                raise UserError(f"{where}: '{key}' names the joint '{name!s:.60}', which is not in 'joints'")
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
                str(joint): _weights(joint, weights, "derived", where)
                for joint, weights in _pairs(facts, "derived", where).items()
            },
            links=tuple((find(a, "links"), find(b, "links")) for a, b in _links(facts.get("links", []), where)),
            pools=_pools(facts, joints, where),
            description=str(facts.get("description", "")),
        )
        layout._check_tree(where)
        layout._check_links(where)
        return layout

    def _check_tree(self, where: str) -> None:
        roots = [joint for joint, parent in enumerate(self.parents) if joint == parent]
        if len(roots) != 1:
            names = [self.joints[root] for root in roots[:5]]
            raise UserError(f"{where}: exactly one joint must have no parent (the root), found {len(roots)}: {names}")
        rooted = set(roots)
        for joint in range(self.joint_count):
            path: set[int] = set()
            while joint not in rooted:  # each joint is on one path only, since paths end at joints of earlier ones
                if joint in path:
                    raise UserError(f"{where}: '{self.joints[joint]}' does not reach the root: 'parents' has a cycle")
                path.add(joint)
                joint = self.parents[joint]
            rooted |= path

    def _check_links(self, where: str) -> None:
        seen = {frozenset(edge) for edge in self.edges}
        for a, b in self.links:
            if frozenset((a, b)) in seen or a == b:
                raise UserError(
                    f"{where}: the link {self.joints[a]} - {self.joints[b]} joins a joint with itself, "
                    "repeats a link, or is in 'parents' already"
                )
            seen.add(frozenset((a, b)))


def _joints(names: Any, where: str) -> tuple[str, ...]:
    if not isinstance(names, (list, tuple)) or any(isinstance(name, (bool, list, dict)) for name in names):
        raise UserError(f"{where}: 'joints' must be a list of names (on, off, yes and no only in quotes)")
    if len(names) > MOST_JOINTS:
        raise UserError(f"{where}: {len(names)} joints; a layout has at most {MOST_JOINTS}")
    joints = tuple(str(name) for name in names)
    if len(set(joints)) != len(joints) or not joints:
        raise UserError(f"{where}: 'joints' must be a list of different names")
    return joints


def _pairs(facts: Mapping[str, Any], key: str, where: str) -> Mapping[Any, Any]:
    value = facts.get(key, {})
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: '{key}' must be pairs of a name and what belongs to it, not {value!r:.60}")
    if len(value) > MOST_JOINTS:
        raise UserError(f"{where}: '{key}' has {len(value)} entries; a layout has at most {MOST_JOINTS} joints")
    return value


def _members(part: Any, members: Any, where: str) -> Sequence[Any]:
    if not isinstance(members, (list, tuple)):
        raise UserError(f"{where}: part '{part}' must be a list of joints, not {members!r:.60}")
    return members


def _links(links: Any, where: str) -> Sequence[Sequence[Any]]:
    if not isinstance(links, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in links
    ):
        raise UserError(f"{where}: 'links' must be a list of pairs of joints, not {links!r:.60}")
    return links


def _weights(joint: Any, weights: Any, key: str, where: str) -> dict[str, float]:
    """Weights of other joints, which must sum to 1: otherwise a shift of the body would not shift this joint alike."""
    if not isinstance(weights, Mapping) or not all(
        isinstance(weight, (int, float)) and not isinstance(weight, bool) for weight in weights.values()
    ):
        raise UserError(f"{where}: '{key}' makes '{joint!s:.60}' of {weights!r:.60}: give joints and their weights")
    if not all(abs(weight) <= LARGEST_WEIGHT for weight in weights.values()):  # neither is NaN
        raise UserError(f"{where}: '{key}' makes '{joint!s:.60}' with weights beyond {LARGEST_WEIGHT:g}, or with NaN")
    if abs(sum(weights.values()) - 1.0) > 1e-3:
        raise UserError(f"{where}: the weights that make '{joint!s:.60}' sum to {sum(weights.values()):g}, not to 1")
    return {str(name): float(weight) for name, weight in weights.items()}


def _pools(facts: Mapping[str, Any], joints: tuple[str, ...], where: str) -> dict[str, dict[str, dict[str, float]]]:
    """Levels in their order; each must be made of joints of the one before, and be smaller."""
    levels = _pairs(facts, "pools", where)
    if len(levels) > MOST_LEVELS:
        raise UserError(f"{where}: 'pools' has {len(levels)} levels; at most {MOST_LEVELS} are read")
    pools: dict[str, dict[str, dict[str, float]]] = {}
    below = set(joints)
    for level, members in levels.items():
        key = f"pools.{level!s:.60}"
        if not isinstance(members, Mapping) or not 0 < len(members) < len(below):
            raise UserError(f"{where}: '{key}' must make fewer joints than the {len(below)} it is made of, and some")
        found = {str(joint): _weights(joint, weights, key, where) for joint, weights in members.items()}
        if unknown := sorted({name for weights in found.values() for name in weights} - below):
            raise UserError(f"{where}: '{key}' names the joint '{unknown[0]:.60}', which the level below does not have")
        pools[str(level)] = found
        below = set(found)
    return pools


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
