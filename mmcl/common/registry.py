"""Named things that are imported only when somebody asks for them.

An encoder, a task or a reader is one file and one line in a registry: ``"name": "module:attribute"``. A package of
somebody else adds entries of its own through an entry-point group of the registry's name (``mmcl.encoders``, …).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any

from mmcl.common.errors import UserError


class Registry(Mapping[str, Any]):
    """Lazy mapping from a name to the object at ``"module:attribute"``.

    Args:
        kind: what the entries are, for messages ("encoder").
        entries: name -> ``"module:attribute"``.
        group: entry-point group in which installed packages may add entries; a name of ours cannot be replaced.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], group: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self._entries = dict(entries)

    @cached_property
    def _others(self) -> dict[str, EntryPoint]:
        """Entries of other packages, by name; read from their metadata, without importing them."""
        found = entry_points(group=self.group) if self.group else ()
        return {point.name: point for point in found if point.name not in self._entries}

    def __getitem__(self, name: str) -> Any:
        if name in self._entries:
            module, attribute = self._entries[name].split(":")
            return getattr(import_module(module), attribute)
        if name in self._others:
            return self._load(self._others[name])
        raise UserError(f"unknown {self.kind} '{name}': choose one of {', '.join(sorted(self))}")

    def _load(self, point: EntryPoint) -> Any:
        """Import an entry of another package.

        Raises:
            UserError: its import fails, since that package is not ours to mend.
        """
        try:
            found = point.load()
        except (Exception, SystemExit) as error:  # whatever their module does when it is imported
            raise self._fault(point, f"cannot be imported ({_said(error)})") from error
        if not isinstance(found, type):
            raise self._fault(point, f"is no class, but {found!r:.60}")
        return found

    def _fault(self, point: EntryPoint, what: str) -> UserError:
        """The error that an entry of another package is to blame for."""
        return UserError(
            f"{self.kind} '{point.name}' of an installed package ({point.value}) {what}: mend or uninstall that package"
        )

    @contextmanager
    def blamed(self, entry: Any) -> Iterator[None]:
        """Name an entry of another package in one line where it fails; what fails in one of ours is ours to mend.

        Args:
            entry: the class whose code runs.

        Raises:
            UserError: it raised what is neither that nor a lack of memory.
        """
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as error:  # whatever their code does
            theirs = next((point for point in self._others.values() if _points_at(point, entry)), None)
            if theirs is None or type(error).__name__ == "OutOfMemoryError":
                raise
            raise self._fault(theirs, f"fails ({_said(error)})") from error

    def name_of(self, entry: Any) -> str:
        """Under which name an entry is registered.

        Raises:
            UserError: under none.
        """
        place = f"{entry.__module__}:{entry.__qualname__}"
        for name, found in self._entries.items():
            if found == place:
                return name
        for name, point in self._others.items():
            if point.value == place or _points_at(point, entry):
                return name
        raise UserError(f"{place} is no registered {self.kind}")

    def __iter__(self) -> Iterator[str]:
        yield from self._entries
        yield from self._others

    def __len__(self) -> int:
        return len(self._entries) + len(self._others)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._others


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _points_at(point: EntryPoint, entry: Any) -> bool:
    """Whether an entry point leads to an object, under whatever name: packages hand classes of their modules on.

    Nothing is imported for that: whoever has the object has had its module imported.
    """
    try:
        return bool(attrgetter(point.attr)(sys.modules[point.module]) is entry)
    except (KeyError, AttributeError, TypeError):
        return False
