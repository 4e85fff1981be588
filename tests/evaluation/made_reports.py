"""Reports of invented models, written the way real ones are."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np

from mmcl.evaluation.report import write_report
from mmcl.evaluation.top1 import scored

NAMES = [f"class {k}" for k in range(7)]


def invented(seed: int, skill: float = 1.0, clips: int = 200, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Scores (clips, classes) of a model with some skill, and labels; the last class never occurs."""
    labels = np.random.default_rng(0).integers(0, classes - 1, clips)  # the same clips for every model
    scores = np.random.default_rng(seed + 1).normal(size=(clips, classes))
    scores[np.arange(clips), labels] += skill
    return scores, labels


def ids_of(clips: int, prefix: str = "clip") -> list[str]:
    return [f"{prefix}{i:03d}" for i in range(clips)]


def save(
    folder: Path,
    scores: np.ndarray,
    labels: np.ndarray,
    ids: list[str] | None = None,
    order: np.ndarray | None = None,
    names: list[str] | None = None,
    pictures: bool = False,
    **facts: object,
) -> Path:
    """Write a report, its rows in some order; without pictures, which take longer than all the rest, unless asked."""
    ids, order = ids or ids_of(len(labels)), np.arange(len(labels)) if order is None else order
    known = {
        "protocol": "none/test", "split": "test", "data_fingerprint": "f", "data": "nowhere", "stream": "joint",
        "checkpoint": f"runs/{folder.name}/checkpoints/last", "selection": "last epoch", "seed": 0,
    }  # fmt: skip
    names = names or NAMES[: scores.shape[1]]
    with ExitStack() as stack:
        for name in () if pictures else ("draw_confusion", "draw_classes", "draw_reliability"):
            stack.enter_context(patch(f"mmcl.evaluation.report.{name}"))
        verdict = scored(scores[order], labels[order], [ids[i] for i in order], names, {})
        write_report(folder, verdict, known | facts)
    return folder
