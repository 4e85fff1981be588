"""Which clips a model has learned from: nobody shall judge it by these without being told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.split import Split
from mmcl.data.store import ClipStore
from mmcl.models.description import Description
from mmcl.models.record import Record


def record_before_format_1(provenance: Mapping[str, Any]) -> Record:
    """What a bundle of before the record says of itself: protocols and stores, without the clips.

    Args:
        provenance: of its ``config.json``: what it was trained on, had started from, and was adapted to.
    """
    parents = [_named(provenance.get("adapted") or {})]
    lessons = (provenance.get("started_from") or {}).get("lessons", ())
    keys = ("protocol", "data_fingerprint", "dataset")
    parents += [_named(dict(zip(keys, lesson, strict=False))) for lesson in lessons]
    own = _named(provenance)
    return Record(own.dataset, own.protocol, own.store, parents=tuple(p for p in parents if p.protocol and p.store))


def record_of(description: Description, where: object) -> Record:
    """What a model learned from, by its description.

    Args:
        description: of the model.
        where: its folder, for messages.

    Raises:
        UserError: the record was edited or damaged.
    """
    if description.record is None:
        return record_before_format_1(description.provenance)
    return Record.from_json(description.record, str(where))


def _named(facts: Mapping[str, Any]) -> Record:
    dataset, protocol, store = (str(facts.get(key) or "") for key in ("dataset", "protocol", "data_fingerprint"))
    return Record(dataset, protocol, store)


def unlearned(clips: np.ndarray, store: ClipStore, record: Record) -> tuple[np.ndarray, str]:
    """Which clips of a store a model may be judged by.

    Where its protocol still gives the very test side that it had in training, only that side may judge it: who is on
    neither side may be a person whom the model knows. Where the protocol gives another side by now, or the store holds
    other clips, all may that it has not learned from.

    Args:
        clips: (n,) positions in the store.
        store: the clips.
        record: of the model.

    Returns:
        (n,) true where the clip may judge, and which clips these are, in words.

    Raises:
        UserError: a model of before the record names a protocol that cannot be found any more, or no clip is left.
    """
    kept, words = np.ones(len(clips), dtype=bool), []
    for one in record.lineage():
        found = _look(clips, store, one)
        learned = found.trained | found.selected
        if found.test_side is not None:
            kept &= np.isin(clips, found.test_side) & ~learned
            words.append(f"the test side of {one.protocol}")
        elif learned.any():
            kept &= ~learned
            words.append(f"those that did not train by {one.protocol}")
    if not words:
        return kept, "all"
    rule = " and ".join(dict.fromkeys(words))
    if len(clips) and not kept.any():
        raise UserError(
            f"none of the {len(clips)} clips in {store.location} may judge this model: it has learned from that data "
            f"set, and none of them is on {rule}"
        )
    return kept, f"{rule}: the model has learned from others"


def overlap(clips: np.ndarray, store: ClipStore, record: Record) -> str:
    """In one sentence, how many of the clips the model has learned from; empty where it has from none.

    Args:
        clips: (n,) positions in the store.
        store: the clips.
        record: of the model.
    """
    trained: dict[str, int] = {}
    selected = np.zeros(len(clips), dtype=bool)
    try:
        for one in record.lineage():
            found = _look(clips, store, one)
            trained[one.protocol] = max(trained.get(one.protocol, 0), int(found.trained.sum()))
            selected |= found.selected & ~found.trained
    except UserError as error:
        return f"whether the model has learned from some of these clips cannot be told: {error}"
    words = [f"the model has learned from {count} (trained by {name})" for name, count in trained.items() if count]
    words += [f"its checkpoint may have been chosen by {selected.sum()}"] if selected.any() else []
    return f"of these {len(clips)} clips, {' and '.join(words)}" if words else ""


def known_clips(clips: np.ndarray, store: ClipStore, record: Record) -> tuple[int, int]:
    """How many of the clips a model has learned from, and by how many others of them it may have been chosen.

    Args:
        clips: (n,) positions in the store.
        store: the clips.
        record: of the model.

    Raises:
        UserError: a model of before the record names a protocol that cannot be found any more.
    """
    trained = selected = np.zeros(len(clips), dtype=bool)
    for one in record.lineage():
        found = _look(clips, store, one)
        trained, selected = trained | found.trained, selected | found.selected
    return int(trained.sum()), int((selected & ~trained).sum())


class _Found(NamedTuple):
    """What one model of a lineage has to do with n clips.

    trained, selected: (n,) bool, the clips that its weights were computed from, that its checkpoint was chosen by.
    test_side: positions in the store of the test side that it had in training, where its protocol still gives that.
    """

    trained: np.ndarray
    selected: np.ndarray
    test_side: np.ndarray | None


def _look(clips: np.ndarray, store: ClipStore, one: Record) -> _Found:
    """Find the clips that one model has learned from, its ancestors' aside."""
    none, sides = np.zeros(len(clips), dtype=bool), _sides_today(store, one)
    test = None if sides is None else np.concatenate([sides.test, sides.unseen])
    if one.trained is None:  # of before the record: the protocol is all that is known
        trained = none if sides is None else np.isin(clips, sides.train)
        return _Found(trained, none, test if one.store == store.fingerprint else None)
    same = sides is not None and sides.test_digest == one.test_side
    selected = none if one.selected is None else one.selected.holds(store, clips)
    return _Found(one.trained.holds(store, clips), selected, test if same else None)


def _sides_today(store: ClipStore, one: Record) -> Split | None:
    """The sides that a model's protocol makes of a store now; None where it is gone, or says nothing of the store."""
    if one.store != store.fingerprint and one.dataset != store.dataset:
        return None
    try:
        return split(store, load_protocol(one.protocol), needed=())
    except UserError:
        if one.trained is None and one.store == store.fingerprint:
            raise
        return None
