"""Lines of text as they arrive, from standard input, from a file, or from the end of one that grows."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from mmcl.common.errors import UserError

LONGEST = 1 << 20  # characters of a line; beyond that it is no frame
EVERY = 0.02  # seconds between two looks at a file that grows


def lines_of(source: Path, tail: bool = False) -> Iterator[str]:
    """Lines of standard input (``-``) or of a file until it ends; with ``tail``, what is appended to a file, for ever.

    Raises:
        UserError: no such file, or it holds no text.
    """
    for number, line in enumerate(_lines(source, tail)):
        if number == 0 and "\0" in line:  # later on, a line that is no text costs itself
            raise UserError(f"{source}: this is no text, or it is UTF-16: --follow reads lines of numbers in UTF-8 "
                            "(films are read without it)")  # fmt: skip
        yield line


def _lines(source: Path, tail: bool) -> Iterator[str]:
    if str(source) == "-":
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")  # bytes that are no text cost their own line
        yield from _whole_lines(sys.stdin, waits=False)
        return
    try:
        with open(source, encoding="utf-8-sig", errors="replace") as file:
            yield from _whole_lines(file, waits=tail)
    except OSError as error:
        raise UserError(f"{source}: cannot be followed ({error.strerror})") from error


def _whole_lines(file: TextIO, waits: bool) -> Iterator[str]:
    begun, too_long = "", False
    while True:
        part = file.readline(LONGEST)
        begun = (begun + part)[: LONGEST + 1]  # a line that never ends must not fill the memory
        if part.endswith("\n"):
            if not too_long:
                yield begun.rstrip("\r\n")
            begun, too_long = "", False
        elif len(begun) > LONGEST and not too_long:  # it is said now, since its end may never come
            yield begun
            too_long = True
        elif not part and waits:
            time.sleep(EVERY)
        elif not part:
            if begun and not too_long:
                yield begun
            return
