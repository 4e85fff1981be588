"""Text of strangers where it is shown: on a terminal, in an error line, in a Markdown page, in a table.

Names of classes, files, joints and tensors come out of files that anybody may have written. What a terminal would obey,
a page would run or a spreadsheet would compute is written so that it is only read.
"""

from __future__ import annotations

import io
import json
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO

LONGEST_NAME = 200  # characters of the name of a class
LONGEST_ID = 500  # characters of that of a clip
LONGEST = 300  # characters of a line that says what is wrong
_JOINERS = "\u200c\u200d"  # which letters of some scripts, and emoji, are put together with
_CURSOR_UP = "\x1b[A"  # how progress bars that stand below each other move
_FOREIGN_LINK = re.compile(r"\]\((?![\w.-]+(?:/[\w.-]+)*\))")  # to anything but a plain relative path
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # and line ends, and what is no text
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, keep: str = "") -> str:
    """Text with control characters, direction marks and bytes that are no text as escapes; blanks become plain ones.

    Args:
        text: of anybody.
        keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep or c in _JOINERS else _escape(c) for c in text)


def with_controls(names: Iterable[str]) -> str | None:
    """The first name, as it can be shown, with a control character or a line end in it; None: there is none.

    Files and pictures cannot be given such names, and lists cannot hold them in a line.
    """
    return next((f"'{printable(name):.60}'" for name in names if _CONTROLS.search(name)), None)


def _escape(character: str) -> str:
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode("ascii")


def one_line(text: str, most: int = LONGEST) -> str:
    """Text in one printable line. Of a longer one the middle is left out: its end says what to do."""
    line = printable(" ".join(text.split()))
    if len(line) <= most:
        return line
    tail = most // 3
    return f"{line[: most - tail - 3]} … {line[-tail:]}"


def json_line(content: Any) -> str:
    """One line of JSON, in plain letters where a stream would write an escape that JSON does not have."""
    line = json.dumps(content, ensure_ascii=False)
    return line if line.isprintable() else json.dumps(content)


def complain(kind: str, text: str) -> None:
    """Print a line such as ``warning: …`` on stderr; ``kind`` is its first word."""
    print(f"{kind}: {one_line(text, LONGEST - len(kind) - 2)}", file=sys.stderr, flush=True)


def safe_page(text: str) -> str:
    """A Markdown page of ours, with names of anybody in it, without tags, and with links to files beside it alone."""
    page = printable(text, keep="\n").replace("<", "&lt;")
    return _FOREIGN_LINK.sub(r"\](", page)


def page_cell(value: Any) -> str:
    """A cell of a Markdown table, in one line, whose bars do not end it."""
    return " ".join(str(value).split()).replace("|", "\\|")


def csv_cell(value: Any) -> Any:
    """A cell of a table that a spreadsheet does not take for a formula; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _like_formula(text) else text


def from_csv_cell(text: str) -> str:
    """What a cell of :func:`csv_cell` was made of."""
    return text[1:] if text.startswith("'") and _like_formula(text) else text


def _like_formula(text: str) -> bool:
    """Whether a text begins as a formula does, or as one behind an apostrophe."""
    return text.lstrip("'").startswith(_FORMULA)


class PrintableStream:
    """A text stream that writes no control characters but line ends and tabs; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; what cannot be encoded is escaped by the stream."""
        pieces = text.split(_CURSOR_UP)
        self._stream.write(_CURSOR_UP.join(printable(piece, keep="\n\r\t") for piece in pieces))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def printable_streams() -> None:
    """From now on, stdout and stderr of this process show what a terminal cannot show, or would obey, as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, PrintableStream(stream))
