"""Measures how well scores tell known clips from unknown ones and right answers from wrong ones, and draws that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.evaluation.metrics import softmax
from mmcl.evaluation.reporting.figures import BLUE, GREY, ORANGE, save_figure
from mmcl.models.rejection import FAMILIARITY, PROBABILITY

ENERGY = "energy"


def values_of(found: np.ndarray, familiar: bool) -> dict[str, np.ndarray]:
    """Score -> (n,) values of clips.

    Args:
        found: (n, K + 1) as :func:`mmcl.deploy.known_clips.judged` gives it.
        familiar: whether the last column says something.
    """
    from scipy.special import logsumexp

    scores = found[:, :-1].astype(np.float64)
    values = {PROBABILITY: softmax(scores).max(axis=1), ENERGY: logsumexp(scores, axis=1)}
    return values | ({FAMILIARITY: found[:, -1].astype(np.float64)} if familiar else {})


def _auroc(known: np.ndarray, unknown: np.ndarray) -> float | None:
    """How often a known clip has the larger score; None where there is none of either."""
    from sklearn.metrics import roc_auc_score

    if not len(known) or not len(unknown):
        return None
    side = np.concatenate([np.ones(len(known)), np.zeros(len(unknown))])
    return float(roc_auc_score(side, np.concatenate([known, unknown])))


def rejection_metrics(
    known: Mapping[str, np.ndarray], wrong: np.ndarray, unknown: Mapping[str, np.ndarray], score: str,
    threshold: float | None,
) -> dict[str, Any]:  # fmt: skip
    """Numbers of a rejection.

    Args:
        known: score -> (n,) values of clips of known classes.
        wrong: (n,) bool, which of them are answered wrong.
        unknown: score -> (u,) values of clips of unknown classes; u may be 0.
        score: that the threshold is of.
        threshold: below which an answer is rejected; None for no threshold.

    Returns:
        ``auroc`` and ``aurc`` by score; the rest is of the one score and its threshold.
    """
    sure, unsure = known[score], unknown[score]
    kept = sure >= (-np.inf if threshold is None else threshold)
    return {
        "score": score,
        "auroc": {name: _auroc(row, unknown[name]) for name, row in known.items()},
        "aurc": {name: float(risks(row, wrong).mean()) for name, row in known.items()},
        "unknown_clips": len(unsure),
        "threshold": threshold,
        "known_rejected": None if threshold is None else float(1 - kept.mean()),
        "top1_after": None if threshold is None else float((kept & ~wrong).mean()),
        "unknown_rejected": float((unsure < threshold).mean()) if threshold is not None and len(unsure) else None,
    }


def risks(sure: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """(n,) share of wrong answers among the surest 1, 2, … n clips."""
    order = np.argsort(-sure, kind="stable")
    return np.asarray(np.cumsum(wrong[order]) / np.arange(1, len(order) + 1))


def draw_curve(sure: np.ndarray, wrong: np.ndarray, threshold: float | None, path: Path) -> None:
    """Risk over coverage of clips by their (n,) values, with the threshold where there is one."""
    from matplotlib.figure import Figure

    curve = risks(sure, wrong)
    figure = Figure(figsize=(6, 3), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.plot(100 * np.arange(1, len(curve) + 1) / len(curve), 100 * curve, color=BLUE)
    axes.axhline(100 * wrong.mean(), color=GREY, linewidth=1, label="all clips")
    if threshold is not None:
        axes.axvline(100 * (sure >= threshold).mean(), color=ORANGE, linewidth=1, label=f"threshold {threshold:.3f}")
    axes.set_xlabel("coverage: clips that are answered, the surest first, %")
    axes.set_ylabel("risk: wrong among these, %")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    save_figure(figure, path)
