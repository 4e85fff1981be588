"""Lines that are followed: a table in which a frame has several lines is refused, the order of rows is recognised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_stream import KINECT, somebody

from mmcl.common.errors import BadClip, UserError
from mmcl.deploy.follow import Frames
from mmcl.deploy.followed_lines import LONGEST, lines_of

COORDINATES = [f"{axis}{joint}" for joint in range(20) for axis in "xyz"]
ONE = somebody(12)
OTHER = ONE + np.float32([0.8, 0, 0])


def row(*cells: object) -> str:
    return ",".join(str(cell) for part in cells for cell in np.ravel(part))


def followed(lines: list[str]) -> np.ndarray:
    """(T, M, V, C)."""
    frames = Frames(KINECT)
    return np.stack([frames.parse(line) for line in lines[frames.takes_header(lines[0]) :]])


@pytest.mark.parametrize("when", ["frame", "timestamp"])
@pytest.mark.parametrize("who", ["person_id", "id"])
def test_two_people_in_lines_of_their_own_are_refused(when: str, who: str) -> None:
    header = row(when, who, COORDINATES)
    lines = [row(frame, name, body[frame]) for frame in range(12) for name, body in ((0, ONE), (1, OTHER))]
    with pytest.raises(UserError, match=f"two lines for {when} 0, {who} 0 and 1: --follow takes one line a frame"):
        followed([header, *lines])
    alone = [row(frame, frame // 5, ONE[frame]) for frame in range(12)]  # a tracker that loses somebody
    np.testing.assert_array_equal(followed([header, *alone])[:, 0], ONE)
    alone = [row(7, 1, ONE[frame]) for frame in range(12)]  # a counter that stands still
    np.testing.assert_array_equal(followed([header, *alone])[:, 0], ONE)


def test_frames_that_come_in_turns_are_refused_without_names_of_people() -> None:
    header = row("frame", COORDINATES)
    lines = [row(frame, body[frame]) for frame in range(12) for body in (ONE, OTHER)]
    with pytest.raises(UserError, match="several lines for each frame, and no column 'id' says whose they are"):
        followed([header, *lines])
    for frames in (range(12), [7] * 12, [0, 1, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9]):
        lines = [row(frame, body) for frame, body in zip(frames, ONE, strict=True)]
        np.testing.assert_array_equal(followed([header, *lines])[:, 0], ONE)


@pytest.mark.parametrize("people", [1, 2])
def test_rows_in_blocks_are_recognised_by_the_first_body(people: int, capsys: pytest.CaptureFixture[str]) -> None:
    known = np.stack([ONE, OTHER][:people], axis=1)
    known[:2] = np.nan  # nobody yet
    plain = followed([row(frame) for frame in known])
    assert not capsys.readouterr().err
    np.testing.assert_array_equal(plain, np.nan_to_num(known))
    blocks = followed([row(frame.swapaxes(1, 2)) for frame in known])
    np.testing.assert_array_equal(blocks, plain)
    said = capsys.readouterr().err
    assert said.count("note: ") == 1 and "a row holds one coordinate of all joints, then the next one" in said


def test_a_mark_of_the_encoding_does_not_cost_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "frames.csv").write_text(row(ONE[0]) + "\n", encoding="utf-8-sig")
    np.testing.assert_array_equal(followed(list(lines_of(tmp_path / "frames.csv")))[0, 0], ONE[0])


def test_a_line_of_huge_coordinates_costs_itself() -> None:
    with pytest.raises(BadClip, match="metres from the origin"):
        followed([row(ONE[0] * 1e30)])


def test_a_film_is_no_lines_of_text(tmp_path: Path) -> None:
    film = tmp_path / "film.ts"
    film.write_bytes(b"\x47" + bytes(range(256)) * 20)
    with pytest.raises(UserError, match=r"film\.ts: this is no text"):
        list(lines_of(film))
    film.write_bytes(b"1,2,3\n\0\0\n4,5,6\n")  # a writer's hole: the line costs itself
    assert list(lines_of(film)) == ["1,2,3", "\0\0", "4,5,6"]


def test_a_line_that_never_ends_is_said_while_it_lasts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text"):  # a device that gives zeros for ever
        next(lines_of(Path("/dev/zero")))
    (tmp_path / "frames").write_text("1," * LONGEST + "1\n2,2\n")
    first, second = lines_of(tmp_path / "frames")
    assert len(first) > LONGEST and second == "2,2"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"x": 1, "y": 2, "z": 3}] * 20, r"objects where lists are expected \(it has x, y, z\)"),
        ({"people": []}, r"no joints, skeletons, keypoints in the JSON object \(it has people\)"),
    ],
)
def test_objects_of_other_programs_are_named_by_what_they_hold(content: object, said: str) -> None:
    with pytest.raises(BadClip, match=said):
        Frames(KINECT).parse(json.dumps(content))
