"""A parser that is kept for later configurations remembers none of them."""

from __future__ import annotations

import pytest
from contracts.token_encoder import TokenOptions

from mmcl.common.errors import UserError
from mmcl.encoders import ENCODERS
from mmcl.engine.parsing import parse
from mmcl.engine.train_parser import parser_of, plain

NAMES = {"encoder": "ctrgcn", "task": "supervised"}
DATA = ["--data.path=x", "--data.protocol=y"]


def test_one_is_kept_and_has_no_memory() -> None:
    first = parse(DATA)
    other = parse([*DATA, "--augmentation.rotation=[0.1,0.2,0.3]", "--preprocess.streams=[bone]", "--out=there"])
    with pytest.raises(UserError, match="unrecognized"):
        parse([*DATA, "--encoder.heads=3"])
    assert other.preprocess != first.preprocess
    assert parse(DATA) == first and parse(DATA).text == first.text
    assert parser_of(NAMES) is parser_of(dict(NAMES))


def test_other_defaults_stay_with_their_own() -> None:
    before = parse(DATA)
    changed = parser_of(NAMES, {"optimiser.rate": 0.7})
    assert changed.parse_args(DATA).optimiser.rate == 0.7 != before.optimiser.rate
    assert parse(DATA) == before


def test_help_has_defaults_and_no_marks() -> None:
    words = parser_of(NAMES).format_help()
    assert "channels of the first stage" in words and "default: 64)" in words and "Options of CTRGCN" in words
    assert not any(mark in words for mark in ("``", ":class:", "configuration file", "print_config"))
    assert plain("see ``a.py`` and :class:`~mmcl.b.Name`, :func:`f`") == "see a.py and Name, f"


def test_an_entry_that_is_registered_anew_has_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    before = parser_of(NAMES)
    monkeypatch.setitem(ENCODERS._entries, "ctrgcn", "contracts.token_encoder:TokenEncoder")
    assert parser_of(NAMES) is not before and parse(DATA).encoder == TokenOptions(persons=1)
