"""Configurations of runs that an earlier mmcl began, in today's keys: what was trained can be used on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcl.models.description import current_preprocess


def modernised(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a run's ``config.yaml`` with keys that were renamed, joined or taken away since."""
    found = dict(content)
    if isinstance(options := found.get("preprocess"), Mapping):
        found["preprocess"] = current_preprocess(options)
    if isinstance(options := found.get("encoder"), Mapping):
        found["encoder"] = {key: value for key, value in options.items() if key != "channels"}  # follows from streams
    if isinstance(options := found.get("data"), Mapping):
        found["data"] = {key: value for key, value in options.items() if key != "sharded"}
    return found
