"""Few-shot training sides: k clips a class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmcl.data.splitting import Split
from mmcl.data.store import ClipStore


def draw_shots(split: Split, store: ClipStore, shots: int, seed: int) -> Split:
    """Keep so many training clips of each class.

    A pure function of the seed and the ids of the training clips; validation and test stay as they are. Of one seed,
    the clips of fewer shots are among those of more.

    Args:
        split: of the store.
        store: the clips.
        shots: clips a class; a class that has fewer keeps all.
        seed: of the draw.
    """
    ids, labels = np.asarray(store.ids)[split.train], store.labels[split.train]
    kept = []
    for label in np.unique(labels):
        clips = split.train[labels == label][np.argsort(ids[labels == label])]
        kept.append(np.random.default_rng(np.random.SeedSequence((seed, int(label)))).permutation(clips)[:shots])
    return replace(split, train=np.sort(np.concatenate(kept)))


def short_classes(split: Split, store: ClipStore, shots: int) -> dict[str, int]:
    """Names of the classes that have fewer training clips than ``shots``, and how many they have."""
    counts = {int(label): int((store.labels[split.train] == label).sum()) for label in split.classes}
    return {store.class_names[label]: count for label, count in counts.items() if count < shots}
