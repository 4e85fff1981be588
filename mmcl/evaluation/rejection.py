"""Whether a model knows what it does not know: clips of classes that it never saw, and wrong answers, by confidence.

AUROC is how often a clip of a known class has a larger score than one of an unknown class. Risk and coverage: of the
clips that a threshold leaves, which share is answered wrong (Geifman and El-Yaniv, Selective Classification for Deep
Neural Networks, NeurIPS 2017); the area under that curve is AURC, and smaller is better.

Three scores are compared: the largest probability, which the threshold of a bundle is of; energy, the logarithm of the
sum of exponentials of all scores; and the cosine between a clip's feature and the mean feature of the training clips of
the class that it is answered to be, both from the mean of all training clips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.metrics import softmax
from mmcl.evaluation.reporting.pictures import BLUE, GREY, ORANGE, save_figure
from mmcl.evaluation.top1 import Top1, Top1Options
from mmcl.models.graph_model import GraphModel
from mmcl.models.model import Model
from mmcl.models.rejection import read_rejection

CURVE = "risk_coverage.png"


@dataclass(frozen=True)
class RejectOptions:
    """Options of :class:`Reject`.

    Attributes:
        threshold: probability below which an answer counts as none of the classes; None for the one that the bundle
            holds, where it holds one.
    """

    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UserError(f"rejection: threshold is {self.threshold}: it must be a probability")


class Reject(Evaluation):
    """Known classes against those that the protocol withholds, and right answers against wrong ones.

    A protocol that withholds classes has clips of unknown classes; with any other, risk and coverage alone are judged.
    """

    options_type: ClassVar[type] = RejectOptions

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """Metrics of ``top1``, and ``rejection``: auroc (and by energy), aurc, and what the threshold does.

        Raises:
            UserError: as of ``top1``.
        """
        verdict = Top1(Top1Options()).run(model, data, apply)
        scores, unseen = verdict.arrays["scores"], data.sides.unseen
        others = apply(model, unseen) if len(unseen) else np.zeros((0, scores.shape[1]), np.float32)
        stored = read_rejection(model.description.rejection, str(model.path))
        threshold = self.options.threshold
        if threshold is None and stored is not None:
            threshold = stored.threshold
        found = rejection_metrics(scores, verdict.arrays["labels"], others, threshold)
        arrays = {**verdict.arrays, "unseen_scores": others.astype(np.float32)}
        if len(unseen) and not isinstance(model, GraphModel):
            answers = scores.argmax(axis=1), others.argmax(axis=1)
            found["auroc_cosine"] = _auroc(*_cosines(model, data, apply, *answers))
        metrics = {**verdict.metrics, "auroc": found["auroc"], "rejection": found}
        return replace(verdict, metrics=metrics, main="auroc" if len(unseen) else "top1", arrays=arrays)

    def draw(self, verdict: Verdict, folder: Path, store: ClipStore | None) -> list[str]:
        """The curve of risk and coverage, and the numbers in words."""
        found = verdict.metrics["rejection"]
        draw_curve(verdict.arrays["scores"], verdict.arrays["labels"], found["threshold"], folder / CURVE)
        lines = [f"- area under risk and coverage (AURC): {found['aurc']:.4f}"]
        if found["auroc"] is not None:
            by = f"{found['auroc']:.3f} by the largest probability, {found['auroc_energy']:.3f} by energy"
            if found["auroc_cosine"] is not None:
                by += f", {found['auroc_cosine']:.3f} by the cosine with the mean of the class"
            lines.append(f"- known against {found['unknown_clips']} clips of unknown classes, AUROC: {by}")
        if found["threshold"] is not None:
            after = f"{found['known_rejected']:.1%} of the known clips are rejected"
            top1 = f"top-1 with these as wrong {found['top1_after']:.2%}"
            lines.append(f"- at the threshold {found['threshold']:.3f}: {after}, {top1}")
        if found["unknown_rejected"] is not None:
            lines.append(f"- of the clips of unknown classes, {found['unknown_rejected']:.1%} are rejected")
        return ["## None of these", "\n".join(lines), f"![Risk and coverage]({CURVE})"]


def _cosines(
    model: Model, data: Selection, apply: Apply, known: np.ndarray, unknown: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of the judged clips and of those of unknown classes with the mean of the class that each is answered."""
    train, unseen = data.sides.train, data.sides.unseen
    learned = apply(model.features, train)
    labels = data.targets(train, model.class_names)
    means = np.stack([learned[labels == label].mean(axis=0) for label in np.unique(labels)])
    rows = np.searchsorted(np.unique(labels), np.arange(len(model.class_names))).clip(0, len(means) - 1)
    middle = learned.mean(axis=0)
    found = (class_cosines(apply(model.features, clips), means[rows[answers]], middle)
             for clips, answers in ((data.clips, known), (unseen, unknown)))  # fmt: skip
    return next(found), next(found)


def class_cosines(features: np.ndarray, means: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """(n,) cosines of features (n, D) with the means (n, D) of their classes, both from a middle (D,)."""
    one, two = features - middle, means - middle
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return np.asarray((one * two).sum(axis=1) / np.maximum(lengths, 1e-12))


def _auroc(known: np.ndarray, unknown: np.ndarray) -> float | None:
    """How often a known clip has the larger score; None where there is none of either."""
    from sklearn.metrics import roc_auc_score

    if not len(known) or not len(unknown):
        return None
    side = np.concatenate([np.ones(len(known)), np.zeros(len(unknown))])
    return float(roc_auc_score(side, np.concatenate([known, unknown])))


def rejection_metrics(
    scores: np.ndarray, labels: np.ndarray, unknown: np.ndarray, threshold: float | None
) -> dict[str, Any]:
    """Numbers of a rejection.

    Args:
        scores: (n, K) of clips of known classes.
        labels: (n,) their classes.
        unknown: (u, K) of clips of unknown classes; u may be 0.
        threshold: probability below which an answer is rejected; None for no threshold.
    """
    from scipy.special import logsumexp

    sure, wrong = softmax(scores).max(axis=1), scores.argmax(axis=1) != labels
    unsure = softmax(unknown).max(axis=1) if len(unknown) else np.zeros(0)
    energy, other = (logsumexp(each.astype(np.float64), axis=1) for each in (scores, unknown))
    kept = sure >= (0.0 if threshold is None else threshold)
    return {
        "auroc": _auroc(sure, unsure),
        "auroc_energy": _auroc(energy, other),
        "auroc_cosine": None,
        "aurc": float(risks(sure, wrong).mean()),
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


def draw_curve(scores: np.ndarray, labels: np.ndarray, threshold: float | None, path: Path) -> None:
    """Risk over coverage; arguments as of :func:`rejection_metrics`."""
    from matplotlib.figure import Figure

    sure, wrong = softmax(scores).max(axis=1), scores.argmax(axis=1) != labels
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
