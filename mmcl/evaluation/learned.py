"""What a model has learned from: nobody shall judge it by these very clips without being told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmcl.data.protocols import load_protocol
from mmcl.data.splitting import Split, split
from mmcl.data.store import ClipStore
from mmcl.errors import UserError


class Lesson(NamedTuple):
    """The training side of a protocol, in the store with that fingerprint."""

    protocol: str
    fingerprint: str


def recorded_lessons(provenance: Mapping[str, Any]) -> tuple[Lesson, ...]:
    """What a bundle says of itself: what it was trained on, and what it was adapted to."""
    entries = (provenance, provenance.get("adapted") or {})
    pairs = [(entry.get("protocol"), entry.get("data_fingerprint")) for entry in entries]
    return tuple(Lesson(protocol, fingerprint) for protocol, fingerprint in pairs if protocol and fingerprint)


def not_learned(clips: np.ndarray, store: ClipStore, lessons: tuple[Lesson, ...]) -> tuple[np.ndarray, str]:
    """Which clips of a store a model may be judged by: of a store that it has learned from, the test sides alone.

    Args:
        clips: (n,) positions in the store.
        store: the clips.
        lessons: what the model has learned from.

    Returns:
        (n,) true where the model may be judged, and which clips these are, in words.

    Raises:
        UserError: a protocol cannot be found any more.
    """
    kept, protocols = np.ones(len(clips), bool), []
    for protocol, sides in _sides(store, lessons):
        kept &= np.isin(clips, np.concatenate([sides.test, sides.unseen]))
        protocols.append(protocol)
    if not protocols:
        return kept, "all"
    return kept, f"test side of {' and of '.join(protocols)}: the model has learned from others"


def overlap(clips: np.ndarray, store: ClipStore, lessons: tuple[Lesson, ...]) -> str:
    """In one sentence, how many of the clips the model has learned from; empty where it has from none."""
    try:
        counts = {protocol: int(np.isin(sides.train, clips).sum()) for protocol, sides in _sides(store, lessons)}
    except UserError as error:
        return f"whether the model has learned from some of these clips cannot be told: {error}"
    found = [f"{count} on the training side of {protocol}" for protocol, count in counts.items() if count]
    return f"of these {len(clips)} clips, the model has learned from {' and '.join(found)}" if found else ""


def _sides(store: ClipStore, lessons: tuple[Lesson, ...]) -> Iterator[tuple[str, Split]]:
    for protocol, fingerprint in lessons:
        if fingerprint == store.fingerprint:
            yield protocol, split(store, load_protocol(protocol), needed=())
