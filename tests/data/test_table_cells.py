"""What the cells of a table hold: numbers, nothing, or names that Python would take for numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from own_clips import person, text

from mmcl.common.errors import BadClip, UserError
from mmcl.data.preparation.finish import told
from mmcl.data.readers.clip_file import ClipNumbers, read_clip
from mmcl.data.readers.text_table import number
from mmcl.deploy.follow import Frames
from mmcl.skeletons.believable import READ
from mmcl.skeletons.layout import load_layout

KINECT = load_layout("kinect_v1_20")
PERSON = person(12)


def held(folder: Path, content: str, suffix: str = ".csv") -> ClipNumbers:
    (folder / f"clip{suffix}").write_text(content, encoding="utf-8")
    return read_clip(folder / f"clip{suffix}", KINECT)


@pytest.mark.parametrize("cell", ["0_1", "2_869.72", "1_000", "٣", "１.５", "1e1_0"])
def test_what_only_python_takes_for_a_number_is_a_name(tmp_path: Path, cell: str) -> None:
    with pytest.raises(ValueError, match="no number"):
        number(cell)
    line = ",".join([cell, *["1.5"] * 59])
    with pytest.raises(BadClip, match=f"cell 1: '{cell}' is no number"):
        Frames(KINECT).parse(line)
    with pytest.raises(BadClip, match=f"line 2, cell 1: '{cell}' is no number"):
        held(tmp_path, f"{text(PERSON[:1])}\n{line}\n")


def test_a_header_of_numbers_with_underscores_is_no_frame(tmp_path: Path) -> None:
    header = ",".join(f"{joint}_{axis}" for joint in range(20) for axis in range(3))
    assert held(tmp_path, text(PERSON, header=header)).values.shape == (1, 12, 20, 3)
    assert Frames(KINECT).takes_header(header)


def test_frames_named_by_numbers_with_underscores_are_in_the_order_of_both_numbers(tmp_path: Path) -> None:
    names = [f"{take}_{frame}" for take in (1, 2) for frame in (9, 10, 11)]
    header = ",".join(["frame", *(f"{axis}{joint}" for joint in range(20) for axis in "xyz")])
    lines = [f"{name},{row}" for name, row in zip(names, text(PERSON[:6]).splitlines(), strict=True)]
    found = held(tmp_path, "\n".join([header, *lines]))
    np.testing.assert_array_equal(found.values[0], PERSON[:6])


@pytest.mark.parametrize(
    "cell",
    ["nan(ind)", "-nan(ind)", "NaN(snan)", "-1.#IND", "1.#QNAN00", "-1.#J", "--", ".", "N.A.", "#VALUE!", "#REF!"],
)
def test_what_programs_write_for_nothing_is_missing(tmp_path: Path, cell: str) -> None:
    rows = [row.split(",") for row in text(PERSON).splitlines()]
    rows[0][:3] = rows[5][6:9] = [cell] * 3
    found = held(tmp_path, "\n".join(map(",".join, rows)))
    known = PERSON.copy()
    known[0, 0] = known[5, 2] = np.nan
    np.testing.assert_array_equal(found.values[0], known)
    assert not Frames(KINECT).parse(",".join(rows[5]))[0, 2].any()


@pytest.mark.parametrize("column", ["joint", "Joint Name", "keypoint_id", "landmark"])
@pytest.mark.parametrize("name", ["left hand", "7"])
def test_a_table_of_a_joint_a_line_is_to_be_pivoted(tmp_path: Path, column: str, name: str) -> None:
    header = f"frame,{column},x,y,z"
    with pytest.raises(BadClip, match="one joint a line: pivot it"):
        held(tmp_path, f"{header}\n0,{name},1,2,3\n1,{name},1,2,3\n")
    with pytest.raises(UserError, match="one joint a line: pivot it"):
        Frames(KINECT).takes_header(header)


def counted(folder: Path, frames: Sequence[int | str], *asides: list[str]) -> ClipNumbers:
    """A table with a column of frames, and with people where they are named."""
    names = [f"{axis}{joint}" for joint in range(20) for axis in "xyz"]
    lines = text(person(len(frames))).splitlines()
    rows = [",".join([str(frame), *others, line]) for frame, *others, line in zip(frames, *asides, lines, strict=True)]
    return held(folder, "\n".join([",".join(["frame", *["id"] * len(asides), *names]), *rows]))


@pytest.mark.parametrize("step", [1, 3])
def test_frames_that_are_left_out_are_frames_without_anybody(tmp_path: Path, step: int) -> None:
    frames = [step * frame for frame in range(5, 25) if frame not in (9, 14, 15)]
    found, there = counted(tmp_path, frames), np.isin(np.arange(5, 25), np.array(frames) // step)
    assert found.values.shape == (1, 20, 20, 3) and np.isnan(found.values[0, ~there]).all()
    np.testing.assert_array_equal(found.values[0, there], person(17))
    assert [str(remark) for remark in found.remarks] == [
        "3 frames have no line, by its column 'frame': taken for frames without anybody"
    ]
    pairs = [frame for frame in frames for _ in range(2)]
    assert counted(tmp_path, pairs, ["a", "b"] * 17).values.shape == (2, 20, 20, 3)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([*range(10), *range(10)], "its column 'frame' goes back from 9 to 0: if they are of two people"),
        ([*range(10), *range(900, 910)], "its column 'frame' goes from 9 to 900: if they are of two people"),
        ([2 * frame for frame in range(20)], ""), ([7], ""), ([0, 1, 3, 7, 12, 20], ""),
        (["1", "1.0", "2", "2.0"], ""),
    ],
)  # fmt: skip
def test_what_frames_are_numbered_by_is_looked_at(tmp_path: Path, frames: Sequence[int | str], words: str) -> None:
    found = counted(tmp_path, frames)
    np.testing.assert_array_equal(found.values[0], person(len(frames)))
    assert " ".join(map(str, found.remarks)).startswith(words) and bool(found.remarks) == bool(words)


def test_a_jump_is_warned_of_where_lines_are_of_people_or_in_another_order(tmp_path: Path) -> None:
    frames = [*range(5), *range(900, 905)]
    pairs = [frame for frame in frames for _ in range(2)]
    for found in (counted(tmp_path, pairs, ["a", "b"] * 10), counted(tmp_path, [2, 0, 1, *frames[3:]])):
        assert any("goes from 4 to 900" in str(remark) for remark in found.remarks)


def test_a_counter_that_began_again_without_a_number_twice_leaves_no_holes(tmp_path: Path) -> None:
    found = counted(tmp_path, [8, 9, 0, 1, 2])
    assert found.values.shape == (1, 5, 20, 3) and "not in the order" in str(found.remarks[0])


def test_what_is_said_of_frame_numbers_is_not_called_mended() -> None:
    (line,) = told([("a", "its column 'frame' goes back from 9 to 0", READ)])
    assert line == "said of 1 clip (a): its column 'frame' goes back from 9 to 0"
