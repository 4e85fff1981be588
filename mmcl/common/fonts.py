"""Fonts for pictures: class names and identifiers may be in any script, the usual fonts know a few.

DejaVu Sans comes with matplotlib, the font of small Latin captions with Pillow. Where a text needs more, the machine's
own fonts are looked through for one that has it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.common.printing import complain

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont

USUAL = "DejaVu Sans"
# Looked at first; any other that will do comes after them.
PREFERRED = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Source Han Sans SC", "PingFang SC",
    "Microsoft YaHei", "SimHei", "Hiragino Sans", "Yu Gothic", "Malgun Gothic", "Apple SD Gothic Neo",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans", "Arial Unicode MS",
)  # fmt: skip
_TOLD: list[str] = []  # what the user was told could not be shown; once is enough


def families(*texts: str) -> list[str]:
    """Families that show these texts, for matplotlib, which takes each character from the first that has it."""
    other = _other("".join(texts))
    return [USUAL] if other is None else [USUAL, other[0]]


def pil_font(text: str, size: int) -> Font:
    """A font of Pillow's, ``size`` pixels high, that shows a text."""
    from PIL import ImageFont

    if all(ord(character) < 0x100 or character in "…–" for character in text):
        return ImageFont.load_default(size)
    other = _other(text)
    return ImageFont.truetype(str(_installed()[USUAL] if other is None else other[1]), size)


@contextmanager
def quiet_boxes() -> Iterator[None]:
    """Spare the user a warning for each character that is drawn as a box: it has been said once for all of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _other(text: str) -> tuple[str, Path] | None:
    """Family and file of the font that has most of what the usual one lacks; None where that is nothing."""
    missing = frozenset(map(ord, text)) - _characters(_installed()[USUAL])
    missing = frozenset(code for code in missing if chr(code).isprintable())
    return _best(missing) if missing else None


@cache
def _best(missing: frozenset[int]) -> tuple[str, Path] | None:
    fonts = _installed()
    best, most = None, 0
    for family in [*filter(fonts.__contains__, PREFERRED), *fonts]:
        has = len(missing & _characters(fonts[family]))
        if has > most:
            best, most = (family, fonts[family]), has
        if most == len(missing):
            return best
    if not _TOLD:
        lacking = sorted(missing - _characters(best[1]) if best else missing)
        _TOLD.append("".join(map(chr, lacking[:8])))
        complain(
            "warning", f"no font here has {_TOLD[0]}: pictures show boxes instead (install one for that script, such "
            "as Noto Sans CJK)",
        )  # fmt: skip
    return best


@cache
def _installed() -> dict[str, Path]:
    """File of the upright, regular font of each family that matplotlib finds."""
    from matplotlib.font_manager import fontManager

    def order(font: Any) -> tuple[bool, int, str]:
        weight = font.weight if isinstance(font.weight, int) else 400
        return font.style != "normal", abs(weight - 400), font.fname

    entries = sorted((font for font in fontManager.ttflist if "Last Resort" not in font.name), key=order)
    found: dict[str, Path] = {}
    for font in entries:
        found.setdefault(font.name, Path(font.fname))
    return found


@cache
def _characters(file: Path) -> frozenset[int]:
    """Code points of a font; none where the file cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(file)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
