"""Names in any script: shown by a font that has them, or said once that there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw

from mmcl.common import fonts
from mmcl.data.inspection.drawing import write
from mmcl.evaluation.reporting.pictures import draw_confusion

TWO = {name: fonts._installed()[name] for name in (fonts.USUAL, "STIXGeneral")}  # both come with matplotlib
NOWHERE = "挥"  # in neither


def rare(count: int) -> str:
    """Characters of the second font which the usual one lacks."""
    usual, other = (set(FT2Font(str(TWO[name])).get_charmap()) for name in (fonts.USUAL, "STIXGeneral"))
    return "".join(chr(code) for code in sorted(other - usual) if chr(code).isprintable())[:count]


@pytest.fixture(autouse=True)
def only_two_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fonts, "_installed", lambda: TWO)
    monkeypatch.setattr(fonts, "_TOLD", [])
    fonts._best.cache_clear()
    yield
    fonts._best.cache_clear()


def caption(text: str) -> np.ndarray:
    image = Image.new("L", (200, 40), "white")
    write(ImageDraw.Draw(image), (4, 4), text, 20, "black", 180)
    return np.asarray(image)


def confusion(path: Path, name: str) -> np.ndarray:
    draw_confusion(path, np.array([0, 1, 1]), np.array([0, 1, 0]), [name, "wave"], name)
    return np.asarray(Image.open(path))


def test_each_character_is_drawn_by_a_font_that_has_it(tmp_path: Path, capsys, recwarn) -> None:
    first, second = rare(2)
    assert fonts.families("wave", first + second) == [fonts.USUAL, "STIXGeneral"]
    assert fonts.families("wave", "прыжок", "") == [fonts.USUAL]
    assert not np.array_equal(caption(first), caption(second))  # two boxes would look the same
    assert not np.array_equal(confusion(tmp_path / "a.png", first), confusion(tmp_path / "b.png", second))
    assert not capsys.readouterr().err and not [w for w in recwarn if "Glyph" in str(w.message)]


def test_a_script_without_font_is_said_once_and_drawn_all_the_same(tmp_path: Path, capsys, recwarn) -> None:
    (rows, columns, _), last = confusion(tmp_path / "a.png", NOWHERE).shape, caption(NOWHERE)
    assert rows > 50 and columns > 50 and last.min() < 128  # a box
    assert caption("手坐").min() < 128
    err = capsys.readouterr().err
    assert err.count("warning") == 1 and "no font here has" in err and "Noto" in err
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_a_text_is_cut_where_its_room_ends() -> None:
    ink = np.flatnonzero((caption("W" * 99) < 128).any(axis=0))
    assert 150 < ink.max() <= 184
