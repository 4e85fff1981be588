"""Numbers a report consists of, from scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmcl.evaluation.calibration import calibration


def softmax(scores: np.ndarray) -> np.ndarray:
    """(n, K) scores -> (n, K) probabilities."""
    from scipy.special import softmax as scipy_softmax

    return scipy_softmax(scores.astype(np.float64), axis=1)


def score_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy figures of one evaluation.

    Args:
        scores: (n, K).
        labels: (n,) in [0, K).

    Returns:
        n, correct, top1, top5 (where K > 5), mean_class_accuracy over the classes that occur; ece and nll, see
        :mod:`mmcl.evaluation.calibration`; and what takes no skill: majority_share, always answering the class that
        most clips show, and chance_uniform, guessing among all K. Fractions of 1.
    """
    from sklearn.metrics import accuracy_score, recall_score, top_k_accuracy_score

    classes, found = scores.shape[1], calibration(scores, labels)
    predicted = scores.argmax(axis=1)
    every = np.arange(classes)
    top5 = float(top_k_accuracy_score(labels, scores, k=5, labels=every)) if classes > 5 else None
    return {
        "n": int(len(labels)),
        "correct": int((predicted == labels).sum()),
        "top1": float(accuracy_score(labels, predicted)),
        "top5": top5,
        "mean_class_accuracy": float(
            recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
        ),
        "majority_share": float(np.bincount(labels).max() / len(labels)),
        "chance_uniform": 1.0 / classes,
        "ece": found.ece,
        "nll": found.nll,
    }


def per_class(scores: np.ndarray, labels: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    """One row a class: clips, correct, recall, precision, and what it was taken for most often.

    Recall is None for a class without clips, precision for one that was never answered.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    every, predicted = np.arange(len(names)), scores.argmax(axis=1)
    precision, recall, _, support = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    matrix = confusion_matrix(labels, predicted, labels=every)
    answered = matrix.sum(axis=0)
    rows = []
    for label, name in enumerate(names):
        wrong = matrix[label].copy()
        wrong[label] = 0
        rows.append(
            {
                "label": label, "name": name, "clips": int(support[label]), "correct": int(matrix[label, label]),
                "recall": float(recall[label]) if support[label] else None,
                "precision": float(precision[label]) if answered[label] else None,
                "mostly_taken_for": names[int(wrong.argmax())] if wrong.any() else "",
            }
        )  # fmt: skip
    return rows


def most_confused(predicted: np.ndarray, labels: np.ndarray, limit: int) -> list[tuple[int, int, int, float]]:
    """Which classes are taken for which others, the most frequent first.

    Args:
        predicted: (n,) answers.
        labels: (n,) true classes.
        limit: at most so many pairs.

    Returns:
        (true class, answered class, clips, share of the true class's clips).
    """
    wrong = predicted != labels
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    clips = np.bincount(labels)
    rows = [(int(t), int(p), int(n), float(n / clips[t])) for (t, p), n in zip(pairs, counts, strict=True)]
    return sorted(rows, key=lambda row: (-row[2], -row[3], row[0], row[1]))[:limit]
