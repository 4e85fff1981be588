"""The two files of a report as they lie on the disk: anybody may have written them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.common.files import exists, is_file
from mmcl.common.limits import bounded_memory

FEW = 3  # names in a message
MOST_BYTES = 256 << 20  # of what scores.npz unpacks to
# What the arrays of a report hold, by numpy's letter for their type: 1.9 is no class, and "no" is no answer.
KINDS = {"scores": ("f", "real numbers"), "labels": ("iu", "whole numbers"), "correct": ("b", "True and False")}


def read_files(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The content of report.json and scores.npz; what unpacks to more than :data:`MOST_BYTES` is refused unread.

    Raises:
        UserError: one of them is missing, damaged or too large.
    """
    packed = folder / "scores.npz"
    if not is_file(packed):  # a pipe would be waited for
        what = "is no file" if exists(packed) else "is missing"
        raise UserError(f"{folder}: damaged report (scores.npz {what}); evaluate the model again")
    try:
        facts = read_json(folder / "report.json")
        with ZipFile(packed) as archive:
            members = archive.infolist()
        if (size := sum(member.file_size for member in members)) > MOST_BYTES:
            raise UserError(f"{packed} unpacks to {size >> 20} MiB; at most {MOST_BYTES >> 20} are read")
        if len({member.filename for member in members}) < len(members):
            raise ValueError("scores.npz holds two arrays of one name")
        with bounded_memory(4 * MOST_BYTES), np.load(packed, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
    except UserError:
        raise
    except Exception as error:  # headers of arrays are Python literals, and archives are damaged in a dozen ways
        raise UserError(f"{folder}: damaged report ({str(error)[:100]}); evaluate the model again") from error
    if not isinstance(facts, dict):
        raise UserError(f"{folder}: damaged report (report.json holds no keys); evaluate the model again")
    return facts, arrays


def check_kinds(arrays: dict[str, np.ndarray]) -> None:
    """Whether scores, labels and answers are what they are called; those that are not there are not missed.

    Raises:
        ValueError: naming the first that is something else.
    """
    for name, (kinds, what) in KINDS.items():
        if name in arrays and arrays[name].dtype.kind not in kinds:
            raise ValueError(f"{name} are {arrays[name].dtype}, and must be {what}")


def names_of(array: np.ndarray, what: str) -> list[str]:
    """The texts of an array.

    Raises:
        ValueError: it is no list of texts, or holds numbers that stand for no character: Python fails on those.
    """
    if array.ndim != 1 or array.dtype.kind != "U":
        raise ValueError(f"{what} are no list of names")
    points = np.ascontiguousarray(array).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    if points.max(initial=0) > sys.maxunicode:
        raise ValueError(f"{what} hold what is no text")
    names: list[str] = array.tolist()
    return names


def some(names: Iterable[str]) -> str:
    """The first names, for a message."""
    names = list(names)
    return ", ".join(names[:FEW]) + (", …" if len(names) > FEW else "")
