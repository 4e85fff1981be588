"""What several verbs ask of their options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError


def add_model(parser: argparse.ArgumentParser, flag: str = "--checkpoint", required: bool = True) -> None:
    """Ask for a trained model, by its place alone (`mmcl evaluate runs/joint`) or with a flag before it.

    Args:
        parser: gets an argument that is called as the flag is.
        flag: the name that scripts use.
        required: whether the verb does nothing without.
    """
    group, dest = parser.add_mutually_exclusive_group(required=required), flag.removeprefix("--")
    group.add_argument(dest, nargs="?", type=Path, action=_IfGiven, metavar="RUN|BUNDLE",
                       help="run folder (--out of mmcl train), checkpoint or bundle")  # fmt: skip
    group.add_argument(flag, type=Path, metavar="X", help="the same, by name")


class _IfGiven(argparse.Action):
    """Keep a value, but for the None that stands for an argument that is not there: a flag may have said it before."""

    def __call__(
        self, parser: argparse.ArgumentParser, space: argparse.Namespace, value: Any, name: Any = None
    ) -> None:
        """Keep it."""
        if value is not None:
            setattr(space, self.dest, value)


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
