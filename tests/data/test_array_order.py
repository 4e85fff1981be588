"""Orders of arrays and of columns: whatever a file has, the same joints come out, and another order is said."""

from __future__ import annotations

from pathlib import Path

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
