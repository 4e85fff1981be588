"""Places that are links: to themselves, to nowhere, to one another."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmcl.common.files import absolute
from mmcl.deploy.film_flags import check_film_flags


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
