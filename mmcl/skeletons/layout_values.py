"""Values of a layout file, one function a kind, checked as what a stranger wrote.

Every function raises a :class:`UserError` that names the file (``where``), the key and the fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcl.common.errors import UserError

MOST_JOINTS = 1000
MOST_LEVELS = 10
MOST_RULES = 10
LARGEST_WEIGHT = 1000.0


def read_joints(names: Any, where: str) -> tuple[str, ...]:
    """Different names, at least one."""
    if not isinstance(names, (list, tuple)) or any(isinstance(name, (bool, list, dict)) for name in names):
        raise UserError(f"{where}: 'joints' must be a list of names (on, off, yes and no only in quotes)")
    if len(names) > MOST_JOINTS:
        raise UserError(f"{where}: {len(names)} joints; a layout has at most {MOST_JOINTS}")
    joints = tuple(str(name) for name in names)
    if len(set(joints)) != len(joints) or not joints:
        raise UserError(f"{where}: 'joints' must be a list of different names")
    return joints


def read_pairs(facts: Mapping[str, Any], key: str, where: str) -> Mapping[Any, Any]:
    """A mapping with at most as many entries as a layout may have joints; missing: an empty one."""
    value = facts.get(key, {})
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: '{key}' must be pairs of a name and what belongs to it, not {value!r:.60}")
    if len(value) > MOST_JOINTS:
        raise UserError(f"{where}: '{key}' has {len(value)} entries; a layout has at most {MOST_JOINTS} joints")
    return value


def read_members(part: Any, members: Any, where: str) -> Sequence[Any]:
    """The joints of a body part, as they were written."""
    if not isinstance(members, (list, tuple)):
        raise UserError(f"{where}: part '{part}' must be a list of joints, not {members!r:.60}")
    return members


def read_links(links: Any, where: str) -> Sequence[Sequence[Any]]:
    """Pairs of joints, as they were written."""
    if not isinstance(links, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in links
    ):
        raise UserError(f"{where}: 'links' must be a list of pairs of joints, not {links!r:.60}")
    return links


def read_rules(joint: Any, rules: Any, where: str) -> tuple[dict[str, float], ...]:
    """How a joint is made of others: one rule, or several in the order in which they are tried."""
    written = rules if isinstance(rules, (list, tuple)) else [rules]
    if not 0 < len(written) <= MOST_RULES:
        raise UserError(f"{where}: 'derived' has {len(written)} rules for '{joint!s:.60}'; 1 to {MOST_RULES} are read")
    return tuple(_weights(joint, rule, "derived", where) for rule in written)


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


def read_pools(facts: Mapping[str, Any], joints: tuple[str, ...], where: str) -> dict[str, dict[str, dict[str, float]]]:
    """Levels in their order; each must be made of joints of the one before, and be smaller."""
    levels = read_pairs(facts, "pools", where)
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
