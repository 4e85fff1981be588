"""No module of mmcl needs itself, by whatever way: imports of functions and of type checkers count, too."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mmcl


def imported(source: str, modules: set[str]) -> set[str]:
    """Which of the modules a source text imports, anywhere."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & modules or {node.module}
    return found & modules


def sources() -> dict[str, str]:
    """Name -> text of every module."""
    root = Path(mmcl.__file__).parent
    texts = {}
    for path in root.rglob("*.py"):
        parts = ["mmcl", *path.relative_to(root).with_suffix("").parts]
        texts[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return texts


def order(texts: dict[str, str]) -> list[str]:
    """Modules, each behind those that it imports."""
    return list(
        TopologicalSorter({name: imported(text, {*texts} - {name}) for name, text in texts.items()}).static_order()
    )


def test_a_circle_is_seen() -> None:
    circle = {"a": "def f():\n    from b import c", "b": "if TYPE_CHECKING:\n    import a"}
    with pytest.raises(CycleError):
        order(circle)


def test_there_is_no_circle() -> None:
    texts = sources()
    assert len(order(texts)) == len(texts) > 200
