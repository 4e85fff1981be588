"""Which column of a table is which coordinate of which joint, and which line is whose."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.data.readers.array_order import MOST_PERSONS
from mmcl.data.readers.column_names import FRAMES, PEOPLE, PIVOT, TIMES, WORDS, aside, coordinate, one_joint_a_line
from mmcl.data.readers.frame_numbers import with_holes
from mmcl.data.readers.text_table import NOTHING, Table, plain_float
from mmcl.skeletons.believable.names import meaning
from mmcl.skeletons.layout import Layout


def by_header(table: Table, layout: Layout) -> tuple[np.ndarray, str] | None:
    """The table as (T, V, C) and what these C numbers are ("xyzc"); None where its header does not say which is which.

    Joints come in the order of their numbers; where they are named as the layout's are, in the layout's order.

    Raises:
        BadClip: the names say something that does not fit the layout.
    """
    told = [name for name in table.header if not aside(name)]
    if len(told) > 1 and len(set(told)) == 1 and told[0] not in NOTHING:
        raise BadClip(f"its header calls every column '{told[0]:.40}': give each a name of its own, or leave it out")
    if one_joint_a_line(table.header) and len(table.header) < 2 * layout.joint_count:
        raise BadClip(PIVOT)
    places: dict[tuple[str, str], int] = {}
    for column, name in enumerate(table.header):
        if aside(name):
            continue
        place = coordinate(name)
        if place is None or place in places:
            return None
        places[place] = column
    joints = list(dict.fromkeys(joint for joint, _ in places))
    letters = [letter for letter in "xyzc" if any((joint, letter) in places for joint in joints)]
    if letters[:2] != ["x", "y"]:
        return None
    if len(joints) != layout.joint_count:
        raise BadClip(f"its header names {len(joints)} joints, expected {layout.joint_count}")
    if lacking := [f"{joint} {letter}" for joint in joints for letter in letters if (joint, letter) not in places]:
        raise BadClip(f"its header lacks columns ({', '.join(lacking[:3])})")
    order = _in_layout(joints, layout)
    values = [table.rows[:, [places[joint, letter] for joint in order]] for letter in letters]
    return np.stack(values, axis=-1), "".join(letters)


def coordinates(table: Table, joint_count: int) -> np.ndarray:
    """(T, numbers): the rows without columns of frames, times and people, and without a separator at the line's end."""
    keep = [column for column, name in enumerate(table.header) if not aside(name)]
    rows = table.rows[:, keep] if table.header and len(keep) < len(table.header) else table.rows
    count = rows.shape[1]
    ended = count % joint_count == 1 and count > 1 and np.isnan(rows[:, -1]).all()
    return rows[:, :-1] if ended else rows


def lines_of_people(table: Table) -> np.ndarray | None:
    """(M, T) whose line is which at each frame, -1 where a person has none; None where every line is the next frame.

    Raises:
        BadClip: a frame has several lines, and nothing says whose they are.
    """
    who = next((name for name in table.asides if name in PEOPLE), "")
    frame = next((name for names in (FRAMES, TIMES) for name in table.asides if name in names), "")
    whose, when = table.asides.get(who, ()), table.asides.get(frame, ())
    people, frames = list(dict.fromkeys(whose)), sorted(set(when), key=_natural)
    if frames and len(frames) == len(when):  # one line a frame: whatever the other column is, it tells no people apart
        return _in_time(when, frame in FRAMES) if frame in FRAMES or all(map(_is_number, when)) else None
    if len(people) < 2:
        if frame in FRAMES and 1 < len(frames) < len(when) and in_turns(when):
            raise BadClip(f"several lines for each {frame}, and no column 'id' says whose they are: give a file to "
                          "each person, or add that column")  # fmt: skip
        return None
    if not frames and len(people) < len(whose):
        raise BadClip(f"its column '{who}' names {len(people)} people, and no column 'frame' says when they were there")
    if not frames:  # a name for each line
        return None
    if len(people) > MOST_PERSONS:
        raise BadClip(f"its column '{who}' names {len(people)} people, at most {MOST_PERSONS} can be in a clip")
    lines = np.full((len(people), len(frames)), -1)
    row, column = ({name: index for index, name in enumerate(names)} for names in (people, frames))
    for line, place in enumerate(zip(whose, when, strict=True)):
        if lines[row[place[0]], column[place[1]]] >= 0:
            raise BadClip(f"two lines for {who} {place[0]:.40} at {frame} {place[1]:.40}")
        lines[row[place[0]], column[place[1]]] = line
    return with_holes(lines, frames) if frame in FRAMES else lines


