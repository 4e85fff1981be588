"""Digests of a checkpoint's files, in its ``position.json``: a run goes on from what was saved, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.files import is_file
from mmcl.data.columns import file_digest
from mmcl.engine.position import POSITION, read_position

FILES = "files"  # name -> sha256 (hexadecimal)


def digests(checkpoint: Path) -> dict[str, str]:
    """Of every file that a checkpoint has so far, by name."""
    return {path.name: file_digest(path) for path in sorted(checkpoint.iterdir()) if path.is_file()}


def check_digests(checkpoint: Path) -> bool:
    """Whether the files of a checkpoint are those that were saved.

    Returns:
        False where it does not say, being of an earlier mmcl.

    Raises:
        UserError: one of them is missing or another one; which.
    """
    saved = read_position(checkpoint).get(FILES)
    if saved is None:
        return False
    if not (isinstance(saved, Mapping) and all(map(_is_digest, saved.items()))):
        raise _refusal(checkpoint / POSITION, "is damaged")
    for name, digest in saved.items():
        if not is_file(checkpoint / name):
            raise _refusal(checkpoint / name, "is missing or damaged")
        if file_digest(checkpoint / name) != digest:
            raise _refusal(checkpoint / name, "is damaged: its content is not what was saved")
    return True


def _is_digest(entry: tuple[Any, Any]) -> bool:
    name, digest = entry
    return isinstance(name, str) and isinstance(digest, str) and "/" not in name and "\0" not in name


def _refusal(file: Path, what: str) -> UserError:
    return UserError(f"cannot resume: {file} {what}; put it back, or train anew in another --out")
