"""Places that are links: to themselves, to nowhere, to one another."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmcl.common.errors import UserError
from mmcl.common.files import absolute, atomic_folder, check_place, check_replaceable
from mmcl.deploy.film_flags import check_film_flags
from mmcl.engine.run_folder import check_run


def film_flags(**given: object) -> argparse.Namespace:
    nothing = {"csv": None, "srt": None, "draw": None, "together": False, "windows": False}
    return argparse.Namespace(**{**nothing, "follow": None, "layout": None, **given})


def test_a_link_to_itself_is_a_place_of_its_own(tmp_path: Path) -> None:
    loop, other = tmp_path / "loop.npy", tmp_path / "other"
    loop.symlink_to(loop.name)
    other.symlink_to(tmp_path)
    assert absolute(loop) == absolute(other / "loop.npy") == absolute(tmp_path) / "loop.npy"
    check_film_flags(film_flags(files=[str(loop)]), films=False)


def test_a_name_that_no_file_can_have_is_a_place(tmp_path: Path) -> None:
    for name in ("x" * 300, "a\0b"):
        assert absolute(tmp_path / name).name == name


@pytest.mark.parametrize("name", ["nowhere", "loop", "nowhere/inner"])
def test_a_link_to_nothing_is_found_before_the_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    out: Any = tmp_path / name
    for check in (
        lambda: check_replaceable(out, "mark"),
        lambda: check_run(SimpleNamespace(out=str(out))),  # type: ignore[arg-type]
        lambda: atomic_folder(out, "mark").__enter__(),
    ):
        with pytest.raises(UserError, match="is a link that leads to nothing: remove it, or choose another --out"):
            check()


def test_a_folder_in_a_file_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="file is a file, and no folder"):
        check_place(tmp_path / "file" / "inner" / "out")
    check_place(tmp_path / "link" / "new" / "out")
    check_place(tmp_path / "file")  # what is there is told by whoever knows what belongs there


@pytest.mark.parametrize("name", ["x" * 300, "x" * 250, "/".join(["inner"] * 1000)])
def test_a_name_that_is_too_long_is_found_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no file can have so long a name: choose a shorter --out"):
        check_place(tmp_path / name)


def test_a_folder_in_which_nothing_may_be_written_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: str(path) != str(tmp_path))
    with pytest.raises(UserError, match=f"nothing may be written in the folder {tmp_path}: choose another --out"):
        check_place(tmp_path / "new" / "out")
    check_place(tmp_path / "there")  # whether it is replaced is known to others
    check_place(Path("/"))  # which lies in no folder
