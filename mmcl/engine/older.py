"""Configurations of runs that an earlier mmcl began, in today's keys: what was trained can be used on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcl.common.options import without
from mmcl.models.description_file import current_preprocess

GONE = ("data.sharded", "task.refinement.every")  # keys that there are no more


def without_gone(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A configuration without :data:`GONE`, and which of them it held."""
    found = [key for key in GONE if without(content, {key}) != content]
    return without(content, found), found


def modernised(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a run's ``config.yaml`` with keys that were renamed, joined or taken away since."""
    found = without_gone(content)[0]
    if isinstance(options := found.get("preprocess"), Mapping):
        found["preprocess"] = current_preprocess(options)
    if isinstance(options := found.get("encoder"), Mapping):
        found["encoder"] = {key: value for key, value in options.items() if key != "channels"}  # follows from streams
    return found
