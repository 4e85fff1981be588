"""Adds the rules of ``joints.yaml`` to a layout: how joints of common names are made where a source lacks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from mmcl.common.documents import read_yaml
from mmcl.skeletons.layout_values import read_rules

COMMON_RULES = Path(__file__).parent / "joints.yaml"


def with_common_rules(
    joints: Sequence[str], own: Mapping[str, tuple[Mapping[str, float], ...]]
) -> dict[str, tuple[Mapping[str, float], ...]]:
    """A layout's own rules, and the common ones that lead to its joints.

    Args:
        joints: of the layout.
        own: its own rules, which stand above the common ones.
    """
    common, derived = common_rules(), dict(own)
    wanted = [*joints, *(name for rules in own.values() for rule in rules for name in rule)]
    while wanted:
        joint = wanted.pop()
        if joint in common and joint not in derived:
            derived[joint] = common[joint]
            wanted += [name for rule in common[joint] for name in rule]
    return derived


@cache
def common_rules() -> dict[str, tuple[Mapping[str, float], ...]]:
    """Rules of ``joints.yaml``; those of a left joint hold for the right one, too."""
    rules: dict[str, tuple[Mapping[str, float], ...]] = {}
    for joint, written in read_yaml(COMMON_RULES).items():
        rules[joint] = read_rules(joint, written, str(COMMON_RULES))
        if joint.startswith("left_"):
            rules[_right(joint)] = tuple(
                {_right(name): weight for name, weight in rule.items()} for rule in rules[joint]
            )
    return rules


def _right(joint: str) -> str:
    return "right_" + joint[5:] if joint.startswith("left_") else joint
