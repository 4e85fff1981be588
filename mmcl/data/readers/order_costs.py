"""What speaks against an order of persons, frames, joints and coordinates: bodies that are none, joints torn apart."""

from __future__ import annotations

import numpy as np

from mmcl.skeletons.believable.posture import posture
from mmcl.skeletons.layout import Layout

SAMPLED = 24  # frames that an order is judged by
TORN = 20.0  # what an order costs in which many more joints lack a part than in another; bones and jumps cost less
ALIKE, CHANCE = 0.2, 5  # share of such joints, and joints, by which orders differ where single cells are missing
FEW = 0.05  # of the joints of which something is missing: so many may have a zero that is one


@np.errstate(over="ignore", invalid="ignore")  # of numbers that are coordinates in no order
def unlikeness(array: np.ndarray, layout: Layout) -> float:
    """How little an array (M, T, V, C) looks like people: bones long and of changing length, jumps, nobody upright.

    Only joints of which every number is there are looked at, and bones between two of them: wherever another order puts
    a cell that is missing, it must not decide. Lengths count by the extent of a body and by all that the array holds,
    which no order changes: in a wrong one, far from the sensor, a body may be large and its bones may be short.
    """
    frames = np.linspace(0, max(array.shape[1] - 2, 0), SAMPLED).astype(int)
    body = np.asarray(array[:, frames], dtype=np.float64)
    after = np.asarray(array[:, (frames + 1) % array.shape[1]], dtype=np.float64)
    there, then = (np.asarray(np.isfinite(each).all(axis=-1) & each.any(axis=-1)) for each in (body, after))
    anybody = there.any(axis=2)
    body, after, there, then = body[anybody], after[anybody], there[anybody], then[anybody]
    child, parent = (list(side) for side in zip(*layout.edges, strict=True)) if layout.edges else ([], [])
    seen = there[:, child] & there[:, parent]
    if not seen.any():
        return np.inf
    body = np.where(there[..., None], body, 0)
    lengths = np.where(seen, np.sqrt(((body[:, child] - body[:, parent]) ** 2).sum(axis=-1)), np.nan)
    bones = np.nanmean(lengths[:, seen.any(axis=0)], axis=0)
    changing = np.median(np.nanstd(lengths[:, seen.any(axis=0)], axis=0) / np.maximum(bones, 1e-9))
    middle = body.sum(axis=1) / there.sum(axis=1)[:, None]
    spread = np.abs(body - middle[:, None])[there].mean() + 1e-12
    whole = array[np.isfinite(array)].std(dtype=np.float64) + 1e-12
    moved = np.abs(after - body)[there & then].mean() if (there & then).any() else 0.0
    up = posture(body[..., :3], layout, planar=body.shape[-1] == 2).up
    lying = 1 - max(map(abs, up)) if np.isfinite(up).all() else 0.5  # whichever axis is the vertical
    found = float(bones.mean() * (0.5 / spread + 1 / whole) + moved / whole + 2 * (changing + lying))
    return found if np.isfinite(found) else np.inf


def torn(arrays: list[np.ndarray]) -> np.ndarray:
    """What orders (M, T, V, C) of the same numbers cost that tear joints apart which others leave whole.

    In the right order a sensor loses whole joints. Cells that are missing here and there tear as many joints, and as
    large a share of those that lack anything, in every order: only where both differ is an order the wrong one.
    """
    counts, shares = map(np.array, zip(*map(_parts, arrays), strict=True))
    excess = np.minimum((counts - counts.min()) / (counts.max() + CHANCE) - ALIKE, shares - shares.min() - FEW)
    return np.asarray(TORN * np.maximum(excess, 0))


def _parts(array: np.ndarray) -> tuple[int, float]:
    """How many joints of (M, T, V, C) lack a part of their numbers, and their share of those that lack any.

    Zeros count as missing where nothing is NaN, but for a coordinate that is zero everywhere: that is how a plane is
    written in space. Bodies that are not there at all are no part of the share.
    """
    lost = ~np.isfinite(array)
    lost = lost if lost.any() else array == 0
    lost = lost[..., ~lost.all(axis=(0, 1, 2))]
    touched = lost.any(axis=-1) & ~lost.all(axis=(-1, -2))[..., None]
    count = int((touched & ~lost.all(axis=-1)).sum())
    return count, count / max(int(touched.sum()), 1)