def _in_time(when: Sequence[str], counted: bool) -> np.ndarray | None:
    """(1, T) lines in the order of their frames, which are all different; None where they stand in it.

    Where they are counted, frames that are left out between them have the line -1. Not so where lines stand in another
    order: a counter may have begun again.
    """
    lines = sorted(range(len(when)), key=lambda line: _natural(when[line]))
    if lines != list(range(len(when))):
        return np.array([lines])
    found = with_holes(np.array([lines]), when) if counted else np.array([lines])
    return None if found.shape[1] == len(lines) else found


def _is_number(name: str) -> bool:
    """Whether a time is a number; others, such as those of a day that ends, may not be in the order of their digits."""
    try:
        return math.isfinite(plain_float(name))
    except ValueError:
        return False


def in_turns(when: Sequence[str]) -> bool:
    """Whether each frame stands in the same number of lines, one behind the other: not a counter that wraps around."""
    count = next((line for line, name in enumerate(when) if name != when[0]), 1)
    return count > 1 and all(name == when[line - line % count] for line, name in enumerate(when))


def _natural(name: str) -> tuple[tuple[float, str], ...]:
    """Numbers in their order, also inside of names: frame_9.png comes before frame_10.png."""
    try:
        return ((plain_float(name), ""),)
    except ValueError:
        return tuple((float(word) if word.isdecimal() else 0.0, word) for word in re.split(r"([0-9]+)", name))


def _in_layout(joints: list[str], layout: Layout) -> list[str]:
    """Names or numbers of joints in the order of the layout.

    Raises:
        BadClip: some names are the layout's and say that the columns are in another order, and some say nothing.
    """
    if all(re.search(r"\d+$", joint) for joint in joints) and len({_stem(joint) for joint in joints}) == 1:
        return sorted(joints, key=lambda joint: float(re.findall(r"\d+", joint)[-1]))  # of any number of digits
    partners = _partners(joints, layout, meaning) | _partners(joints, layout, _plain)
    if len(partners) == len(set(partners.values())) == len(joints):
        return [partners[joint] for joint in layout.joints]
    if all(layout.joints.index(known) == joints.index(joint) for known, joint in partners.items()):
        return joints
    strange = ", ".join(joint for joint in joints if joint not in partners.values())
    missing = ", ".join(joint for joint in layout.joints if joint not in partners)
    raise BadClip(f"its columns are in another order than the layout's joints, and not all go by the same name: the "
                  f"header has {strange:.80}, the layout {missing:.80}")  # fmt: skip


def _partners(joints: list[str], layout: Layout, key: Callable[[str], str | None]) -> dict[str, str]:
    """Joint of the layout -> name of the header, where both say the same and no other does."""
    sides = []
    for names in (layout.joints, joints):
        said = [key(name) for name in names]
        sides.append({word: name for word, name in zip(said, names, strict=True) if word and said.count(word) == 1})
    return {name: sides[1][word] for word, name in sides[0].items() if word in sides[1]}


def _stem(joint: str) -> str:
    return re.sub(r"\d+$", "", joint)


def _plain(joint: str) -> str:
    return "".join(WORDS.findall(joint)).lower()
