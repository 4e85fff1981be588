"""Applies a protocol to a store: which of its clips train, which are held out, which test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.class_texts import class_key
from mmcl.data.protocols import by_lists, protocol_names
from mmcl.data.rules import ANY, ATTRIBUTES, Protocol, Rule
from mmcl.data.split import Split
from mmcl.data.store import ClipStore


def split(
    store: ClipStore, protocol: Protocol, validation: Rule | None = None, needed: Sequence[str] = ("train", "test"),
    classes: int = 2,
) -> Split:  # fmt: skip
    """Apply a protocol to a store.

    Args:
        store: the clips.
        protocol: the rule.
        validation: attribute -> values held out of the training side; None or empty for none but the clips' own list.
        needed: sides that must have clips: those that are trained on or judged. What is held out must, if asked for.
        classes: how many there must be to train on, at least: 1 where nobody tells them apart.

    Raises:
        UserError: the protocol is another data set's, a needed side comes out empty, both sides share a clip, or there
            is one class alone to train.
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
        both = [store.ids[clip] for clip in np.flatnonzero(train & test)]
        raise UserError(
            f"protocol '{protocol.name}': {len(both)} clips are in both train and test ({', '.join(both[:3])}"
            + (", …)" if len(both) > 3 else ")")
        )
    if protocol.gate:  # nothing of the test side is looked at
        test = train & _match(store, protocol.calibrate)
        train = train & ~test
    seen, unseen = divide_classes(by_labels(protocol, store.class_names), len(store.class_names))
    withheld = test & np.isin(store.labels, unseen)
    train, test = train & np.isin(store.labels, seen), test & np.isin(store.labels, seen)
    rule = validation or own
    held = train & _match(store, rule) if rule else np.zeros_like(train)
    train = train & ~held
    clip = "clip of a trained class" if protocol.open else "clip"  # there may be some of withheld ones
    sides = {"train": train, "test": test, "validation": held}
    for side in [*needed, *(["validation"] if validation and "train" in needed else [])]:
        if not sides[side].any():
            own_lists = [name for name in protocol_names(store) if name.startswith("own/")]
            lists = sorted({name for clip in store.splits for name in clip})
            hint = f"; its clips bring {', '.join(own_lists)} along" if own_lists else ""
            hint += f"; the lists they are in: {', '.join(lists[:6])}" if lists else "; they are in no list"
            raise UserError(
                f"protocol '{protocol.name}' finds no {side} {clip} in {store.location} ({len(store)} clips{hint})"
            )
    if "train" in needed and len(seen) < classes:
        raise UserError(
            f"{store.location} has one class alone, '{store.class_names[0]}': there is nothing to tell apart"
        )
    train_clips, held_clips, test_clips, withheld_clips = map(np.flatnonzero, (train, held, test, withheld))
    found = Split(train_clips, held_clips, test_clips, seen, withheld_clips, unseen, store.ids, store.labels)
    if protocol.long_tail is not None and len(train_clips):
        found = protocol.long_tail.apply(found)
    return protocol.stream.apply(found) if protocol.stream is not None else found


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
        elif attribute == "id":
            mask &= np.isin(np.asarray(store.ids), np.asarray(list(values)))
        else:
            numbers = _subjects(store, values) if attribute == "subject" else _numbers(attribute, values)
            mask &= np.isin(columns[attribute], np.asarray(numbers))
    return mask


def _numbers(attribute: str, values: Sequence[Any]) -> Sequence[Any]:
    """Values of an attribute that has numbers alone."""
    if words := [value for value in values if isinstance(value, str)]:
        raise UserError(f"a rule gives {attribute} '{words[0]:.40}': clips have numbers there, give those")
    return values


def _subjects(store: ClipStore, values: Sequence[Any]) -> list[int]:
    """Numbers of people whom a rule numbers or names."""
    known = store.subject_names
    if strange := [value for value in values if isinstance(value, str) and value not in known]:
        names = f"one of {', '.join(known)}" if known else "a number: its files name nobody"
        raise UserError(f"{store.location} has no subject '{strange[0]}': give {names}")
    return [known[value] if isinstance(value, str) else int(value) for value in values]


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


def by_labels(protocol: Protocol, names: Sequence[str]) -> Protocol:
    """The protocol with labels in the place of names of withheld classes.

    Raises:
        UserError: there is no such class, or one is there by name and by label.
    """
    exact = {name: label for label, name in enumerate(names)}
    known = {class_key(name): label for name, label in exact.items()}

    def label(one: int | str) -> int:
        if isinstance(one, int):
            return one
        found = exact.get(one, known.get(class_key(one)))
        if found is None:
            raise UserError(
                f"protocol '{protocol.name}' withholds '{one:.60}', and there is no such class: "
                f"{', '.join(names[:20])}{', …' if len(names) > 20 else ''}"
            )
        return found

    found = replace(
        protocol, unseen=[label(one) for one in protocol.unseen],
        pseudo_unseen=[label(one) for one in protocol.pseudo_unseen],
    )  # fmt: skip
    both = [*found.unseen, *found.pseudo_unseen]
    if len({*both}) < len(both):
        raise UserError(f"protocol '{protocol.name}' withholds a class twice, by its name and by its label")
    return found


def divide_classes(protocol: Protocol, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels that are trained, and labels that are withheld to be recognised by text; both ascending.

    A pure function of the protocol: the draw seeds a permutation of all labels. In the ``/gate`` variant the withheld
    labels are the pseudo-unseen ones, and the really unseen ones take part in nothing.

    Raises:
        UserError: the protocol names a label that there is not, or leaves fewer than two classes to train.
    """
    order = np.random.default_rng(np.random.SeedSequence(protocol.draw)).permutation(classes)
    unseen = np.array(protocol.unseen or order[: protocol.unseen_count], dtype=np.int64)
    rest = order[~np.isin(order, unseen)]
    pseudo = np.array(protocol.pseudo_unseen or rest[: len(unseen)], dtype=np.int64) if protocol.gate else unseen[:0]
    seen = np.setdiff1d(rest, pseudo)
    if (np.concatenate([unseen, pseudo]) >= classes).any() or (protocol.open and len(seen) < 2):
        raise UserError(
            f"protocol '{protocol.name}' withholds {sorted({*unseen.tolist(), *pseudo.tolist()})} of {classes}: "
            "labels count from 0, and at least two must be left to train"
        )
    return seen, np.sort(pseudo if protocol.gate else unseen)
