from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mmcl.common.errors import UserError
from mmcl.common.registry import Registry

ENTRY_POINTS = """[mmcl.encoders]
theirs = their_package:Theirs
broken = their_package:Missing
ctrgcn = their_package:Theirs
[mmcl.attacks]
nudge = their_package:Nudge
"""
SCRIPT = """
from mmcl.encoders import ENCODERS
from mmcl.encoders.ctrgcn.network import CTRGCN
from mmcl.common.errors import UserError
assert "theirs" in ENCODERS and "theirs" in list(ENCODERS)
assert ENCODERS["theirs"].marker == "from another package"
assert ENCODERS["ctrgcn"] is CTRGCN, "a name of ours was replaced"
try:
    ENCODERS["broken"]
except UserError as error:
    assert "their_package:Missing" in str(error)
else:
    raise AssertionError("a broken entry was accepted")
from mmcl.attacks import ATTACKS
from mmcl.attacks.base import build_attack
attack = build_attack("nudge", {"epsilon": 0.5})
assert (attack.name, attack.options.epsilon) == ("nudge", 0.5) and "nudge" in ATTACKS
"""
NUDGE = """
from mmcl.attacks.base import Attack
class Nudge(Attack):
    def perturb(self, *_):
        raise NotImplementedError
"""


def test_an_unknown_name_is_told_what_there_is() -> None:
    registry = Registry("shape", {"square": "math:sqrt", "circle": "math:pi"})
    assert list(registry) == ["square", "circle"] and len(registry) == 2
    with pytest.raises(UserError, match="unknown shape 'triangle': choose one of circle, square"):
        registry["triangle"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("raise RuntimeError('needs CUDA')", "RuntimeError: needs CUDA"), ("def broken(:", "SyntaxError: "),
        ("import sys; sys.exit(3)", "SystemExit: 3"), ("1 / 0", "ZeroDivisionError"),
        ("import nothing_of_that_name", "nothing_of_that_name"), ("", "Theirs"),
    ],
)  # fmt: skip
def test_a_package_that_breaks_on_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, words: str
) -> None:
    (tmp_path / "breaking_package.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "breaking_package", raising=False)
    registry = Registry("shape", {}, "mmcl.shapes")
    registry.__dict__["_others"] = {"theirs": EntryPoint("theirs", "breaking_package:Theirs", "mmcl.shapes")}
    with pytest.raises(UserError) as caught:
        registry["theirs"]
    said = str(caught.value)
    assert "shape 'theirs' of an installed package (breaking_package:Theirs) cannot be imported (" in said
    assert words in said and "\n" not in said


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Entries of a package that hands a class of one of its modules on, and has a function among them."""
    (tmp_path / "handing_package.py").write_text("from handing_inner import Theirs\nfunction = len\n")
    (tmp_path / "handing_inner.py").write_text("class Theirs: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("handing_package", "handing_inner"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    registry = Registry("shape", {"square": "mmcl.common.errors:UserError"}, "mmcl.shapes")
    points = {"theirs": "handing_package:Theirs", "function": "handing_package:function"}
    registry.__dict__["_others"] = {name: EntryPoint(name, value, "mmcl.shapes") for name, value in points.items()}
    return registry


def test_a_class_that_is_handed_on_is_known_and_a_function_refused(theirs: Registry) -> None:
    assert theirs.name_of(theirs["theirs"]) == "theirs" and theirs.name_of(UserError) == "square"
    with pytest.raises(
        UserError, match=r"shape 'function' of an installed package \(handing_package:function\) is no cl"
    ):
        theirs["function"]


def test_what_fails_in_another_package_names_it_and_ours_does_not(theirs: Registry) -> None:
    said = r"shape 'theirs' of .* fails \(ValueError: oops second line\): mend or uninstall that package"
    with pytest.raises(UserError, match=said), theirs.blamed(theirs["theirs"]):
        raise ValueError("oops\nsecond line")
    for entry, error in ((UserError, ValueError), (int, ValueError), (theirs["theirs"], MemoryError)):
        with pytest.raises(error), theirs.blamed(entry):
            raise error("x")


def test_an_installed_package_adds_entries(tmp_path: Path) -> None:
    (tmp_path / "their_package.py").write_text('class Theirs:\n    marker = "from another package"\n' + NUDGE)
    facts = tmp_path / "their_package-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(ENTRY_POINTS)
    script = f"import sys; sys.path.append({str(tmp_path)!r})\n" + SCRIPT
    subprocess.run([sys.executable, "-c", script], check=True)
