"""What a protocol makes of a store: which clips train, which are held out of them, which test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Split:
    """Clip positions in a store, each an int64 array in ascending order.

    Attributes:
        train: clips to train on.
        validation: clips held out of the training side.
        test: test-side clips of the classes that are trained.
        classes: (K,) labels that are trained, ascending: output k of a model is class ``classes[k]``.
        unseen: test-side clips of withheld classes; empty but for open-vocabulary protocols.
        unseen_classes: (U,) withheld labels that ``unseen`` is judged among, ascending.
        ids: names of all clips of the store.
        labels: (clips,) labels of all clips of the store.
        stream: outputs of the classes that arrive together, part by part, where they do not arrive all at once.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    classes: np.ndarray
    unseen: np.ndarray
    unseen_classes: np.ndarray
    ids: Sequence[str] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    stream: tuple[np.ndarray, ...] = ()

    @cached_property
    def digest(self) -> str:
        """sha256 (hexadecimal) over the clip ids and outputs of every side: what was trained on, and what was not.

        Two stores with the same clips give the same digest, in whatever order their files hold them. Another rule under
        the same protocol name gives another digest.
        """
        sides = {"train": self.train, "validation": self.validation, "test": self.test}
        known = {name: self._named(clips, self.classes) for name, clips in sides.items()}
        known["unseen"] = self._named(self.unseen, self.unseen_classes)
        return _digest(known | ({"stream": [part.tolist() for part in self.stream]} if self.stream else {}))

    @cached_property
    def test_digest(self) -> str:
        """sha256 (hexadecimal) over the clip ids of the test side alone, withheld classes among them."""
        return _digest(sorted(self.ids[clip] for clip in (*self.test, *self.unseen)))

    def _named(self, clips: np.ndarray, classes: np.ndarray) -> list[tuple[str, int]]:
        """Id and output of clips, by id."""
        outputs = outputs_of(classes, self.labels[clips]) if len(clips) else clips
        return sorted((self.ids[clip], int(output)) for clip, output in zip(clips, outputs, strict=True))

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Store labels -> outputs of a model of this split; see :func:`outputs_of`."""
        return outputs_of(self.classes, labels)


def outputs_of(classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Store labels -> outputs of a model.

    Args:
        classes: (K,) labels that are trained, ascending: output k is class ``classes[k]``.
        labels: labels among them.

    Raises:
        ValueError: a label is not trained, so that no output is right for it.
    """
    found = np.searchsorted(classes, labels)
    if not np.array_equal(classes[np.minimum(found, len(classes) - 1)], labels):
        raise ValueError(f"labels {np.setdiff1d(labels, classes).tolist()} are not among the trained classes")
    return found


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
