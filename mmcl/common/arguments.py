"""What several verbs ask of their options."""

from __future__ import annotations

import argparse
from typing import Any

from mmcl.common.errors import UserError


class AtLeastOne(argparse.Action):
    """A whole number from 1; anything less is a mistake."""

    def __call__(
        self, parser: argparse.ArgumentParser, space: argparse.Namespace, value: Any, name: Any = None
    ) -> None:
        """Check and keep it.

        Raises:
            UserError: it is less.
        """
        if value < 1:
            raise UserError(f"{name} is {value}: it must be at least 1")
        setattr(space, self.dest, value)
