"""What entries of several registries share: a class, its options as a frozen dataclass, and a name."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from mmcl.common.options import build
from mmcl.common.registry import Registry

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing only since Python 3.11


class Method(ABC):
    """An entry of a registry that is made of its options alone: an evaluation, a surgery, an attack, an attribution.

    The base class of a package sets ``registry``. A subclass sets ``options_type`` to its frozen dataclass of options,
    every field with a default, and ``tiny`` to options with which a test runs it in a second.

    Args:
        options: of the subclass.
    """

    registry: ClassVar[Registry]
    options_type: ClassVar[type]
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    def name(self) -> str:
        """Under which it is registered."""
        return self.registry.name_of(type(self))

    @classmethod
    def build(cls, name: str, options: Any = None) -> Self:
        """One by name.

        Args:
            name: a name in the registry of the room.
            options: its own dataclass, or a mapping with any of its fields; None for the defaults.

        Raises:
            UserError: unknown name, or options that are wrong.
        """
        found: Self = build(cls.registry, name, options)
        return found
