"""What a model has learned from: nobody shall judge it by these very clips without being told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.protocols import load_protocol
from mmcl.data.splitting import Split, split
from mmcl.data.store import ClipStore


class Lesson(NamedTuple):
    """The training side of a protocol, in the store with that fingerprint, which held that data set's clips.

    Another store of the data set may hold the same clips, prepared in another way, or other ones: there, what is on the
    training side counts as learned, and nothing else.
    """

    protocol: str
    fingerprint: str
    dataset: str | None = None


def recorded_lessons(provenance: Mapping[str, Any]) -> tuple[Lesson, ...]:
    """What a model says of itself: what it was trained on, what it had started from, what it was adapted to since."""
    entries = (provenance, provenance.get("adapted") or {}, *provenance.get("changed", ()))
    found = [(entry.get("protocol"), entry.get("data_fingerprint"), entry.get("dataset")) for entry in entries]
    own = [Lesson(protocol, print_, dataset) for protocol, print_, dataset in found if protocol and print_]
    return (*own, *started_lessons(provenance.get("started_from")))


def started_lessons(start: Mapping[str, Any] | None) -> tuple[Lesson, ...]:
    """What the checkpoint that training started from had learned from, by what was written down of it."""
    return tuple(Lesson(*entry) for entry in (start or {}).get("lessons", ()))


def not_learned(clips: np.ndarray, store: ClipStore, lessons: Iterable[Lesson]) -> tuple[np.ndarray, str]:
    """Which clips of a store a model may be judged by: of a store that it has learned from, the test sides alone.

    Args:
        clips: (n,) positions in the store.
        store: the clips.
        lessons: what the model has learned from.

    Returns:
        (n,) true where the model may be judged, and which clips these are, in words.

    Raises:
        UserError: a protocol cannot be found any more, or no clip is left.
    """
    kept, protocols = np.ones(len(clips), bool), []
    for lesson, sides in _sides(store, lessons):
        very_store = lesson.fingerprint == store.fingerprint
        fit = np.isin(clips, np.concatenate([sides.test, sides.unseen] if very_store else [sides.train]))
        kept &= fit if very_store else ~fit
        if very_store or fit.any():
            protocols.append(lesson.protocol)
    if not protocols:
        return kept, "all"
    side = f"test side of {' and of '.join(protocols)}"
    if len(clips) and not kept.any():
        raise UserError(
            f"none of the {len(clips)} clips in {store.location} may judge this model: it has learned from that data "
            f"set, and none of them is on the {side}"
        )
    return kept, f"{side}: the model has learned from others"


def overlap(clips: np.ndarray, store: ClipStore, lessons: Iterable[Lesson]) -> str:
    """In one sentence, how many of the clips the model has learned from; empty where it has from none."""
    try:
        counts = {lesson.protocol: int(np.isin(sides.train, clips).sum()) for lesson, sides in _sides(store, lessons)}
    except UserError as error:
        return f"whether the model has learned from some of these clips cannot be told: {error}"
    found = [f"{count} are on the training side of {protocol}" for protocol, count in counts.items() if count]
    return f"of these {len(clips)} clips, {' and '.join(found)}, which the model has learned from" if found else ""


def _sides(store: ClipStore, lessons: Iterable[Lesson]) -> Iterator[tuple[Lesson, Split]]:
    for lesson in dict.fromkeys(lessons):
        if lesson.fingerprint == store.fingerprint or lesson.dataset == store.dataset:
            try:
                sides = split(store, load_protocol(lesson.protocol), needed=())
            except UserError:
                if lesson.fingerprint == store.fingerprint:
                    raise
                continue  # of the same name, and of clips that the protocol says nothing of
            yield lesson, sides
