"""What a protocol is.

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
ATTRIBUTES = ("subject", "camera", "setup", "trial", "label", "id", "split")
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
