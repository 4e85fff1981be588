"""Numbers a report consists of, from scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np


def softmax(scores: np.ndarray) -> np.ndarray:
    """(n, K) scores -> (n, K) probabilities."""
    from scipy.special import softmax as scipy_softmax

    return scipy_softmax(scores.astype(np.float64), axis=1)


def classification_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy figures of one evaluation.

    Args:
        scores: (n, K).
        labels: (n,) in [0, K).

    Returns:
        n, correct, top1, top5 (where K > 5), mean_class_accuracy over the classes that occur; fractions of 1.
    """
    from sklearn.metrics import accuracy_score, recall_score, top_k_accuracy_score

    classes = scores.shape[1]
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
    }


def per_class(scores: np.ndarray, labels: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    """One row a class: clips, correct, recall, precision, and what it was taken for most often."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    every, predicted = np.arange(len(names)), scores.argmax(axis=1)
    precision, recall, _, support = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    matrix = confusion_matrix(labels, predicted, labels=every)
    rows = []
    for label, name in enumerate(names):
        wrong = matrix[label].copy()
        wrong[label] = 0
        rows.append(
            {
                "label": label, "name": name, "clips": int(support[label]), "correct": int(matrix[label, label]),
                "recall": float(recall[label]), "precision": float(precision[label]),
                "mostly_taken_for": names[int(wrong.argmax())] if wrong.any() else "",
            }
        )  # fmt: skip
    return rows


def chance(labels: np.ndarray, classes: int) -> float:
    """Accuracy of always answering the most frequent class among ``labels``, at least 1 / K."""
    return max(float(np.bincount(labels, minlength=classes).max()) / len(labels), 1.0 / classes)
