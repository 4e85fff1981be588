"""What the numbers in a column of frames say: frames that are left out, lines in another order, a second recording.

Trackers leave out the lines of frames in which they saw nobody. Without these frames, what follows would be too early.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcl.data.readers.column_names import FRAMES
from mmcl.data.readers.text_table import Table, plain_float
from mmcl.skeletons.believable import KINDS, Remark

MOST = 2.0  # times as many frames as there are lines: with more, the numbers are no counter of one recording


def whole_numbers(names: Sequence[str]) -> np.ndarray | None:
    """Whole numbers (T,) int64 that cells hold; None where one of them is something else."""
    try:
        values = np.array([plain_float(name) for name in names])
    except ValueError:
        return None
    return (
        values.astype(np.int64) if len(values) and (np.abs(values) < 2**53).all() and not (values % 1).any() else None
    )


def with_holes(lines: np.ndarray, frames: Sequence[str]) -> np.ndarray:
    """(M, T) whose line is which at each frame, -1 also at frames between two that no line is of.

    Args:
        lines: (M, F) at the frames of which there are lines.
        frames: names of these F frames, in their order.
    """
    numbers = whole_numbers(frames)
    places = None if numbers is None else _places(numbers)
    if places is None or places[-1] >= MOST * len(frames):
        return lines
    found = np.full((len(lines), places[-1] + 1), -1)
    found[:, places] = lines
    return found


def frame_remarks(table: Table, lines: np.ndarray | None) -> list[Remark]:
    """What is to be said of the order and of the numbers of a table's frames.

    Args:
        table: that was read.
        lines: (M, T) whose line is which at each frame; None where every line is the next frame.
    """
    said = []
    name = next((name for name in table.asides if name in FRAMES), "")
    if lines is not None and len(lines) == 1 and (np.diff(lines[lines >= 0]) < 0).any():
        said.append(Remark("order", "its lines are not in the order of their frames: put in it"))
    if lines is not None and (left_out := int((lines < 0).all(axis=0).sum())):
        have = "1 frame has" if left_out == 1 else f"{left_out} frames have"
        said.append(Remark("gap", f"{have} no line, by its column '{name}': taken for frames without anybody"))
    numbers = whole_numbers(table.asides.get(name, ()))
    if numbers is not None and (what := _back(numbers) if lines is None else _jump(np.unique(numbers))):
        said.append(Remark("numbering", f"its column '{name}' {what}", KINDS["numbering"].advice))
    return said


def _back(numbers: np.ndarray) -> str:
    """Where numbers of lines, in the order of the file, go back, or else jump; empty where they do neither."""
    back = np.flatnonzero(np.diff(numbers) < 0)
    return f"goes back from {numbers[back[0]]} to {numbers[back[0] + 1]}" if len(back) else _jump(np.unique(numbers))


def _jump(numbers: np.ndarray) -> str:
    """Where different numbers, in their order, leave out more than one recording would; empty where they do not."""
    places = _places(numbers)
    if places is None or places[-1] < MOST * len(places):
        return ""
    at = int(np.argmax(np.diff(numbers)))
    return f"goes from {numbers[at]} to {numbers[at + 1]}"


def _places(numbers: np.ndarray) -> np.ndarray | None:
    """Which frame each of different numbers, in their order, is; None where no step between them is the usual one."""
    steps = np.diff(numbers)
    if not len(steps) or steps.min() < 1:  # 1 and 1.0 are two names and one number
        return None
    if (steps == steps.min()).mean() < 0.5 or (steps % steps.min()).any():
        return None
    return np.asarray((numbers - numbers[0]) // steps.min())
