"""What no network is needed for: how many clips are told apart by raw joints alone. A model has to be worth more.

Of every clip, 32 evenly spread frames with the centre joint at the origin of each, and behind them three times their
changes from frame to frame. Two classifiers take these rows: the nearest training clip, and ridge regression on classes
with a Gaussian kernel. Both are closed forms without settings to choose, so that the same store gives the same floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.data.split import Split
from mmcl.data.store import ClipStore
from mmcl.evaluation.base import ClipFunction, make_apply
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

FRAMES = 32
CHANGES = 3.0  # weight of changes beside coordinates
MOST_BODIES = 2
MOST_CLIPS = 5000  # of a side; of a larger one so many are drawn
RIDGE = 0.1  # beside a kernel that is 1 between a clip and itself


@dataclass(frozen=True)
class Floors:
    """Shares of a side's clips that are answered right.

    Attributes:
        kernel_ridge: by ridge regression on the classes with a Gaussian kernel.
        nearest: by the nearest training clip.
        train: training clips that were learned from.
        judged: clips that were judged.
        drawn: whether these are a random part of a larger side.
    """

    kernel_ridge: float
    nearest: float
    train: int
    judged: int
    drawn: bool

    def __str__(self) -> str:
        part = f" ({self.train} and {self.judged} clips drawn of larger sides)" if self.drawn else ""
        return f"kernel ridge {self.kernel_ridge:.1%}, nearest training clip {self.nearest:.1%}{part}"

    def to_dict(self) -> dict[str, float | int | bool]:
        """As a report holds it."""
        return asdict(self)


def plain(
    source: Layout, target: Layout, persons: int, options: PreprocessOptions, streams: Sequence[str]
) -> Preprocess:  # fmt: skip
    """Preprocessing to raw rows: :data:`FRAMES` evenly spread frames, the centre joint at the origin of each.

    Args:
        source: joints of the clips.
        target: joints of the rows.
        persons: bodies of the rows.
        options: whose gaps, smoothing, share of a clip and coordinates the rows have.
        streams: what the rows hold.
    """
    plainest = replace(
        options, streams=tuple(streams), timing="resize", views=1, centring="every_frame", scaling="none", window=FRAMES
    )
    return Preprocess(source, target, persons, plainest)


def flat(preprocess: Preprocess) -> ClipFunction:
    """Preprocessed clips as rows (N, persons * frames * joints * channels)."""
    return lambda joints, lengths: preprocess(joints, lengths).flatten(1)


def measure_floors(store: ClipStore, sides: Split, judged: np.ndarray) -> Floors:
    """How far raw joints alone get.

    Args:
        store: the clips.
        sides: whose training side is learned from.
        judged: (n,) positions in the store of the clips that are judged, of classes that are trained.

    Raises:
        UserError: there is no clip to learn from, or none to judge.
    """
    if not len(sides.train) or not len(judged):
        raise UserError(f"{store.location}: a floor takes training clips and others to judge")
    bank, queries = _some(sides.train), _some(judged)
    persons = min(int(store.bodies[bank].max()), MOST_BODIES)
    known, asked = (raw_rows(store, clips, persons) for clips in (bank, queries))
    labels, truth = (torch.from_numpy(sides.targets(store.labels[clips])) for clips in (bank, queries))
    return Floors(
        kernel_ridge=float((kernel_ridge(known, labels, asked, len(sides.classes)) == truth).double().mean()),
        nearest=float((nearest(known, labels, asked) == truth).double().mean()),
        train=len(bank), judged=len(queries), drawn=(len(bank), len(queries)) != (len(sides.train), len(judged)),
    )  # fmt: skip


def raw_rows(store: ClipStore, clips: np.ndarray, persons: int | None = None) -> Tensor:
    """(n, D) joints and their changes of some clips, as the module says.

    Args:
        store: the clips.
        clips: (n,) positions in the store.
        persons: bodies of a row; those of the fullest of these clips, at most two, if it is not given.
    """
    persons = persons or min(int(store.bodies[clips].max()), MOST_BODIES)
    options = PreprocessOptions(crop=1.0, dimensions=store.dimensions)
    streams = [plain(store.layout, store.layout, persons, options, [name]) for name in ("joint", "joint_motion")]
    raw, changes = map(flat, streams)

    def rows(joints: Tensor, lengths: Tensor) -> Tensor:
        return torch.cat([raw(joints, lengths), CHANGES * changes(joints, lengths)], dim=1)

    return torch.from_numpy(make_apply(store, torch.device("cpu"))(rows, clips))


def floors_of(data: Selection) -> Floors | None:
    """The floors of a selection; None where nothing could be learned from training clips, or they are judged."""
    if data.split is None or data.side not in ("test", "validation"):
        return None
    return measure_floors(data.store, data.split, data.clips) if len(data.split.train) and len(data.clips) else None


def kernel_ridge(bank: Tensor, labels: Tensor, queries: Tensor, classes: int) -> Tensor:
    """Answers (n,) of ridge regression from rows to one number a class, 1 for a clip's own and 0 for the others.

    The kernel is exp(-d² / m): d is the distance of two rows, m the median of d² over all pairs of training clips.

    Args:
        bank: (b, D) rows of training clips.
        labels: (b,) their classes.
        queries: (n, D) rows that are judged.
        classes: K.
    """
    apart = _squared(bank, bank)
    width = _width(apart)
    target = torch.nn.functional.one_hot(labels, classes).double()
    weights = torch.linalg.solve(torch.exp(-apart / width) + RIDGE * torch.eye(len(bank)), target)
    return (torch.exp(-_squared(queries, bank) / width) @ weights).argmax(dim=1)


def gaussian_kernel(rows: Tensor) -> Tensor:
    """The kernel (n, n) of :func:`kernel_ridge` between some rows (n, D), with the median of their own distances."""
    apart = _squared(rows, rows)
    return torch.exp(-apart / _width(apart))


def _width(apart: Tensor) -> float:
    """Median of squared distances (n, n) over all pairs; 1 where there is none, or all clips are alike."""
    pairs = apart[~torch.eye(len(apart), dtype=torch.bool)]
    return (float(pairs.median()) if len(pairs) else 0.0) or 1.0


def nearest(bank: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """Classes (n,) of the rows of ``bank`` that are nearest to ``queries``; arguments as for :func:`kernel_ridge`."""
    return labels[_squared(queries, bank).argmin(dim=1)]


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (n, m) in double precision of rows (n, D) and (m, D)."""
    return torch.cdist(a.double(), b.double()).square()


def _some(clips: np.ndarray) -> np.ndarray:
    """At most :data:`MOST_CLIPS` of some clips, always the same."""
    if len(clips) <= MOST_CLIPS:
        return clips
    return np.sort(np.random.default_rng(0).choice(clips, MOST_CLIPS, replace=False))
