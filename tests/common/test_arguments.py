"""Addresses are no names of files here: no folder called ``s3:`` is made, and nothing is looked for at ``http:``."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import mmcl
from mmcl.cli import VERBS
from mmcl.common.arguments import in_path, out_path
from mmcl.common.errors import UserError


@pytest.mark.parametrize(
    "text", ["s3://bucket/x", "gs://b/x", "http://127.0.0.1:1/x", "S3://b", "file://host/x", "abfs+x://b"]
)
def test_addresses_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"is an address; results are written on this machine: .*copy it afterwards"):
        out_path(text)
    with pytest.raises(UserError, match=r"is an address; mmcl does not download it: download it first"):
        in_path(text)


@pytest.mark.parametrize("kind", [out_path, in_path])
def test_places_of_this_machine_are_what_they_were(kind) -> None:
    for text in ("x", "a/b", "/a//b", "C://x", "s3:/x", "12:30.mp4", "-"):
        assert kind(text) == Path(text)
    assert kind("file:///tmp/a%20b") == kind("file://localhost/tmp/a b") == Path("/tmp/a b")
    assert in_path("hf://user/name") == Path("hf://user/name")


@pytest.mark.parametrize("verb", ["prepare", "pose", "export", "show", "check", "train"])
def test_no_verb_writes_to_an_address(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    more = {
        "prepare": ["folder", "--source", "."], "pose": ["clip.mp4"], "export": ["run"], "check": ["store"],
        "show": ["0", "--data", "store"],
        "train": ["--config", "own_joint", "--data.path=store", "--data.protocol=x"],
    }[verb]  # fmt: skip
    with pytest.raises(UserError, match="copy it afterwards"):
        import_module(VERBS[verb][0]).main([*more, "--out", "s3://bucket/x"])
    assert not list(tmp_path.iterdir())


def test_no_option_takes_an_address_for_a_path() -> None:
    found = [
        path.name
        for path in Path(mmcl.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword) and node.arg == "type" and getattr(node.value, "id", "") == "Path"
    ]
    assert not found
