"""A layout says what the joints of one sensor are: names, tree, links, left/right pairs, body parts, pools, centre.

Layouts are data: a YAML file each in ``skeletons/layouts/``, or a user's own file of the same form. A loaded
layout turns into a plain dictionary, which is how a bundle carries it (no YAML is needed to run a bundle). Both may
come from strangers, so that sizes are bounded and every check takes time in proportion to what the file says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmcl.common.documents import read_yaml
from mmcl.common.errors import UserError
from mmcl.common.files import is_file
from mmcl.skeletons.joint_rules import with_common_rules
from mmcl.skeletons.layout_values import read_joints, read_links, read_members, read_pairs, read_pools, read_rules

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
        derived: joint name -> rules {other joint name: weight}, how to make it where a source lacks it; the first that
            can be followed is.
        links: pairs of joints that a graph connects beside the tree; each pair once, in either order.
        pools: level -> {joint of the level: {joint: weight}}, ever smaller sets of joints. The first level is made of
            the layout's joints, each further one of the level before; weights of a joint sum to 1.
        bones: (joint, other joint) where the bone stream measures a joint from another one than its parent.
        description: one line for people.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    centre: int
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    derived: Mapping[str, tuple[Mapping[str, float], ...]] = field(default_factory=dict)
    links: tuple[tuple[int, int], ...] = ()
    pools: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    bones: tuple[tuple[int, int], ...] = ()
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
    def bone_parents(self) -> tuple[int, ...]:
        """For every joint the one that its bone begins at: its parent, unless ``bones`` says otherwise."""
        others = dict(self.bones)
        return tuple(others.get(joint, parent) for joint, parent in enumerate(self.parents))

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
            "derived": {joint: _plain(rules) for joint, rules in self.derived.items()},
            "links": [[self.joints[a], self.joints[b]] for a, b in self.links],
            "pools": {
                level: {joint: dict(weights) for joint, weights in members.items()}
                for level, members in self.pools.items()
            },
            "bones": {self.joints[joint]: self.joints[other] for joint, other in self.bones},
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], where: str = "layout") -> Layout:
        """Build and check a layout from the form of a layout file.

        Raises:
            UserError: a key is missing or unknown, a joint is named that does not exist, the parents are no tree, or
                weights do not sum to 1.
        """
        known = {"name", "description", "centre", "joints", "parents", "parts", "derived", "links", "pools", "bones"}
        if unknown := sorted(str(key) for key in facts if key not in known):
            raise UserError(f"{where}: unknown key {unknown}; a layout has {sorted(known)}")
        if missing := {"name", "joints", "parents"} - set(facts):
            raise UserError(f"{where}: missing {sorted(missing)}")
        joints = read_joints(facts["joints"], where)
        index = {name: i for i, name in enumerate(joints)}

        def find(name: Any, key: str) -> int:
            if isinstance(name, (bool, list, dict)) or str(name) not in index:
                raise UserError(f"{where}: '{key}' names the joint '{name!s:.60}', which is not in 'joints'")
            return index[str(name)]

        parents = list(range(len(joints)))
        for child, parent in read_pairs(facts, "parents", where).items():
            parents[find(child, "parents")] = find(parent, "parents")
        layout = cls(
            name=str(facts["name"]),
            joints=joints,
            parents=tuple(parents),
            centre=find(facts.get("centre", joints[0]), "centre"),
            parts={
                str(part): tuple(find(joint, "parts") for joint in read_members(part, members, where))
                for part, members in read_pairs(facts, "parts", where).items()
            },
            derived={
                str(joint): read_rules(joint, rules, where)
                for joint, rules in read_pairs(facts, "derived", where).items()
            },
            links=tuple((find(a, "links"), find(b, "links")) for a, b in read_links(facts.get("links", []), where)),
            pools=read_pools(facts, joints, where),
            bones=tuple(
                (find(joint, "bones"), find(other, "bones"))
                for joint, other in read_pairs(facts, "bones", where).items()
            ),
            description=str(facts.get("description", "")),
        )
        layout._check_tree(layout.parents, "parents", where)
        layout._check_tree(layout.bone_parents, "bones", where)
        layout._check_links(where)
        return layout

    def _check_tree(self, parents: Sequence[int], key: str, where: str) -> None:
        roots = [joint for joint, parent in enumerate(parents) if joint == parent]
        if len(roots) != 1:
            names = [self.joints[root] for root in roots[:5]]
            raise UserError(f"{where}: exactly one joint must have no parent (the root), found {len(roots)}: {names}")
        rooted = set(roots)
        for joint in range(self.joint_count):
            path: set[int] = set()
            while joint not in rooted:  # each joint is on one path only, since paths end at joints of earlier ones
                if joint in path:
                    raise UserError(f"{where}: '{self.joints[joint]}' does not reach the root: '{key}' has a cycle")
                path.add(joint)
                joint = parents[joint]
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


def _plain(rules: Sequence[Mapping[str, float]]) -> dict[str, float] | list[dict[str, float]]:
    """Rules as a layout file has them: one alone, several in a list."""
    plain = [dict(rule) for rule in rules]
    return plain[0] if len(plain) == 1 else plain


def layout_names() -> list[str]:
    """Names of the layouts that come with the package."""
    return sorted(path.stem for path in BUILTIN.glob("*.yaml"))


def load_layout(name: str | Path | Layout) -> Layout:
    """Load a built-in layout by name, or a user's own from a ``.yaml`` file; one that is loaded stays what it is.

    Rules of ``joints.yaml`` are added for joints that the layout has under the common names and has no rule for.

    Raises:
        UserError: no such layout, or the file is not a layout.
    """
    if isinstance(name, Layout):
        return name
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else BUILTIN / f"{name}.yaml"
    if not is_file(path):
        raise UserError(f"no layout '{str(name):.80}': choose one of {', '.join(layout_names())}, or give a .yaml file")
    facts = read_yaml(path)
    if not isinstance(facts, dict):
        raise UserError(f"{path}: a layout file holds keys and values; see `mmcl/skeletons/layouts/`")
    layout = Layout.from_dict({"name": path.stem, **facts}, where=str(path))
    return replace(layout, derived=with_common_rules(layout.joints, layout.derived))
