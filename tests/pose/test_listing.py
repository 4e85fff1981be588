"""The list of a folder of estimated clips: what a person wrote into it is there after every further call."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from mmcl.common.errors import UserError
from mmcl.pose.listing import free_name, write_list


def record(*names: str, width: int = 320) -> dict[str, Any]:
    facts = {"label": "walk", "video": "/v/a.mp4", "width": width, "height": 240, "persons": 1}
    return {"clips": [{"id": name, "file": f"skeletons/{name}.npy", **facts} for name in names]}


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(("encoding", "separator"), [("utf-8", ","), ("utf-8-sig", ";"), ("utf-8-sig", "\t")])
def test_labels_columns_and_lines_of_ones_own_stay(tmp_path, encoding: str, separator: str) -> None:
    path = tmp_path / "clips.csv"
    write_list(path, [record("a", "b")])
    assert list(rows(path)) == ["a", "b"] and rows(path)["b"]["label"] == "walk"
    lines = [
        ["id", "label", "file", "video", "width", "height", "Subject"],
        ["a", "gehen, müde", "skeletons/a.npy", "", "9", "9", "Zoë"],
        ["mine", "run", "others/mine.npy", "", "", "", "Jo"],
        ["old", "walk", "skeletons/old.npy", "", "", "", ""],  # a clip that an earlier call made otherwise
    ]
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows(lines)
    for _ in range(2):
        write_list(path, [record("a", "b", width=640), record("c")])
        found = rows(path)
        assert list(found) == ["a", "b", "c", "mine"]
        assert (found["a"]["label"], found["a"]["subject"]) == ("gehen, müde", "Zoë")
        assert found["a"]["width"] == "640" and found["a"]["video"] == "/v/a.mp4"  # facts are today's
        assert found["mine"]["file"] == "others/mine.npy" and found["mine"]["subject"] == "Jo"
        assert found["b"]["label"] == "walk" and found["b"]["subject"] == ""


def test_a_list_that_cannot_be_read_is_left_as_it_is(tmp_path) -> None:
    path = tmp_path / "clips.csv"
    for damaged in (b"id,label\na,h\xe4nd\n", b"id,label\na\n"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="clips.csv"):
            write_list(path, [record("a")])
        assert path.read_bytes() == damaged


def test_names_that_are_taken_get_a_number() -> None:
    assert free_name("a", ()) == "a"
    assert free_name("a", {"a", "a_2"}) == "a_3"
