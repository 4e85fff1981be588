"""Makes a protocol of what a YAML file says below its name, and refuses what cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcl.common.errors import UserError
from mmcl.data.arrival import Stream
from mmcl.data.rules import ANY, ATTRIBUTES, OWN, Protocol, Rule
from mmcl.data.thinning import LongTail

SIDES = ("train", "test")
HALVES = ("clips", "subjects")
SEEDABLE: dict[str, Any] = {"long_tail": LongTail, "stream": Stream}
MOST = 2**31 - 1  # of a label, a number of clips or a seed: NumPy's generators take no larger one


def parse_protocol(name: str, facts: Any, where: str) -> Protocol:
    """A protocol from what a YAML file says below its name.

    Args:
        name: of the protocol.
        facts: keys and values.
        where: the file, for messages.

    Raises:
        UserError: a key is unknown or missing, or has a value that cannot be.
    """
    try:
        rules: dict[str, Any] = {
            key: _rule(value) if key in (*SIDES, "calibrate") else value for key, value in facts.items()
        }
        rules |= {key: _seedable(SEEDABLE[key], value) for key, value in facts.items() if key in SEEDABLE}
        if str(rules.get("base", "")).startswith(OWN):  # whose clips bring the lists along is said by the store
            rules = {"dataset": ANY, **rules}
        protocol = Protocol(name=name, **rules)
        if not (protocol.halves or protocol.base) and not (protocol.train and protocol.test):
            raise KeyError("a side is missing")
        if (protocol.halves or protocol.base) and (protocol.train or protocol.test):
            raise KeyError("halves, or a base, make the sides: leave out train and test")
        if protocol.open and not protocol.base:
            raise UserError(
                f"{where}: protocol '{name}' withholds classes (unseen, unseen_count) and has no base: name the rule "
                "that divides the others, base: NAME, and leave out train and test"
            )
        if protocol.base and not (protocol.open or protocol.long_tail or protocol.stream):
            raise KeyError("a base needs unseen (or unseen_count), long_tail or stream")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: protocol '{name}' needs dataset, train and test ({error})") from error
    _check(protocol, f"{where}: protocol '{name}'")
    return protocol


def _check(protocol: Protocol, what: str) -> None:
    for key in ("dataset", "base", "lists", "source"):
        if not isinstance(value := getattr(protocol, key), str):
            raise UserError(f"{what}: {key} is a text, found {value!r:.40}")
    if unknown := {*protocol.train, *protocol.test, *protocol.calibrate} - set(ATTRIBUTES):
        raise UserError(f"{what} splits by {sorted(unknown)}; clips have {', '.join(ATTRIBUTES)}")
    for withheld in (protocol.unseen, protocol.pseudo_unseen):
        known = isinstance(withheld, list | tuple)
        if not known or not all(isinstance(label, str) or _whole(label) for label in withheld):
            raise UserError(f"{what}: unseen and pseudo_unseen are lists of names, or of labels, from 0 up")
    both = [*protocol.unseen, *protocol.pseudo_unseen]
    if len({*both}) < len(both) or not _whole(protocol.unseen_count):
        raise UserError(
            f"{what}: unseen and pseudo_unseen share no class and repeat none, and unseen_count is a whole number"
        )
    if protocol.halves not in ("", *HALVES) or not _whole(protocol.draw):
        raise UserError(f"{what}: halves is {' or '.join(HALVES)}, and draw a whole number")
    tail, stream = protocol.long_tail, protocol.stream
    if tail is not None and not (_number(tail.imbalance, 1) and _whole(tail.most)):
        raise UserError(f"{what}: long_tail has imbalance, 1 or more, and most, a whole number of clips")
    if stream is not None and not (_whole(stream.classes, 1) and type(stream.inverse) is bool
                                   and all(map(_whole, stream.order))):  # fmt: skip
        raise UserError(f"{what}: stream has classes, 1 or more, an order of labels, and inverse, true or false")
    for key, part in (("long_tail", tail), ("stream", stream)):
        if part is not None and part.seed is not None and not _whole(part.seed):
            raise UserError(f"{what}: the seed of {key} is a whole number from 0 to {MOST:,}, found {part.seed!r:.40}")
    if not _whole(protocol.draws, 1):
        raise UserError(f"{what}: draws is how many random draws there are, 1 or more")


def _whole(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value <= MOST


def _number(value: Any, least: float) -> bool:
    return type(value) in (int, float) and least <= value <= MOST


def _rule(value: Mapping[str, Any]) -> Rule:
    """One value may stand for a list of one."""
    rule = {key: values if isinstance(values, list) else [values] for key, values in value.items()}
    if any(type(entry) not in (int, str) for values in rule.values() for entry in values):  # a bool is an int, too
        raise TypeError(f"values are numbers or words, found {value!r:.80}")
    for key in ("id", "split"):
        if numbers := [entry for entry in rule.get(key, ()) if not isinstance(entry, str)]:
            raise TypeError(f"{key} {numbers[0]} reads as a number: put quotes around it")
    return rule


def _seedable(kind: Any, value: Mapping[str, Any]) -> LongTail | Stream:
    """``long_tail`` or ``stream`` of a YAML file, where ``order: random`` makes it a seeded one."""
    facts = dict(value)
    order = facts.pop("order", "number")
    if order == "random":
        facts["seed"] = 0
    elif kind is Stream and isinstance(order, list):
        facts["order"] = tuple(order)
    elif order != "number":
        raise TypeError(f"order is number or random{', or a list of labels' if kind is Stream else ''}: {order!r:.40}")
    made: LongTail | Stream = kind(**facts)
    return made
