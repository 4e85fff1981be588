"""Whether the lines of a table that is followed are frames, and in which order a line holds its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.printing import complain
from mmcl.data.readers.column_names import FRAMES, PEOPLE, TIMES, aside
from mmcl.data.readers.order_costs import torn, unlikeness
from mmcl.data.readers.table_columns import in_turns
from mmcl.skeletons.layout import Layout

CLEARLY = 0.6  # of the score of joint after joint: real bodies in the right order have less than half of the other's
HINT = "--follow takes one line a frame, its people one after the other, or as JSON (persons, joints, 3): give the " \
       "table as a file"  # fmt: skip


class OneLineAFrame:
    """Refuses a table in which a frame has several lines.

    Args:
        header: its columns.
    """

    def __init__(self, header: Sequence[str]) -> None:
        plain = [aside(name) for name in header]
        self.who, self.when, time = (
            next((column for column, name in enumerate(plain) if name in names), None)
            for names in (PEOPLE, FRAMES, TIMES)
        )
        self.header, self.looks = header, self.when is not None
        self.when = time if self.when is None else self.when
        self.before: list[str] = []
        self.last: tuple[str, str] | None = None

    def check(self, row: Sequence[str]) -> None:
        """Look at the next line.

        Raises:
            UserError: it belongs to the frame of the line before, and somebody else's, or frames come in turns.
        """
        if self.when is None or len(row) != len(self.header):
            return
        frame = row[self.when].strip()
        if self.who is not None:
            person = row[self.who].strip()
            if self.last is not None and self.last[0] == frame and self.last[1] != person:
                who = self.header[self.who]
                raise UserError(f"two lines for {self.header[self.when]} {frame:.40}, {who} {self.last[1]:.40} and "
                                f"{person:.40}: {HINT}")  # fmt: skip
            self.last = frame, person
        elif self.looks:
            if len(set(self.before)) == 2 and frame not in self.before and in_turns(self.before):
                raise UserError(f"several lines for each {self.header[self.when]}, and no column 'id' says whose they "
                                f"are: {HINT}, with that column")  # fmt: skip
            self.looks = len({*self.before, frame}) < 3
            self.before.append(frame)


class RowOrder:
    """Finds out by the first body that is seen whether rows are joint after joint, or all x, then all y and so on.

    Args:
        layout: of the joints.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.blocks: bool | None = None

    def bodies(self, row: np.ndarray, width: int) -> np.ndarray:
        """A row of numbers, a body after the other, as (M, V, C)."""
        by_joint = row.reshape(-1, self.layout.joint_count, width)
        blocks = row.reshape(-1, width, self.layout.joint_count).swapaxes(1, 2)
        if self.blocks is None and _seen(by_joint) and _seen(blocks):
            choices = [by_joint[:, None], blocks[:, None]]
            plain, other = np.array([unlikeness(each, self.layout) for each in choices]) + torn(choices)
            self.blocks = bool(other < CLEARLY * plain)
            if self.blocks:
                complain("note", "a row holds one coordinate of all joints, then the next one: read as that")
        return blocks if self.blocks else by_joint


def _seen(bodies: np.ndarray) -> bool:
    """Whether most joints of somebody are there."""
    return bool(((np.isfinite(bodies) & (bodies != 0)).all(axis=-1).mean(axis=1) > 0.5).any())
