"""Numbers in JSON: nested lists in which null, [] and NaN are missing, and true and false are no numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmcl.common.errors import BadClip
from mmcl.data.readers.array_order import MOST_PERSONS
from mmcl.data.readers.text_table import number

MOST_NUMBERS = 4  # of a joint


def array_of(content: Any) -> np.ndarray:
    """Nested lists as an array of float64, NaN where a number is null.

    Raises:
        BadClip: something in them is true or false, or text that is no number.
        TypeError, ValueError, OverflowError, RecursionError: they are no array.
    """
    return np.array(_checked(content), dtype=np.float64)


def _checked(content: Any) -> Any:
    """The same, with numbers for the texts in it."""
    if isinstance(content, list):
        kinds = set(map(type, content))
        if kinds.isdisjoint((bool, str, list)):  # numbers and nulls, as most lists are
            return content
        return [_checked(part) for part in content]
    if isinstance(content, bool):
        raise BadClip(f"{str(content).lower()} is no coordinate: a joint is a list of its numbers, or null")
    if isinstance(content, str):
        try:
            return number(content)
        except ValueError:
            raise BadClip(f"not an array of numbers ('{content:.40}' is no number)") from None
    return content


def first_object(content: Any) -> dict[str, Any] | None:
    """The first object in nested lists; None where there is none."""
    while isinstance(content, list) and content:
        content = next((part for part in content if isinstance(part, dict)), content[0])
    return content if isinstance(content, dict) else None


def keys_of(content: dict[str, Any]) -> str:
    """What an object of somebody else's program holds, for a message."""
    return f" (it has {', '.join(f'{key:.20}' for key in list(content)[:4])})" if content else ""


def with_holes(content: Any, joint_count: int) -> Any:
    """Nested lists with NaN for joints, and bodies beside others, that are null, [] or null in all their numbers.

    A hole has the size of the joint or body beside it; only of these is that bounded. What is nothing as a whole
    becomes None.
    """
    if not isinstance(content, list):
        return content
    parts = [with_holes(part, joint_count) for part in content]
    whole = next((part for part in parts if part is not None), None)
    if whole is None:
        return None
    if not isinstance(whole, list):
        return parts
    hole: Any = None
    if len(parts) == joint_count and len(whole) <= MOST_NUMBERS and not isinstance(whole[0], list):
        hole = [np.nan] * len(whole)
    elif len(parts) <= MOST_PERSONS and _is_body(whole, joint_count):
        hole = [[np.nan] * len(whole[0])] * joint_count
    return [hole if part is None else part for part in parts]


def _is_body(part: list[Any], joint_count: int) -> bool:
    """Whether a list holds the joints of one body, as far as its first one tells."""
    first = part[0]
    return len(part) == joint_count and isinstance(first, list) and 0 < len(first) <= MOST_NUMBERS
