"""A protocol applied to a store: which clips train, which are held out of them, which test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmcl.data.protocols import ANY, ATTRIBUTES, Protocol, Rule, by_lists, protocol_names
from mmcl.data.store import ClipStore
from mmcl.errors import UserError


@dataclass(frozen=True)
class Split:
    """Clip positions in a store, each an int64 array in ascending order."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split(store: ClipStore, protocol: Protocol, validation: Rule | None = None) -> Split:
    """Apply a protocol to a store.

    Args:
        store: the clips.
        protocol: the rule.
        validation: attribute -> values held out of the training side; None or empty for none but the clips' own list.

    Raises:
        UserError: the protocol is another data set's, a side comes out empty, or both sides share a clip.
    """
    if protocol.dataset not in (store.dataset, ANY):
        raise UserError(
            f"protocol '{protocol.name}' is for '{protocol.dataset}', but {store.location} holds clips of "
            f"'{store.dataset}'"
        )
    own: Rule = {}
    if protocol.halves:
        train, test = _halves(store, protocol)
    elif protocol.lists:
        into_train, own, into_test = by_lists(protocol.lists, {name for clip in store.splits for name in clip})
        train, test = _match(store, into_train), _match(store, into_test)
    else:
        train, test = _match(store, protocol.train), _match(store, protocol.test)
    if (train & test).any():
        raise UserError(f"protocol '{protocol.name}': {int((train & test).sum())} clips are in both train and test")
    rule = validation or own
    held = train & _match(store, rule) if rule else np.zeros_like(train)
    train = train & ~held
    for side, mask in {"train": train, "test": test, **({"validation": held} if validation else {})}.items():
        if not mask.any():
            own_lists = [name for name in protocol_names(store) if name.startswith("own/")]
            hint = f"; its clips bring {', '.join(own_lists)} along" if own_lists else ""
            raise UserError(
                f"protocol '{protocol.name}' finds no {side} clip in {store.location} ({len(store)} clips{hint})"
            )
    return Split(np.flatnonzero(train), np.flatnonzero(held), np.flatnonzero(test))


def _match(store: ClipStore, rule: Rule) -> np.ndarray:
    """(clips,) bool: every attribute of the rule has one of its values."""
    columns = {
        **{"subject": store.subjects, "camera": store.cameras, "setup": store.setups, "trial": store.trials},
        "label": store.labels,
    }
    mask = np.ones(len(store), dtype=bool)
    for attribute, values in rule.items():
        if attribute not in ATTRIBUTES:
            raise UserError(f"clips have no attribute '{attribute}': choose one of {', '.join(ATTRIBUTES)}")
        if attribute == "split":
            wanted = set(values)
            mask &= np.array([not wanted.isdisjoint(lists) for lists in store.splits], dtype=bool)
        else:
            have = np.asarray(store.ids) if attribute == "id" else columns[attribute]
            mask &= np.isin(have, np.asarray(list(values)))
    return mask


def _halves(store: ClipStore, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """(clips,) bool for train and test: a pure function of the clips' ids (or people) and the draw.

    Of an odd number the larger half trains.
    """
    rng = np.random.default_rng(np.random.SeedSequence(protocol.draw))
    train = np.zeros(len(store), dtype=bool)
    if protocol.halves == "subjects":
        people = rng.permutation(np.unique(store.subjects))
        train = np.isin(store.subjects, people[: (len(people) + 1) // 2])
    else:
        ids = np.asarray(store.ids)
        for label in range(len(store.class_names)):
            clips = np.flatnonzero(store.labels == label)
            clips = rng.permutation(clips[np.argsort(ids[clips])])
            train[clips[: (len(clips) + 1) // 2]] = True
    return train, ~train
