"""Named things that are imported only when somebody asks for them.

An encoder, a task or a reader is one file and one line in a registry: ``"name": "module:attribute"``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from mmcl.common.errors import UserError


class Registry(Mapping[str, Any]):
    """Lazy mapping from a name to the object at ``"module:attribute"``.

    Args:
        kind: what the entries are, for messages ("encoder").
        entries: name -> ``"module:attribute"``.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} '{name}': choose one of {', '.join(sorted(self._entries))}")
        module, attribute = self._entries[name].split(":")
        return getattr(import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries
