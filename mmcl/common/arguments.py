"""What several verbs ask of their options."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mmcl.common.errors import UserError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # and no drive of Windows, which is one letter


def out_path(text: str) -> Path:
    """The place of a file or folder that is to be written: the ``type`` of an option.

    Raises:
        UserError: an address, of which a ``Path`` would make a folder here that is called ``s3:``.
    """
    return _here(text, "results are written on this machine: name a folder or file here, and copy it afterwards")


def in_path(text: str) -> Path:
    """The place of a file or folder that is to be read, or ``hf://user/name``: the ``type`` of an option.

    Raises:
        UserError: another address.
    """
    return Path(text) if text.startswith("hf://") else _here(text, "mmcl does not download it: download it first, and "
                                                             "name the file or folder here")  # fmt: skip


def _here(text: str, instead: str) -> Path:
    if not _ADDRESS.match(text):
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return Path(unquote(parts.path))
    raise UserError(f"{text} is an address; {instead}")


def add_model(parser: argparse.ArgumentParser, flag: str = "--checkpoint", required: bool = True) -> None:
    """Ask for a trained model, by its place alone (`mmcl evaluate runs/joint`) or with a flag before it.

    Args:
        parser: gets an argument that is called as the flag is.
        flag: the name that scripts use.
        required: whether the verb does nothing without.
    """
    group, dest = parser.add_mutually_exclusive_group(required=required), flag.removeprefix("--")
    group.add_argument(dest, nargs="?", type=in_path, action=_IfGiven, metavar="RUN|BUNDLE",
                       help="run folder (--out of mmcl train), checkpoint or bundle")  # fmt: skip
    group.add_argument(flag, type=in_path, metavar="X", help="the same, by name")


def add_which(parser: argparse.ArgumentParser) -> None:
    """Ask which checkpoint of a run is meant; None where nothing is said, since a bundle and a checkpoint say it."""
    parser.add_argument("--which", choices=("last", "best"), help="checkpoint of a run (default: last)")


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

    least = 1

    def __call__(
        self, parser: argparse.ArgumentParser, space: argparse.Namespace, value: Any, name: Any = None
    ) -> None:
        """Check and keep it.

        Raises:
            UserError: it is less.
        """
        if value < self.least:
            raise UserError(f"{name} is {value}: it must be at least {self.least}")
        setattr(space, self.dest, value)


class NotNegative(AtLeastOne):
    """A whole number from 0."""

    least = 0
