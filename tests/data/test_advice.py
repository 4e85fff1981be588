"""What `mmcl check` advises: an option only where it does good to the whole folder, else words on some clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import made_stores
import numpy as np
import pytest
from own_clips import person

from mmcl.data.inspection.checks import check
from mmcl.data.inspection.findings import Finding
from mmcl.skeletons.layout import Layout, load_layout

CLIPS = 12
Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
HERE = "in these clips alone, before they are prepared"
Change = Callable[[int, np.ndarray], np.ndarray]


def findings(folder: Path, change: Change, words: str) -> list[Finding]:
    """What is said, with these words in it, of a store of clips that are changed one by one."""

    def row(number: int, *sizes: int) -> dict[str, object]:
        joints = change(number, person(seed=number)).astype(np.float32)
        return {**made_stores.row(number, 1), "joints": joints.reshape(-1), "frames": len(joints)}

    store = made_stores.write_store(folder, CLIPS, layout=load_layout("kinect_v1_20"), make=row)
    return [finding for finding in check(store, progress=False).findings if words in finding.what]


SOME: dict[str, tuple[Change, str, list[str]]] = {
    "three in millimetres": (lambda n, c: c * (1000 if n < 3 else 1), "size",
                             [f"these look like millimetres: divide by 1000 {HERE}"]),
    "three of either unit": (lambda n, c: c * (1000 if n < 3 else 100 if n < 6 else 1), "size",
                             [f"divide by 1000 in 3 of these clips; these look like centimetres: divide by 100 in 3 of "
                              f"these clips: {HERE}"]),
    "all, of two units": (lambda n, c: c * (1000 if n % 2 else 100), "size", ["in 6 of these clips; "]),
    "all, of two axes": (lambda n, c: c @ Z_UP.T if n % 2 else c * [-1, -1, 1], "vertical|upside",
                         [f"negate x and y, a half turn {HERE}", f"the columns are x, -z, y {HERE}"]),
    "two of three mirrored": (lambda n, c: c * [-1 if n % 3 else 1, 1, 1], "swapped",
                              [f"negate x {HERE}, or swap the joints' sides if they are named wrongly"]),
    "half of them with copies": (lambda n, c: np.repeat(c, 2, axis=0) if n % 2 else c, "copy",
                                 ["halve the frame rate (in these clips alone)"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SOME)
def test_no_option_is_advised_that_would_break_other_clips(tmp_path: Path, name: str) -> None:
    change, words, advised = SOME[name]
    found = [finding for word in words.split("|") for finding in findings(tmp_path / word, change, word)]
    assert len(found) == len(advised) and not any("--" in finding.advice for finding in found)
    assert all(any(words in finding.advice for finding in found) for words in advised), found


KINECT = ("base_spine", "spine_shoulder", "head", "left_hand", "right_hand", "left_foot", "right_foot")


def test_what_could_not_be_measured_has_not_passed(tmp_path: Path) -> None:
    layout = Layout("my_sensor", ("hip", "chest", *KINECT[2:]), (0, 0, 1, 1, 1, 0, 0), centre=1)
    rows = [load_layout("kinect_v1_20").joints.index(name) for name in KINECT]

    def row(number: int, *sizes: int) -> dict[str, object]:
        clip = person(seed=number)[:, rows].astype(np.float32)
        return {**made_stores.row(number, 1), "joints": clip.reshape(-1), "frames": len(clip)}

    report = check(made_stores.write_store(tmp_path, CLIPS, layout=layout, make=row), progress=False)
    assert any("left and right could not be checked" in finding.what for finding in report.findings)
    assert "left is left" not in report.passed and "y points up" in report.passed


ALL: dict[str, tuple[Change, str, str]] = {
    "millimetres": (lambda n, c: c * 1000, "size", "divide by 1000 (--unit mm)"),
    "millimetres, and one small body": (lambda n, c: c * (1000 if n else 300), "size", "divide by 1000 (--unit mm)"),
    "all but one turned": (lambda n, c: c @ Z_UP.T if n else c, "vertical", "the columns are x, -z, y"),
    "some bend": (lambda n, c: c @ bent(n % 4 == 0).T @ Z_UP.T, "vertical", "the columns are x, -z, y"),
    "copies": (lambda n, c: np.repeat(c, 2, axis=0), "copy", "halve the frame rate (--fps)"),
}


def bent(bends: bool) -> np.ndarray:
    """A turn by 40 degrees towards the sensor."""
    angle = np.deg2rad(-40 if bends else 0)
    return np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize("name", ALL)
def test_an_option_is_advised_where_nearly_all_clips_need_it(tmp_path: Path, name: str) -> None:
    change, word, advised = ALL[name]
    (found,) = findings(tmp_path / "all", change, word)
    assert advised in found.advice and "in these clips" not in found.advice
