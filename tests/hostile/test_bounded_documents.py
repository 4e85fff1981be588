"""YAML and JSON of strangers are read within bounds, or refused in a line."""

from __future__ import annotations

import datetime
import importlib
import sys
import time
from pathlib import Path

import pytest
from yaml.cyaml import CParser

import mmcl
from mmcl.common.bounded_yaml import BoundedLoader
from mmcl.common.documents import parse_json, parse_yaml, read_json, read_yaml
from mmcl.common.errors import UserError


def bomb(levels: int) -> str:
    """Aliases that stand for 10 to the power of ``levels`` values."""
    lines = ["a0: &a0 [" + "x," * 10 + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x: 2001-99-99", "month"),
        ("x: !!int foo", "invalid literal"),
        ("x: !!float foo", "could not convert"),
        ("x: !!timestamp foo", "groupdict"),
        ("x: 1" + "0" * 5000, "5001 characters"),
        ("x: 1" + ":1" * 4000, "8001 characters"),
        ("x: -9223372036854775809", "64 bits"),
        ('x: "a\\0b"', "null character"),
        ("x: " + "[" * 500 + "]" * 500, "deeper than 60"),
        ("x: " + "{a: " * 500 + "}" * 500, "deeper than 60"),
        ("x: " + "[" * 100_000, "deeper than 60|maximum nesting depth"),  # libyaml has one of its own
        (bomb(9), "200000 values"),
        (f"{bomb(8)}\nx: {{<<: *a7}}", "200000 values"),
        ("x: &a [*a]", "inside what it stands for"),
        ("x: &a {b: *a}", "inside what it stands for"),
        ("x: !!python/object/apply:os.system [true]", "constructor"),
        ("? [a, b]\n: c", "unhashable"),
        ("a: b\n--- \nc: d", "single document"),
        ("x: \x07", "not allowed"),
        ("a: 1\nb: {c: 1, d: 2,\n  c: 3}", "'c' is there twice, the second time in line 3"),
        ("x" * (3 << 20), "larger than 2 MiB"),
    ],
)
def test_a_hostile_yaml_is_refused_at_once(text: str, complaint: str) -> None:
    began = time.process_time()
    with pytest.raises(UserError, match=complaint) as error:
        parse_yaml(text, "x.yaml")
    assert time.process_time() - began < 2
    assert str(error.value).startswith("x.yaml: ") and "\n" not in str(error.value) and len(str(error.value)) < 300


def test_what_people_write_is_read_as_pyyaml_reads_it() -> None:
    import yaml

    text = "base: &base {a: 1, b: [1.5, yes, ~, 0x10]}\nother: {<<: *base, c: 2001-09-09}\ntwice: [*base, *base]\n"
    found = parse_yaml(text, "x.yaml")
    merged = "deep: {one: &one {a: 1}, two: &two {<<: *one, a: 2}}\nthree: {<<: *two, a: 3}\n"  # given anew, not twice
    assert parse_yaml(merged, "x.yaml") == yaml.safe_load(merged)
    assert found == yaml.safe_load(text) and found["other"]["c"] == datetime.date(2001, 9, 9)
    assert parse_yaml("", "x.yaml") is None


def test_a_time_is_no_number_of_seconds() -> None:
    read = BoundedLoader("fps: 1:30\nat: 1:30.5\nrate: 30\nshare: .5").get_single_data()
    assert read == {"fps": "1:30", "at": "1:30.5", "rate": 30, "share": 0.5}


def test_without_libyaml_everything_is_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    monkeypatch.delitem(sys.modules, "mmcl.common.bounded_yaml")
    plain = importlib.import_module("mmcl.common.bounded_yaml").BoundedLoader
    assert plain is not BoundedLoader and not issubclass(plain, CParser) and issubclass(BoundedLoader, CParser)
    for path in sorted(Path(mmcl.__file__).parent.rglob("*.yaml")):
        assert plain(text := path.read_text()).get_single_data() == BoundedLoader(text).get_single_data(), path
    with pytest.raises(yaml.YAMLError, match="deeper than 60"):
        plain("[" * 500).get_single_data()


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "{", "nul", "9" * 5000, '"\\ud800', b"\xff\xfe{"])
def test_a_hostile_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(UserError, match=r"x\.json: not JSON"):
        parse_json(text, "x.json")


def test_only_files_of_some_size_are_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="not a file"):
        read_json(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("größe: 1".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(UserError, match="larger than 64 MiB"):
        read_json(tmp_path / "large.json")
