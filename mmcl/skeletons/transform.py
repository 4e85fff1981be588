"""What an augmentation is: a class of its own, with its own keys in a recipe and its own random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from mmcl.common.draws import normal, uniform
from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.masks import Skeletons
from mmcl.skeletons.window import Span, Timing


@dataclass(frozen=True)
class Transform:
    """One way of varying training clips: a frozen dataclass whose fields are its keys in a recipe.

    A subclass overrides :meth:`when` or :meth:`apply`, says in ``Attributes:`` what its fields mean, and checks them in
    ``__post_init__`` with :meth:`require`. A joint that is missing stays missing.

    Attributes:
        name: under which it draws its random numbers.
        example: values of its fields with which it changes every clip or nearly so, for tests.
    """

    name: ClassVar[str]
    example: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @property
    def active(self) -> bool:
        """Whether it changes anything, as its fields are."""
        return True

    def when(self, keys: Tensor, span: Span, window: int) -> Span:
        """Choose what of each clip is looked at, before the window is cut."""
        return span

    def apply(self, keys: Tensor, clips: Skeletons, layout: Layout) -> Skeletons:
        """Change the clips, one draw a clip, all its bodies alike; joints are centred (N, M, C, window, V)."""
        return clips

    def check(self, layout: Layout, timing: Timing) -> None:
        """Refuse what cannot be done to clips of a layout.

        Raises:
            UserError: naming the key and what is in the way.
        """

    def require(self, key: str, good: bool, wanted: str) -> None:
        """Refuse a value out of range.

        Raises:
            UserError: naming the key, its value and what it should be.
        """
        if not good:
            raise UserError(f"augmentation.{key} is {getattr(self, key)}: it must be {wanted}")

    def uniform(self, keys: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) random numbers in [0, 1) of its own."""
        return uniform(keys, f"augmentation.{self.name}", shape)

    def signed(self, keys: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) random numbers in [-1, 1) of its own."""
        return 2.0 * self.uniform(keys, shape) - 1.0

    def normal(self, keys: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) standard normal numbers of its own."""
        return normal(keys, f"augmentation.{self.name}", shape)
