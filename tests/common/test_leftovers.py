"""What killed processes leave is cleared away, and a place that is a link stays one or is replaced, again and again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmcl.common import leftovers
from mmcl.common.files import atomic_file, atomic_folder, recover_folder, replace_folder, write_text
from mmcl.common.leftovers import beside, held, meant_for


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """As in a process of its own."""
    leftovers._leftovers.cache_clear()


def test_a_file_that_a_killed_process_was_writing_goes_when_it_is_written_again(tmp_path: Path) -> None:
    left, others, used = beside(tmp_path / "a.json"), beside(tmp_path / "b.json"), beside(tmp_path / "a.json")
    for path in (left, others, used):
        path.write_text("half")
    with held(used):  # somebody writes it
        write_text(tmp_path / "a.json", "whole")
    assert not left.exists() and others.exists() and used.exists()
    with atomic_file(tmp_path / "b.json") as mine:
        leftovers._leftovers.cache_clear()
        write_text(tmp_path / "b.json", "another process, at the same time")
        assert mine.exists()
        mine.write_text("mine")
    assert not others.exists() and (tmp_path / "b.json").read_text() == "mine"


def test_names_of_temporary_files_say_what_they_were_to_replace() -> None:
    assert meant_for(beside(Path("x/.writer.json")).name) == ".writer.json"
    assert [meant_for(name) for name in (".a.tmp", ".a.0123.tmp", "a.0123456789ab.tmp")] == [None] * 3


def test_an_older_result_that_a_kill_left_beside_the_new_one_goes_with_the_next(tmp_path: Path) -> None:
    for name in ("out", ".out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mark").touch()
    with atomic_folder(tmp_path / "out", "mark") as folder:
        assert not (tmp_path / ".out.old").exists()
        (folder / "mark").touch()
    os.rename(tmp_path / "out", tmp_path / ".out.old")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "out", "mark"):
        raise ZeroDivisionError  # killed between two renames, the older one is all that there is
    recover_folder(tmp_path / "out")
    assert (tmp_path / "out" / "mark").exists()


def test_a_result_goes_where_a_link_leads_each_time(tmp_path: Path) -> None:
    (tmp_path / "disc" / "real").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disc" / "real")
    for number in range(3):
        with atomic_folder(tmp_path / "out", "mark") as folder:
            assert folder.parent == tmp_path / "disc"  # a rename to another disc is none
            (folder / "mark").write_text(str(number))
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disc" / "real" / "mark").read_text() == "2"
    assert [path.name for path in (tmp_path / "disc").iterdir()] == ["real"]


def test_a_link_that_is_replaced_leaves_what_it_leads_to_alone(tmp_path: Path) -> None:
    (tmp_path / "kept" / "inner").mkdir(parents=True)
    (tmp_path / "last").symlink_to(tmp_path / "kept")
    for number in range(3):
        (new := tmp_path / "new").mkdir()
        (new / "number").write_text(str(number))
        replace_folder(new, tmp_path / "last")
    assert (tmp_path / "last" / "number").read_text() == "2" and (tmp_path / "kept" / "inner").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "last"]
