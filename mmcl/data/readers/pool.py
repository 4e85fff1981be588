"""Several clip stores as one, in one layout: clips to learn from without their labels.

The first store is the one that is worked on. Its clips keep their names, labels and subjects, so that a model that has
learned from the pool is known to have learned from them wherever it is judged later. Of the other stores, clips are
called ``DATASET-ID``, classes ``DATASET: CLASS``, and people get numbers of their own. Joints come to the pool's layout
by name (:mod:`mmcl.skeletons.convert`); crops of videos stay behind.

Test clips of the first store, by a protocol of it, are on the list ``pool_test``; its training clips and all clips of
the other stores are on ``pool_train``. Protocol ``own/pool`` so trains on everything but what the first store is tested
on. Clips of the first store on neither side (classes that are withheld, for instance) are on no list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.readers.naming import safe_name
from mmcl.data.readers.options import option
from mmcl.data.store import ClipStore, open_store

TRAIN, TEST = "pool_train", "pool_test"
EVEN_RATES = 1.02  # frame rates that differ by no more than this factor mean the same time by a frame


@dataclass(frozen=True)
class PoolOptions:
    """Options of the reader."""

    also: str = option("", "stores whose clips come along, separated by commas", "DIR,DIR")
    protocol: str = option("", "protocol of the first store, whose test clips train nothing", "P")
    layout: str | None = option(None, "joints of the pool (the first store's)", "NAME")


class Pool:
    """Reader of stores.

    Args:
        source: the first store.
        video: must be None: pictures do not come along.
        options: see :class:`PoolOptions`.

    Raises:
        UserError: no such store, no protocol, planar joints, other frame rates, or a layout that cannot be made.
    """

    name = "pool"
    options_type = PoolOptions

    def __init__(self, source: Path, video: Path | None = None, options: PoolOptions = PoolOptions()) -> None:
        if video is not None:
            raise UserError("pool: pictures do not come along; leave --video out")
        others = [word.strip() for word in options.also.split(",") if word.strip()]
        if not others or not options.protocol:
            raise UserError("pool: say which stores come along, --also DIR,DIR, and what the first one is tested by, "
                            "--protocol P: its test clips train nothing")  # fmt: skip
        self.stores = [open_store(source), *map(open_store, others)]
        first = self.stores[0]
        for store in self.stores:
            _check(store, first)
        self.options = options
        self.layout = options.layout or first.layout  # it may be one of the user's own, which has no file here
        self.dataset, self.title = first.dataset, f"{first.title} and others"
        self.fps, self.subject_names = first.fps, first.subject_names
        self.prefixes = ["", *_names(self.stores)]
        self.class_names = [
            f"{prefix}: {name}" if prefix else name
            for prefix, store in zip(self.prefixes, self.stores, strict=True)
            for name in store.class_names
        ]
        self.weights = self._weights()

    def _weights(self) -> list[np.ndarray]:
        """Of each store, (V, V_store): what the pool's joints are made of."""
        from mmcl.skeletons.convert import conversion_matrix  # late: see `converted`
        from mmcl.skeletons.layout import load_layout

        target = load_layout(self.layout)
        return [conversion_matrix(store.layout, target).numpy() for store in self.stores]

    def scan(self) -> list[ClipSource]:
        """All clips of all stores, sorted by id."""
        lists, clips = self._lists(), []
        classes = people = 0
        for prefix, store in zip(self.prefixes, self.stores, strict=True):
            for index, name in enumerate(store.ids):
                clips.append(ClipSource(
                    id=safe_name(f"{prefix}-{name}") if prefix else name,
                    label=classes + int(store.labels[index]), subject=people + int(store.subjects[index]),
                    camera=int(store.cameras[index]), setup=int(store.setups[index]), trial=int(store.trials[index]),
                    skeleton=str(store.path), member=str(index),
                    splits=(TRAIN,) if prefix else lists.get(index, ()),
                ))  # fmt: skip
            classes += len(store.class_names)
            people += int(store.subjects.max()) + 1
        return sorted(clips, key=lambda clip: clip.id)

    def _lists(self) -> dict[int, tuple[str, ...]]:
        """Position of a clip in the first store -> the pool's list that it is on."""
        from mmcl.data.apply_protocol import split
        from mmcl.data.protocols import load_protocol

        first = self.stores[0]
        sides = split(first, load_protocol(self.options.protocol))
        of_list = {TRAIN: [sides.train, sides.validation], TEST: [sides.test, sides.unseen]}
        return {int(clip): (name,) for name, parts in of_list.items() for clip in np.concatenate(parts)}

    def read(self, source: ClipSource) -> RawClip:
        """Read one clip and convert its joints.

        Raises:
            BadClip: the store is damaged, or is not there any more.
        """
        number = next(i for i, store in enumerate(self.stores) if str(store.path) == source.skeleton)
        try:
            numbers = self.stores[number].numbers(int(source.member))
        except (UserError, OSError) as error:
            raise BadClip(str(error)) from error
        found = converted(numbers, self.weights[number])
        return RawClip(joints=found[..., :3], confidence=found[..., 3] if found.shape[-1] > 3 else None)

    def pixels(self, joints: np.ndarray, width: int, height: int) -> None:
        """None: there is no video."""
        return None


def converted(joints: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Joints of one layout made of another's, by :func:`mmcl.skeletons.convert.convert`.

    Args:
        joints: (M, T, V_source, C), zero where missing; C is 3, or 4 with the confidence.
        weights: (V_target, V_source), rows sum to 1.

    Returns:
        (M, T, V_target, C) float32, zero where a joint cannot be made of those that are there.
    """
    import torch  # late: a worker process of another reader needs no torch

    from mmcl.skeletons.convert import convert

    found = np.asarray(joints[..., :3].any(axis=-1) & (joints[..., 3:] > 0).all(axis=-1))
    seen = np.where(found[..., None], joints, 0).astype(np.float32)
    numbers = torch.from_numpy(seen).movedim(-1, 1)[None]  # (1, M, C, T, V_source)
    made, _ = convert(numbers, torch.from_numpy(found)[None], torch.from_numpy(weights), width=3)
    return np.ascontiguousarray(made[0].movedim(1, -1).numpy())


def _names(stores: list[ClipStore]) -> Iterator[str]:
    """What clips of the second and later stores are called by: their data set's name, numbered where it is taken."""
    taken = [stores[0].dataset]
    for store in stores[1:]:
        taken.append(store.dataset)
        yield store.dataset + (f"-{count}" if (count := taken.count(store.dataset)) > 1 else "")


def _check(store: ClipStore, first: ClipStore) -> None:
    if store.dimensions != 3:
        raise UserError(f"pool: {store.location} holds planar joints, which do not go together with joints in space")
    if not 1 / EVEN_RATES < store.fps / first.fps < EVEN_RATES:
        raise UserError(f"pool: {store.location} has {store.fps:g} frames a second and {first.location} "
                        f"{first.fps:g}: a frame of one does not mean a frame of the other")  # fmt: skip
