"""What a protocol is, and how one is read from YAML.

A rule names one or more clip attributes (subject, camera, setup, trial, label from 0, id, split) and the values that
belong to a side, or says that one half of the clips or people, drawn at random, trains (``halves``). An open-vocabulary
rule takes the sides of another one (``base``) and withholds classes from training: a published list (``unseen``), or as
many as ``unseen_count`` says, drawn at random. Rules may also thin out the training side (``long_tail``) or let its
classes arrive one part after the other (``stream``), with sides of their own or those of a base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmcl.common.errors import UserError
from mmcl.data.arrival import Stream
from mmcl.data.thinning import LongTail

ANY = "any"  # a rule for clips of every data set
OWN = "own/"  # before the stem of lists that clips bring along
SIDES = ("train", "test")
ATTRIBUTES = ("subject", "camera", "setup", "trial", "label", "id", "split")
HALVES = ("clips", "subjects")
SEEDABLE: dict[str, Any] = {"long_tail": LongTail, "stream": Stream}
MOST = 2**31 - 1  # of a label, a number of clips or a seed: NumPy's generators take no larger one
Rule = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Protocol:
    """A train/test rule.

    Attributes:
        name: ``dataset/rule`` ("utd_mhad/cross_subject").
        dataset: name of the data set it belongs to; "any" for the lists that clips bring along.
        train: attribute -> values of the training clips; several attributes must all match.
        test: the same for test clips.
        lists: stem of the clips' own lists that take the place of train and test; see :func:`by_lists`.
        halves: "clips" (half of each class's clips train) or "subjects" (half of the people); "" for a fixed rule.
        draws: how many random halves, or random sets of withheld classes, the protocol averages over.
        draw: which of them this is.
        base: protocol whose sides this one takes: one with withheld classes always does; "" for sides of its own.
        unseen: labels or names of the withheld classes.
        unseen_count: how many classes to draw at random in their place.
        pseudo_unseen: labels or names withheld too in the ``/gate`` variant; as many as unseen, drawn at random, where
            empty.
        calibrate: training-side clips that the ``/gate`` variant keeps for judging.
        gate: whether this is the ``/gate`` variant.
        long_tail: how the training clips a class fall off; None for all there are.
        stream: how classes arrive; None for all at once.
        source: where the rule comes from.
    """

    name: str
    dataset: str
    train: Rule = field(default_factory=dict)
    test: Rule = field(default_factory=dict)
    lists: str = ""
    halves: str = ""
    draws: int = 1
    draw: int = 0
    base: str = ""
    unseen: Sequence[int | str] = ()
    unseen_count: int = 0
    pseudo_unseen: Sequence[int | str] = ()
    calibrate: Rule = field(default_factory=dict)
    gate: bool = False
    long_tail: LongTail | None = None
    stream: Stream | None = None
    source: str = ""

    @property
    def drawn(self) -> bool:
        """Whether the rule is random."""
        return bool(self.halves or self.unseen_count or self._seeded)

    @property
    def _seeded(self) -> dict[str, LongTail | Stream]:
        """Which of the long tail and the stream go by a seed."""
        parts = {"long_tail": self.long_tail, "stream": self.stream}
        return {name: part for name, part in parts.items() if part is not None and part.seed is not None}

    @property
    def open(self) -> bool:
        """Whether classes are withheld from training, to be recognised by their text."""
        return bool(self.unseen or self.unseen_count)

    @property
    def needs_draw(self) -> bool:
        """Whether the rule is several random draws, so that its name needs one of them."""
        return self.drawn and self.draws > 1

    def with_draw(self, draw: str) -> Protocol:
        """One draw of a random rule, by the word after its name.

        Raises:
            UserError: it has no such draw.
        """
        if draw.isdecimal() and len(draw) < 10 and int(draw) < self.draws:
            seeded: dict[str, Any] = {name: replace(part, seed=int(draw)) for name, part in self._seeded.items()}
            return replace(self, name=f"{self.name}/{draw}", draw=int(draw), **seeded)
        which = f"0 … {self.draws - 1}" if self.draws > 1 else "0 alone (`draws: N` allows more)"
        raise UserError(f"protocol '{self.name}' has no draw '{draw}': it has {which}")

    def on_gate(self) -> Protocol:
        """The ``/gate`` variant: a second set of classes withheld, and judged on the training side.

        Raises:
            UserError: it has none.
        """
        if not self.open or self.gate or not self.calibrate:
            raise UserError(f"protocol '{self.name}' has no /gate variant: that takes withheld classes and `calibrate`")
        return replace(self, name=f"{self.name}/gate", gate=True)

    def on_base(self, known: Mapping[str, Protocol]) -> Protocol:
        """Give a protocol the sides of its base.

        Raises:
            UserError: there is no such base, or it is random or another data set's.
        """
        if not self.base:
            return self
        if (lists := self.base.removeprefix(OWN)) != self.base and lists:
            return replace(self, lists=lists)
        base = known.get(self.base)
        if base is None or base.drawn or base.open or base.dataset != self.dataset:
            raise UserError(
                f"protocol '{self.name}': base '{self.base}' is no fixed protocol of its data set, and no own/… of the "
                "clips' own lists"
            )
        return replace(self, train=base.train, test=base.test)


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
