"""Labels of a list as people and programs write them: words that mean nothing, numbers, spellings of one class."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_clips import listed

from mmcl.common.errors import UserError
from mmcl.data.readers.clip_list import ClipList
from mmcl.data.readers.naming import alike, whole


@pytest.mark.parametrize("word", ["None", "nan", "NaN", "?", "-", "N/A", "null", "<NA>", "missing"])
def test_a_word_for_nothing_is_no_class(tmp_path: Path, word: str) -> None:
    folder = listed(tmp_path / "clips", "a,wave", f"b,{word}", "c,throw")
    with pytest.raises(UserError, match=r"clips\.csv, line 3: label '.*' means that there is none: leave the clip out"):
        ClipList(folder)
    (folder / "classes.txt").write_text(f"throw\n{word}\nwave\n")  # who says so may call a class like that
    assert ClipList(folder).labels == [2, 1, 0]


def test_a_word_for_nothing_is_nobody_and_no_file(tmp_path: Path) -> None:
    lines = ClipList(listed(tmp_path, "a,wave,nan,None,?", "b,wave,Ann,3,x.npy", header="id,label,subject,camera,file"))
    assert lines.subjects == [0, 1] and lines.subject_names == {"Ann": 1}
    named = ClipList(listed(tmp_path / "initials", "a,wave,NA", "b,wave,Ann", header="id,label,subject"))
    assert named.subject_names == {"Ann": 1, "NA": 2}
    assert lines.number(lines.lines[0], "camera") == 1 and lines.lines[0]["file"] == ""


def test_labels_in_the_notation_of_numpy_are_numbers(tmp_path: Path) -> None:
    lines = [f"{name},{label:.18e}" for name, label in zip("abc", (0.0, 12.0, 3.0), strict=True)]
    read = ClipList(listed(tmp_path, *lines))
    assert read.labels == [0, 12, 3] and len(read.class_names) == 13
    assert [whole(cell) for cell in ("1e0", "1.000e+00", "2.0", "007", "1.5e+01")] == [1, 1, 2, 7, 15]
    assert [whole(cell) for cell in ("1.5e+00", "1.5", "1e-3", "-1", "1e99", "e1", "", "1,0", "nan")] == [None] * 9


@pytest.mark.parametrize(
    ("one", "other"),
    [("wave", "'wave'"), ("wave", '"wave"'), ("wave", "“Wave”"), ("A001", "a1"), ("a01_jog", "A1 jog"),
     ("01 jog", "1 jog")],
)  # fmt: skip
def test_quotes_and_zeros_make_no_other_class(one: str, other: str) -> None:
    assert alike([one, "throw", other]) == [sorted([one, other])]


@pytest.mark.parametrize("names", [("A1", "A10"), ("v1.05", "v1.5"), ("A0", "A"), ("jog", "jogs"), ("1 jog", "10 jog")])
def test_other_numbers_are_other_classes(names: tuple[str, ...]) -> None:
    assert alike(names) == []
