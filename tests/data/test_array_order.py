"""Orders of arrays and of columns: whatever a file has, the same joints come out, and another order is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_clips import person, text

from mmcl.common.errors import BadClip
from mmcl.data.readers.array_order import arranged
from mmcl.data.readers.clip_file import ClipNumbers, read_clip, recognise
from mmcl.skeletons.layout import load_layout

KINECT = load_layout("kinect_v1_20")
NAMES = KINECT.joints


TWO = np.stack([person(), person(x=1.0, seed=1)])
ORDERS = {  # axes of (M, T, V, C) as a file has them; words of what is said
    "MTVC": ((0, 1, 2, 3), None),
    "CTVM": ((3, 1, 2, 0), "ST-GCN's order, channels first (coordinates, frames, joints, persons)"),
    "TMVC": ((1, 0, 2, 3), "(frames, persons, joints, coordinates)"),
    "MCTV": ((0, 3, 1, 2), "(persons, coordinates, frames, joints)"),
    "TVCM": ((1, 2, 3, 0), "(frames, joints, coordinates, persons)"),
    "VCTM": ((2, 3, 1, 0), "(joints, coordinates, frames, persons)"),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("persons", [1, 2])
def test_orders_of_four_axes(name: str, persons: int) -> None:
    axes, words = ORDERS[name]
    found, remarks = arranged(TWO[:persons].transpose(axes), KINECT)
    assert np.array_equal(found, TWO[:persons])
    said = [str(remark) for remark in remarks]
    assert said == [] if words is None else len(said) == 1 and words in said[0] and "shape (" in said[0]


@pytest.mark.parametrize(
    ("name", "axes"), [("TVC", (0, 1, 2)), ("CTV", (2, 0, 1)), ("VCT", (1, 2, 0)), ("VTC", (1, 0, 2))]
)
@pytest.mark.parametrize("frames", [30, 20])  # as many frames as joints: the shape alone does not tell
def test_orders_of_three_axes(name: str, axes: tuple[int, ...], frames: int) -> None:
    found, remarks = arranged(person(frames).transpose(axes), KINECT)
    assert np.array_equal(found[0], person(frames)) and bool(remarks) == (name != "TVC")


def gone(share: float, value: float) -> np.ndarray:
    clip = person(60)
    clip[np.random.default_rng(1).random(clip.shape[:2]) < share] = value
    return clip


def unseen(joint: int, empty: int = 0) -> np.ndarray:
    clip = person(60)
    clip[:, joint] = clip[:empty] = 0.0
    return clip


DAMAGED = {
    "nothing": person(60),
    "2 % NaN": gone(0.02, np.nan),
    "20 % NaN": gone(0.2, np.nan),
    "5 % zeros": gone(0.05, 0.0),
    "a head that was never seen": unseen(KINECT.joints.index("head")),
    "the same, and mostly nobody there": unseen(KINECT.joints.index("head"), empty=50),
    "centimetres about the hip": np.round(person(60) - person(60)[:, :1], 2),  # zeros that are no gaps
    "a plane in space": np.round(person(60), 2) * [1, 1, 0],
    "a plane in space with gaps": gone(0.05, 0.0) * [1, 1, 0],
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("blocks", [False, True])
def test_rows_of_numbers_with_joints_missing(name: str, blocks: bool) -> None:
    clip = DAMAGED[name]
    rows = (clip.transpose(0, 2, 1) if blocks else clip).reshape(len(clip), -1)
    found, remarks = arranged(rows, KINECT)
    assert np.array_equal(found[0], clip, equal_nan=True) and bool(remarks) == blocks


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("blocks", [False, True])
def test_rows_of_numbers_with_single_cells_missing(share: float, blocks: bool) -> None:
    for seed in range(4):
        clip = person(60, seed=seed)
        clip[np.random.default_rng(seed).random(clip.shape) < share] = np.nan
        rows = (clip.transpose(0, 2, 1) if blocks else clip).reshape(len(clip), -1)
        assert np.array_equal(arranged(rows, KINECT)[0][0], clip, equal_nan=True)


def test_rows_of_people_who_walk_bent_are_read_in_blocks() -> None:
    clip = person(25)
    clip[:, [1, 2, 3], 1:] = clip[:, :1, 1:] + np.outer([0.25, 0.45, 0.6], [0.7, -0.7])  # bent towards the sensor
    clip[..., [0, 2]] += np.linspace(-4, 4, 25)[:, None, None]
    assert np.array_equal(arranged(clip.transpose(0, 2, 1).reshape(25, 60), KINECT)[0][0], clip)


def test_frames_without_anybody_are_no_joints_that_are_torn() -> None:
    clip = person(20)
    clip[5:9] = np.nan
    clip[np.random.default_rng(0).random(clip.shape) < 0.05] = np.nan
    assert np.array_equal(arranged(clip, KINECT)[0][0], clip, equal_nan=True)


@pytest.mark.parametrize("persons", [1, 2])
def test_frames_that_come_before_persons_in_rows(persons: int) -> None:
    clip = np.concatenate([TWO, TWO], axis=1)[:persons, :48]
    for rows in (clip, clip.swapaxes(2, 3)):
        found, (remark,) = arranged(rows.swapaxes(0, 1).reshape(48, persons, 60), KINECT)
        assert np.array_equal(found, clip) and "(frames, persons, " in str(remark)
        assert np.array_equal(arranged(rows.reshape(persons, 48, 60), KINECT)[0], clip)


@pytest.mark.parametrize("shape", [(30, 40, 20, 3), (30, 40, 60)])
def test_a_whole_set_is_no_clip_of_many_people(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadClip, match="of one clip with 10 persons at most"):
        arranged(np.ones(shape), KINECT)


def test_a_second_person_who_is_nobody_and_a_batch_of_one() -> None:
    empty = TWO * [[[[1]]], [[[0]]]]
    assert np.array_equal(arranged(empty.transpose(3, 1, 2, 0), KINECT)[0], empty)
    found, (remark,) = arranged(TWO.transpose(3, 1, 2, 0)[None], KINECT)
    assert np.array_equal(found, TWO) and "ST-GCN" in str(remark)


def test_three_people_in_a_plane_are_three_people() -> None:
    three = np.stack([person(), person(x=1.0, seed=1), person(x=-1.0, seed=2)])[..., :2]
    found, remarks = arranged(three, KINECT)
    assert np.array_equal(found, three) and remarks == []


def test_four_numbers_a_joint() -> None:
    sure = np.random.default_rng(0).uniform(0, 1, (30, 20, 1))
    held = recognise(np.concatenate([person(), sure], axis=-1), KINECT)
    assert held.columns == "xyzc" and np.array_equal(held.coordinates[0], person())
    assert held.confidence is not None and np.array_equal(held.confidence[0], sure[..., 0])
    with pytest.raises(BadClip, match="four numbers a joint .*no confidence"):
        recognise(np.concatenate([person(), sure * 5], axis=-1), KINECT)


def test_shapes_that_make_no_sense_are_named() -> None:
    wrong = {
        (30, 21, 3): "21 joints, expected 20",
        (30, 20, 5): "5 numbers a joint",
        (30, 61): "61 numbers a line.*column",
        (3, 4, 5, 6, 7): r"shape \(3, 4, 5, 6, 7\)",
    }
    for shape, words in wrong.items():
        with pytest.raises(BadClip, match=words):
            arranged(np.ones(shape), KINECT)


# Tables ----------------------------------------------------------------------------------------------------------


def table(tmp_path: Path, content: str | bytes) -> ClipNumbers:
    path = tmp_path / "clip.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_clip(path, KINECT)


HEADERS = {
    "x0,y0,z0,…": [f"{axis}{joint}" for joint in range(20) for axis in "xyz"],
    "0_x,…": [f"{joint}_x".replace("x", axis) for joint in range(20) for axis in "xyz"],
    "blocks": [f"{axis}{joint}" for axis in "xyz" for joint in range(20)],
    "names": [f"{name}_{axis}" for name in NAMES for axis in "xyz"],
    "names of other tools": [f"{name.replace('_', ' ').title()}.{axis.upper()}" for name in NAMES for axis in "xyz"],
    "names in another order": [f"{name}:{axis}" for name in sorted(NAMES) for axis in "zyx"],
    "numbers in another order": [f"joint{joint}_{axis}" for joint in reversed(range(20)) for axis in "yxz"],
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_say_which_column_is_which(tmp_path: Path, name: str) -> None:
    header, joints = HEADERS[name], person()
    columns = np.empty((30, 60))
    for place, title in enumerate(header):
        words = title.lower().replace(".", " ").replace(":", " ").replace(" ", "_")
        axis = "xyz".index(next(letter for letter in (words[-1], words[0]) if letter in "xyz"))
        plain = words[:-1].strip("_") if words[-1] in "xyz" else words[1:].strip("_")
        joint = NAMES.index(plain) if plain in NAMES else int(plain.removeprefix("joint"))
        columns[:, place] = joints[:, joint, axis]
    held = table(tmp_path, text(columns[:, :, None], header=",".join(header)))
    assert np.array_equal(held.values[0], joints) and held.columns == "xyz"


def test_blocks_without_a_header_are_seen_by_the_body(tmp_path: Path) -> None:
    held = table(tmp_path, text(person().swapaxes(1, 2)))
    assert np.array_equal(held.values[0], person()) and "(frames, coordinates, joints)" in str(held.remarks[0])
    assert table(tmp_path, text(person())).remarks == []


def test_times_and_confidences_are_no_coordinates(tmp_path: Path) -> None:
    sure = np.random.default_rng(0).uniform(0, 1, (30, 20, 1)).round(3)
    rows = np.concatenate([person(), sure], axis=-1).reshape(30, -1)
    rows = np.concatenate([np.arange(30)[:, None], rows, np.ones((30, 1))], axis=1)
    header = ["frame", *(f"{axis}_{name}" for name in NAMES for axis in ("x", "y", "z", "visibility")), "timestamp_ms"]
    held = table(tmp_path, text(rows[:, :, None], header=",".join(header)))
    assert held.columns == "xyzc" and np.array_equal(held.coordinates[0], person())
    assert held.confidence is not None and np.array_equal(held.confidence[0], sure[..., 0])
    indexed = text(rows[:, :-1, None], header=",".join(["", *map(str, range(80))]))  # pandas' index, without names
    assert np.array_equal(table(tmp_path, indexed).coordinates[0], person())


@pytest.mark.parametrize("nothing", ["", "NA", "NaN", "null", "None", "N/A", "#N/A"])
def test_cells_that_say_nothing_are_missing(tmp_path: Path, nothing: str) -> None:
    rows = [row.split(",") for row in text(person()).split("\n")]
    rows[3][6:9] = [nothing] * 3
    held = table(tmp_path, "\n".join(map(",".join, rows)))
    assert np.isnan(held.values[0, 3, 2]).all() and np.isfinite(np.delete(held.values[0], 3, axis=0)).all()


@pytest.mark.parametrize("separator", [";", "\t", " "])
def test_decimal_commas(tmp_path: Path, separator: str) -> None:
    written = text(person(), separator).replace(".", ",")
    assert np.array_equal(table(tmp_path, written).values[0], person())
    quoted = "\n".join(
        ",".join(f'"{cell}"' for cell in row.split(";")) for row in text(person(), ";").replace(".", ",").split("\n")
    )
    assert np.array_equal(table(tmp_path, quoted).values[0], person())
    assert np.array_equal(table(tmp_path, text(person(), ";").encode("utf-16")).values[0], person())


def test_headers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    lacking = [name if name != "z7" else "w7" for name in HEADERS["blocks"]]
    many = [f"{axis}{joint}" for joint in range(30) for axis in "xy"]
    for header, words in ((HEADERS["blocks"][:57], "57 and 60 cells"), (lacking, "lacks columns"),
                          (many, "names 30 joints, expected 20")):  # fmt: skip
        with pytest.raises(BadClip, match=words):
            table(tmp_path, text(person(), header=",".join(header)))


def headed(names: list[str], clip: np.ndarray, *asides: tuple[str, list[str]]) -> str:
    """A table of named joints, with columns before them."""
    header = [name for name, _ in asides] + [f"{name}_{axis}" for name in names for axis in "xyz"]
    rows = text(clip).split("\n")
    lines = [",".join([*(cells[line] for _, cells in asides), row]) for line, row in enumerate(rows)]
    return "\n".join([",".join(header), *lines])


def test_names_that_are_known_in_part(tmp_path: Path) -> None:
    other = ["neck" if name == "spine_shoulder" else name for name in NAMES]
    assert np.array_equal(table(tmp_path, headed(other, person())).values[0], person())  # they stand as the layout's do
    order = np.random.default_rng(0).permutation(20)
    known = headed([NAMES[joint] for joint in order], person()[:, order])
    assert np.array_equal(table(tmp_path, known).values[0], person())
    with pytest.raises(BadClip, match="another order.*the header has neck, the layout spine_shoulder"):
        table(tmp_path, headed([other[joint] for joint in order], person()[:, order]))


TIMES = {
    "timestamp": [f"2024-05-01 12:00:{line:02d}.033" for line in range(30)],
    "Time (Seconds)": [f"{line / 30:.3f}" for line in range(30)],
    "frame": [f"frame_{line:04d}.png" for line in range(30)],
    "track_id": ["7"] * 30,
    "id": [str(line) for line in range(30)],
}


@pytest.mark.parametrize("name", TIMES)
def test_what_stands_aside_may_be_text(tmp_path: Path, name: str) -> None:
    held = table(tmp_path, headed(list(NAMES), person(), (name, TIMES[name])))
    assert np.array_equal(held.values[0], person()) and held.remarks == []


def test_a_column_of_words_is_named(tmp_path: Path) -> None:
    rows = headed(list(NAMES), person(), ("action", ["wave"] * 30))
    with pytest.raises(BadClip, match="line 2, column 'action': 'wave' is no number; leave columns out"):
        table(tmp_path, rows)


@pytest.mark.parametrize("name", ["frame", "timestamp_ms"])
@pytest.mark.parametrize("order", ["sorted as text", "tracks in turn"])
def test_lines_come_in_the_order_of_their_frames(tmp_path: Path, name: str, order: str) -> None:
    lines = sorted(range(30), key=str) if order == "sorted as text" else [*range(15, 30), *range(15)]
    asides = (name, [str(line) for line in lines]), ("id", [str(line // 15) for line in lines])
    for some in (asides, asides[:1]):
        held = table(tmp_path, headed(list(NAMES), person()[lines], *some))
        assert np.array_equal(held.values[0], person())
        assert [str(remark) for remark in held.remarks] == ["its lines are not in the order of their frames: put in it"]


@pytest.mark.parametrize("by_frame", [True, False])  # or all of one person first
@pytest.mark.parametrize("who", ["id", "person_id", "Track ID"])
def test_a_line_for_each_person_and_frame(tmp_path: Path, who: str, by_frame: bool) -> None:
    lines = [(frame, one) for frame in range(30) for one in range(2) if one == 0 or frame in (9, 10, 11)]
    lines = lines if by_frame else sorted(lines, key=lambda line: line[1])
    clip = np.stack([TWO[one, frame] for frame, one in lines])
    asides = ("frame", [f"f{frame}" for frame, _ in lines]), (who, [f"P{one}" for _, one in lines])
    held = table(tmp_path, headed(list(NAMES), clip, *asides)).values
    there = np.arange(30) // 3 == 3
    assert held.shape == (2, 30, 20, 3) and np.array_equal(held[0], TWO[0])
    assert np.array_equal(held[1, there], TWO[1, there]) and np.isnan(held[1, ~there]).all()


def test_lines_that_nobody_can_be_told_apart_by(tmp_path: Path) -> None:
    twice = np.repeat(person(), 2, axis=0)
    frames, people = [str(line // 2) for line in range(60)], [str(line % 2) for line in range(60)]
    same = ["0"] * 59 + ["1"]
    wrong = {
        "no column 'id' says whose they are": (("frame", frames),),
        "no column 'frame' says when": (("id", people),),
        "two lines for id 0 at frame 0": (("frame", frames), ("id", same)),
        "names 60 people, at most 10": (("frame", frames), ("id", [str(line) for line in range(60)])),
    }  # fmt: skip
    for words, asides in wrong.items():
        with pytest.raises(BadClip, match=words):
            table(tmp_path, headed(list(NAMES), twice, *asides))
    counter = ("frame", [str(line % 10) for line in range(30)])  # wraps around: still a line for each frame
    assert np.array_equal(table(tmp_path, headed(list(NAMES), person(), counter)).values[0], person())


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_last_joint_that_is_never_seen_and_a_separator_at_the_end(tmp_path: Path, separator: str) -> None:
    unseen = person()
    unseen[:, -1] = np.nan
    rows = text(unseen, separator).replace("nan", "")
    assert np.array_equal(table(tmp_path, rows).values[0], unseen, equal_nan=True)
    ended = rows.replace("\n", separator + "\n") + separator
    assert np.array_equal(table(tmp_path, ended).values[0], unseen, equal_nan=True)
    header = separator.join(HEADERS["names"])
    for first in (header, header + separator):
        assert np.array_equal(table(tmp_path, f"{first}\n{ended}").values[0], unseen, equal_nan=True)


def test_frames_with_as_many_people_as_were_there(tmp_path: Path) -> None:
    path = tmp_path / "clip.json"
    frames: list[Any] = [[TWO[0, 0].tolist()], [], None, TWO[:, 3].tolist(), TWO[0, 4].tolist()]
    expected = np.full((2, 5, 20, 3), np.nan)
    expected[0, [0, 3, 4]], expected[1, 3] = TWO[0, [0, 3, 4]], TWO[1, 3]
    for rows in (frames, [None if frame is None else np.reshape(frame, (-1, 60)).tolist() for frame in frames]):
        path.write_text(json.dumps(rows))
        assert np.array_equal(read_clip(path, KINECT).values, expected, equal_nan=True)
    for wrong in ([TWO[0].tolist(), TWO[1, :9].tolist()], [[1, 2], [3]], [[TWO[0, 0].tolist()] * 11, []]):
        path.write_text(json.dumps(wrong))
        with pytest.raises(BadClip, match="lists of different lengths"):
            read_clip(path, KINECT)


def test_few_people_in_many_empty_frames_take_no_room(tmp_path: Path) -> None:
    path = tmp_path / "clip.json"
    path.write_text(json.dumps([[TWO[0, 0].tolist()] * 10, *[None] * 60_000]))
    with pytest.raises(BadClip, match="10 persons in 60001 frames take 274 MB, and 256 are read at most"):
        read_clip(path, KINECT)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_line_that_begins_with_a_missing_cell_is_no_comment(tmp_path: Path, separator: str) -> None:
    clip = person()
    lines = [separator.join("#N/A" if (t, n) == (4, 0) else f"{v:.5f}" for n, v in enumerate(frame.ravel()))
             for t, frame in enumerate(clip)]  # fmt: skip
    held = table(tmp_path, "\n".join(["# by hand, no units", *lines]))
    assert held.values.shape == (1, 30, 20, 3)
    assert np.isnan(held.values[0, 4, 0, 0]) and np.isfinite(held.values[0, 3]).all()


@pytest.mark.parametrize(
    ("suffix", "content", "words"),
    [
        ("csv", "frame,joint,x,y,z\n0,0,1,2,3\n0,1,1,2,3", "one joint a line: pivot it"),
        ("csv", ",".join(["x0"] * 60) + "\n" + text(person()), "calls every column 'x0'"),
        (
            "json",
            json.dumps([[{"x": 1, "y": 2, "z": 3}] * 20] * 3),
            r"objects where lists are expected \(it has x, y, z\)",
        ),
        ("json", "[[[" + "9" * 5000 + ",0,0]]]", "whole number of thousands of digits"),
    ],
)
def test_what_other_tools_write_is_named(tmp_path: Path, suffix: str, content: str, words: str) -> None:
    (tmp_path / f"clip.{suffix}").write_text(content)
    with pytest.raises(BadClip, match=words):
        read_clip(tmp_path / f"clip.{suffix}", KINECT)
