"""Training sides with fewer clips than there are: so many of each class (few-shot), or ever fewer (long-tailed).

Both are pure functions of a seed and the names of the training clips. Validation and test stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.split import Split
from mmcl.data.store import ClipStore


@dataclass(frozen=True)
class LongTail:
    """How the clips a class fall off from the most frequent class to the rarest.

    The class of rank r of K keeps floor(most * imbalance ** (-r / (K - 1))) training clips. The protocol is that of BRL
    (firework8/BRL), whose lists Shap-Mix (IJCAI 2024) trains on: ranks by class number, and one generator (NumPy's
    ``RandomState``, seed 0) shuffles the names of class after class, of which the first are kept. From training lists
    that are sorted by name this gives the published lists of NTU-120. Those of NTU-60 were drawn from an order that
    was not published: their sizes are the same, their names are others.

    Attributes:
        imbalance: clips of the most frequent class for each clip of the rarest.
        most: clips of the most frequent class; 0 for as many as the class with the fewest training clips has, so that
            any class may take any rank.
        seed: of the order of the classes and of the clips. None: classes by number, clips by seed 0, as published.
    """

    imbalance: float
    most: int = 0
    seed: int | None = None

    def sizes(self, classes: int, most: int) -> np.ndarray:
        """(classes,) int64 clips by rank; see the class for the formula."""
        rank = np.arange(classes) / max(classes - 1, 1)
        return np.floor(most * float(self.imbalance) ** -rank + 1e-9).astype(np.int64)

    def apply(self, split: Split) -> Split:
        """Keep so many training clips of each class.

        Args:
            split: with a whole training side.

        Raises:
            UserError: the rarest class would keep no clip.
        """
        clips = dict(_by_class(split))
        K = len(split.classes)
        most = self.most or min(map(len, clips.values()), default=0)
        sizes = self.sizes(K, most)
        if sizes[-1] < 1:
            raise UserError(
                f"long_tail: imbalance {self.imbalance:g} of {most} clips leaves none of the rarest class: choose an "
                f"imbalance of at most {most}"
            )
        ranks = np.arange(K) if self.seed is None else np.random.default_rng(self.seed).permutation(K)
        # RandomState, whose numbers never change, and all of a class: the published lists were drawn so
        shuffler = np.random.RandomState(self.seed or 0)
        kept = []
        for output, names in clips.items():
            shuffler.shuffle(names)
            kept.append(names[: sizes[ranks[output]]])
        return replace(split, train=np.sort(np.concatenate(kept)))


def draw_shots(split: Split, store: ClipStore, shots: int, seed: int) -> Split:
    """Keep so many training clips of each class.

    Of one seed, the clips of fewer shots are among those of more.

    Args:
        split: of the store.
        store: the clips.
        shots: clips a class; a class that has fewer keeps all.
        seed: of the draw.
    """
    kept = []
    for output, clips in _by_class(split):
        label = int(split.classes[output])
        kept.append(np.random.default_rng(np.random.SeedSequence((seed, label))).permutation(clips)[:shots])
    return replace(split, train=np.sort(np.concatenate(kept)))


def draw_share(split: Split, share: float, seed: int) -> Split:
    """Keep a random share of the training clips, whatever their classes, and at least one.

    Of one seed, the clips of a smaller share are among those of a larger one.

    Args:
        split: of a store.
        share: in (0, 1].
        seed: of the draw.
    """
    by_name = split.train[np.argsort(np.asarray(split.ids)[split.train])]
    order = np.random.default_rng(np.random.SeedSequence((seed, len(by_name)))).permutation(by_name)
    return replace(split, train=np.sort(order[: max(1, round(share * len(order)))]))


def short_classes(split: Split, store: ClipStore, shots: int) -> dict[str, int]:
    """Names of the classes that have fewer training clips than ``shots``, and how many they have."""
    counts = {int(label): int((store.labels[split.train] == label).sum()) for label in split.classes}
    return {store.class_names[label]: count for label, count in counts.items() if count < shots}


def _by_class(split: Split) -> Iterator[tuple[int, np.ndarray]]:
    """Output and training clips (sorted by name) of each class that has any."""
    ids, labels = np.asarray(split.ids)[split.train], split.labels[split.train]
    for output, label in enumerate(split.classes):
        if len(clips := split.train[labels == label]):
            yield output, clips[np.argsort(ids[labels == label])]
