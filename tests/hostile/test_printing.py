"""Names of strangers are shown, and neither obeyed by a terminal, run by a page, nor computed by a spreadsheet."""

from __future__ import annotations

import io
import json
import sys

import pytest

from mmcl.common.errors import UserError, run
from mmcl.common.printing import (
    PrintableStream,
    csv_cell,
    from_csv_cell,
    json_line,
    one_line,
    page_cell,
    printable,
    safe_page,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("wave", "wave"),
        ("größe 蹲下 é", "größe 蹲下 é"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("a\u202eb", "a\\u202eb"),
        ("a\udc80b", "a\\udc80b"),
        ("a\u00a0b", "a b"),
        ("می\u200cروم", "می\u200cروم"),
    ],
)
def test_control_characters_become_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_line_keeps_its_end_which_says_what_to_do() -> None:
    line = one_line("x.yaml: " + "y" * 5000 + "\n\x1b[31m give --layout")
    assert len(line) <= 300 and line.startswith("x.yaml: y") and line.endswith("give --layout") and "\x1b" not in line


def test_an_error_is_one_line_of_300_characters(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise UserError("a\n" * 4000 + "\x1b]0;title\x07: do this")

    with pytest.raises(SystemExit) as left:
        run(fail)
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.count("\n") == 1 and len(said) <= 301
    assert said.startswith("error: a a") and said.endswith(": do this\n") and "\x1b" not in said


def test_a_stream_lets_line_ends_and_progress_bars_through() -> None:
    plain = io.StringIO()
    stream = PrintableStream(plain)
    print("a\tb", "\x1b[31mred\r", file=stream)
    stream.write("\x1b[A\x1b[2J")
    assert plain.getvalue() == "a\tb \\x1b[31mred\r\n\x1b[A\\x1b[2J"


def test_letters_that_a_terminal_lacks_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", narrow)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(SystemExit):
        run(lambda: print("größe 蹲下"))
    assert narrow.buffer.getvalue() == b"gr\\xf6\\xdfe \\u8e72\\u4e0b\n"  # type: ignore[attr-defined]


def test_a_page_holds_no_tags_and_no_links_but_to_its_own_files() -> None:
    page = safe_page(
        f"# {page_cell('a' + chr(10) + '# b')}\n| {page_cell('x|y')} |\n<script>alert(1)</script> "
        "[a](javascript:alert(1)) ![b](http://x/y.png) [c](wrong/01_a.png) [d](/etc/passwd) [e](data:text/html,x)\n"
    )
    assert "<" not in page and "](wrong/01_a.png)" in page and page.count("](") == 6 - 1
    assert page.count("\\](") == 4 and "# a # b\n| x\\|y |\n" in page


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1+2", "@x", "\tx", "\r=x"])
def test_a_cell_is_no_formula(text: str) -> None:
    assert csv_cell(text)[0] not in "=+-@\t\r"
    assert csv_cell("wave") == "wave" and csv_cell(-1) == -1


@pytest.mark.parametrize("text", ["-yt0", "'-yt0", "''=1", "'quoted'", "plain", "", "'"])
def test_a_cell_is_what_it_was_made_of(text: str) -> None:
    assert from_csv_cell(csv_cell(text)) == text


@pytest.mark.parametrize(
    "name", ["soft\u00adhyphen.npy", "c1\u009b31m.npy", "\U000e0001", "größe\u00a0a", "a\nb", "\udcff"]
)
def test_a_line_of_json_is_json_where_a_name_must_be_escaped(name: str) -> None:
    shown = io.StringIO()
    PrintableStream(shown).write(json_line({"file": name}))
    assert json.loads(shown.getvalue()) == {"file": name}
    assert json_line({"name": "größe"}) == '{"name": "größe"}'
