"""Clips of a store as somebody chose them: what a model is judged on, adapted to or attacked with."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.rules import Protocol, Rule
from mmcl.data.split import Split
from mmcl.data.store import ClipStore

SIDES = ("train", "validation", "test")


@dataclass(frozen=True)
class Selection:
    """Clips of a store, with the rule that chose them.

    Attributes:
        store: the clips.
        protocol: the rule as its user calls it; None where no rule chose, so that all clips are meant.
        rule: the same, read.
        split: what the rule makes of the store.
        side: of the split, that is meant: train, validation, test or unseen.
        held_out: what the split holds out of the training side for validation.
    """

    store: ClipStore
    protocol: str | None = None
    rule: Protocol | None = None
    split: Split | None = None
    side: str = "test"
    held_out: Rule | None = None

    @property
    def sides(self) -> Split:
        """The split, for those who cannot do without.

        Raises:
            UserError: no protocol was given.
        """
        if self.split is None:
            raise UserError(f"which clips of {self.store.location}? Give --protocol")
        return self.split

    @property
    def clips(self) -> np.ndarray:
        """(n,) positions in the store of the clips that are meant, ascending."""
        if self.split is None:
            return np.arange(len(self.store))
        clips: np.ndarray = getattr(self.split, self.side)
        return clips

    def ids(self, clips: np.ndarray) -> list[str]:
        """Names of clips."""
        return [self.store.ids[clip] for clip in clips]

    def targets(self, clips: np.ndarray, known: list[str]) -> np.ndarray:
        """What a model should answer.

        Args:
            clips: (n,) positions in the store, of classes that the split trains.
            known: K class names of the model, in the order of its outputs.

        Returns:
            (n,) outputs of the model.

        Raises:
            UserError: the model does not know one of the split's classes by its name.
        """
        outputs = self.outputs(known)
        return outputs[self.sides.targets(self.store.labels[clips])]

    def outputs(self, known: list[str]) -> np.ndarray:
        """(K',) the output of a model for each class of the split; a store may show some of its classes alone.

        Raises:
            UserError: the model does not know one of them by its name.
        """
        names = [self.store.class_names[label] for label in self.sides.classes]
        if known == names:
            return np.arange(len(names))
        if len(set(known)) < len(known) or not set(names) <= set(known):
            raise UserError(
                f"the model knows {len(known)} classes, and not all {len(names)} of {self.protocol} on "
                f"{self.store.location}: to judge it on foreign classes use `mmcl zero-shot`"
            )
        return np.array([known.index(name) for name in names])


def find_clip(store: ClipStore, wanted: str) -> int:
    """Position of a clip by its id, or else by its number.

    Raises:
        UserError: there is none.
    """
    require_clips(store)
    if wanted in store.ids:
        return store.ids.index(wanted)
    if wanted.isdecimal() and len(wanted) < 10 and int(wanted) < len(store):
        return int(wanted)
    near = difflib.get_close_matches(wanted, store.ids, n=3, cutoff=0.4) or store.ids[:3]
    raise UserError(
        f"{store.location}: no clip '{wanted}'; did you mean {', '.join(near)}? Positions go from 0 to {len(store) - 1}"
    )


def require_clips(store: ClipStore) -> None:
    """Whether there is anything to look at.

    Raises:
        UserError: it is a shard, or a store, of bad clips alone.
    """
    if not len(store):
        what = "shard" if store.shard is not None else "store"
        raise UserError(f"{store.location}: no clips in this {what}; skipped.csv in it says why")
