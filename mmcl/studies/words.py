"""Values of a study file as words of a command line, and what stands in braces in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DRAW, SEED = "{draw}", "{seed}"  # in a value of a study file: the number of the draw, the seed of the run
PROTOCOL = "{protocol}"  # in a value of an arm or of judge_on: data.protocol as it holds for the whole study
PROTOCOL_KEY = "data.protocol"


def in_words(value: Any) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def numbered(word: str, seed: int, draw: int | None) -> str:
    """A word of a study file for one of its runs."""
    return word.replace(DRAW, str(draw)).replace(SEED, str(seed))


def builds_on_protocol(settings: Mapping[str, Any]) -> bool:
    """Whether an arm's protocol is made from the study's own, as ``{protocol}/stream-3/0`` is."""
    return PROTOCOL in in_words(settings.get(PROTOCOL_KEY, ""))
