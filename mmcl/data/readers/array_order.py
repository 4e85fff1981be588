"""In which order an array holds persons, frames, joints and coordinates.

Its shape tells, and where that leaves a choice, the choice that shows people is taken. The order of this package is
(M, T, V, C). ST-GCN's feeders write (C, T, V, M), MATLAB (V, C, T), spreadsheets (T, V * C).
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.data.readers.order_costs import torn, unlikeness
from mmcl.skeletons.believable import Remark
from mmcl.skeletons.layout import Layout

WORDS = {"M": "persons", "T": "frames", "V": "joints", "C": "coordinates"}
STGCN = "ST-GCN's order, channels first"
KNOWN = {"CTVM": STGCN, "NCTVM": STGCN, "VCT": "MATLAB's order"}
MOST_PERSONS = 10
CLEARLY = 0.9  # of the score of a usual order that an unusual one must have to be taken instead


def arranged(
    values: np.ndarray, layout: Layout, numbers: tuple[int, ...] = (2, 3), most: int = MOST_PERSONS
) -> tuple[np.ndarray, list[Remark]]:
    """Bring an array into the order (M, T, V, C).

    Args:
        values: numbers of one clip, in whatever order.
        layout: which joints they are.
        numbers: how many belong to a joint.
        most: persons that an array in this package's own order may hold.

    Returns:
        (M, T, V, C), a view, and what to say where the order was another one.

    Raises:
        BadClip: no order makes sense of the shape.
    """
    _, array, remarks = _ordered(values, layout, numbers, most)
    return array, remarks


def arranged_with_score(
    values: np.ndarray, score: np.ndarray | None, layout: Layout, most: int = MOST_PERSONS
) -> tuple[np.ndarray, np.ndarray | None, list[Remark]]:
    """As :func:`arranged`, with an array beside it that holds a number of each joint in the same order.

    Args:
        values: numbers of one clip, in whatever order.
        score: the same without the axis of coordinates, or with 1 there; None: there is none.
        layout: which joints they are.
        most: persons that an array in this package's own order may hold.

    Returns:
        (M, T, V, C), the score as (M, T, V), and what to say. A score of another shape comes back as it is.
    """
    order, array, remarks = _ordered(values, layout, (2, 3), most)
    axes, place = order.replace("C", ""), order.index("C")
    if score is not None and score.ndim == len(order) and score.shape[place] == 1:
        score = score.squeeze(place)
    sizes = {"N": 1} | dict(zip("MTV", array.shape[:3], strict=True))
    if score is None or score.shape != tuple(sizes[axis] for axis in axes):
        return array, score, remarks
    score = score.transpose([axes.index(axis) for axis in "NMTV" if axis in axes])
    return array, score.reshape(array.shape[:3]), remarks


def _ordered(
    values: np.ndarray, layout: Layout, numbers: tuple[int, ...], most: int
) -> tuple[str, np.ndarray, list[Remark]]:
    """The order that an array has, the array in mmcl's, and what to say."""
    V, shape = layout.joint_count, values.shape
    plain = values.ndim == 4 and shape[2] == V and shape[3] in numbers and shape[0] <= min(most, max(2, shape[1]))
    if plain and not (shape[0] == 3 and shape[3] < 4):  # three people, or ST-GCN's order of two or three in space
        return "MTVC", values, []
    choices = _choices(values, V, numbers)
    if not choices:
        raise BadClip(_complaint(shape, V, numbers))
    order, best = choices[0]
    if len(choices) > 1:
        scores = np.array([unlikeness(array, layout) * _familiar(order) for order, array in choices])
        scores += torn([array for _, array in choices])
        order, best = choices[int(np.argmin(scores))]
    if order in ("MTVC", "TVC"):
        return order, best, []
    words = ", ".join(WORDS.get(letter, "clips") for letter in order if letter != "*")
    name = KNOWN.get(order, "another order")
    said = f"shape {tuple(map(int, shape))} is {name} ({words}): read as (persons, frames, joints, coordinates)"
    return order, best, [Remark("order", said)]


def _choices(values: np.ndarray, V: int, numbers: tuple[int, ...]) -> list[tuple[str, np.ndarray]]:
    """Orders that the shape allows, mmcl's own first, with the array brought into mmcl's order."""
    if values.ndim == 5 and values.shape[0] == 1:  # a batch of one clip
        return [("N" + order, array) for order, array in _choices(values[0], V, numbers) if order == "CTVM"]
    found: list[tuple[str, np.ndarray]] = []
    if values.ndim in (3, 4):
        letters = "MTVC" if values.ndim == 4 else "TVC"
        for order in permutations(letters):
            if _fits(dict(zip(order, values.shape, strict=True)), V, numbers):
                array = values.transpose([order.index(letter) for letter in letters])
                found.append(("".join(order), array if values.ndim == 4 else array[None]))
    if values.ndim in (2, 3) and not found:
        count, rest = divmod(values.shape[-1], V)
        if not rest and count in numbers:
            found = _rows(values, V, count)
    return sorted(found, key=lambda choice: choice[0] not in ("MTVC", "TVC"))


def _rows(values: np.ndarray, V: int, count: int) -> list[tuple[str, np.ndarray]]:
    """Orders of rows of V * C numbers (T, V * C), (M, T, V * C) or (T, M, V * C), joint after joint or in blocks."""
    found = []
    for axes in ("T",) if values.ndim == 2 else ("MT", "TM"):
        rows = values[None] if axes == "T" else values.swapaxes(0, 1) if axes == "TM" else values
        by_joint = rows.reshape(*rows.shape[:2], V, count)
        blocks = rows.reshape(*rows.shape[:2], count, V).swapaxes(2, 3)
        if _few(*rows.shape[:2]):
            found += [(axes + "VC", by_joint), (axes + "CV", blocks)]
    return found


def _familiar(order: str) -> float:
    """Less than 1 for orders that people use: their score may be somewhat worse."""
    if order in ("MTVC", "TVC"):
        return CLEARLY**2
    return CLEARLY if order.endswith("VC") or order in ("TCV", "MTCV", *KNOWN) else 1.0


def _fits(sizes: dict[str, int], V: int, numbers: tuple[int, ...]) -> bool:
    return sizes["V"] == V and sizes["C"] in numbers and _few(sizes.get("M", 1), sizes["T"])


def _few(persons: int, frames: int) -> bool:
    """Whether so many persons can be in a clip of so many frames."""
    return persons <= MOST_PERSONS and persons <= max(2, frames)


def _complaint(shape: tuple[int, ...], V: int, numbers: tuple[int, ...]) -> str:
    """What is wrong with a shape."""
    shape, counts = tuple(map(int, shape)), " or ".join(map(str, sorted(numbers)))
    if len(shape) == 2:
        hint = "; is there a column, or a separator at the end, that is no coordinate?" if shape[1] % V == 1 else ""
        return f"{shape[1]} numbers a line, expected {V} joints x {counts}{hint}"
    if len(shape) in (3, 4) and shape[-1] in (2, 3, 4) and shape[-2] != V:
        return f"{shape[-2]} joints, expected {V} (shape {shape})"
    if len(shape) in (3, 4) and shape[-2] == V and shape[-1] not in numbers:
        hint = "; --columns xyzc says that a fourth is a confidence" if shape[-1] == 4 else ""
        return f"{shape[-1]} numbers a joint, expected {counts} (shape {shape}){hint}"
    expected = f"(persons, frames, {V} joints, {counts}) in any order, of one clip with {MOST_PERSONS} persons at most"
    return f"holds numbers of shape {shape}, expected {expected}"
