"""Metrics against scikit-learn, loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_reports import NAMES, invented
from sklearn import metrics as reference

from mmcl.evaluation.calibration import calibration
from mmcl.evaluation.metrics import most_confused, per_class, score_metrics


def test_metrics_equal_scikit_learns_and_loops() -> None:
    scores, labels = invented(3)
    predicted = scores.argmax(axis=1)
    assert set(predicted) == set(range(7)) and 6 not in labels  # an absent class is answered: it counts nowhere
    found = score_metrics(scores, labels)
    assert found["n"] == 200 and found["correct"] == sum(a == b for a, b in zip(predicted, labels, strict=True))
    assert found["top1"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found["top5"] == pytest.approx(reference.top_k_accuracy_score(labels, scores, k=5, labels=range(7)))
    in_five = [label in sorted(range(7), key=lambda k: -row[k])[:5] for row, label in zip(scores, labels, strict=True)]
    assert found["top5"] == pytest.approx(np.mean(in_five))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = reference.balanced_accuracy_score(labels, predicted)
    assert found["mean_class_accuracy"] == pytest.approx(balanced)
    by_hand = [np.mean(predicted[labels == k] == k) for k in range(6)]
    assert found["mean_class_accuracy"] == pytest.approx(np.mean(by_hand))


def test_rows_by_class_equal_scikit_learns() -> None:
    scores, labels = invented(4)
    predicted = scores.argmax(axis=1)
    predicted[predicted == 2] = 3  # nothing is ever taken for class 2
    scores = np.eye(7)[predicted]
    matrix = reference.confusion_matrix(labels, predicted, labels=range(7))
    precision = reference.precision_score(labels, predicted, labels=range(7), average=None, zero_division=np.nan)
    recall = reference.recall_score(labels, predicted, labels=range(7), average=None, zero_division=np.nan)
    for k, row in enumerate(per_class(scores, labels, NAMES)):
        assert (row["label"], row["name"], row["clips"], row["correct"]) == (k, NAMES[k], matrix[k].sum(), matrix[k, k])
        for ours, theirs in ((row["recall"], recall[k]), (row["precision"], precision[k])):
            assert ours is None if math.isnan(theirs) else ours == pytest.approx(theirs)
        wrong = {NAMES[j]: n for j, n in enumerate(matrix[k]) if j != k and n}
        assert wrong.get(row["mostly_taken_for"], 0) == max(wrong.values(), default=0)
    assert per_class(scores, labels, NAMES)[6]["recall"] is None is per_class(scores, labels, NAMES)[2]["precision"]
    off = {(i, j): n for i in range(7) for j, n in enumerate(matrix[i]) if i != j and n}
    pairs = most_confused(predicted, labels, 1000)
    assert {(i, j): n for i, j, n, _ in pairs} == off
    assert [n for _, _, n, _ in pairs] == sorted(off.values(), reverse=True)
    assert all(share == pytest.approx(n / matrix[i].sum()) for i, _, n, share in pairs)
    assert most_confused(predicted, labels, 3) == pairs[:3] and most_confused(labels, labels, 3) == []


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0, 60.0])
def test_calibration_equals_a_naive_computation(sharpness: float) -> None:
    scores, labels = invented(5)
    scores = scores * sharpness
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    losses = []
    for row, label in zip(scores, labels, strict=True):
        top = max(row)
        total = math.fsum(math.exp(s - top) for s in row)
        losses.append(math.log(total) - (row[label] - top))
        confidence = 1 / total
        number = next(m for m in range(15) if m / 15 < confidence <= (m + 1) / 15 + 1e-15)
        bins[number].append((confidence, row[label] == top))
    ece = sum(
        len(entries) / 200 * abs(np.mean([right for _, right in entries]) - np.mean([c for c, _ in entries]))
        for entries in bins
        if entries
    )
    found = calibration(scores, labels)
    assert found.ece == pytest.approx(ece) and found.nll == pytest.approx(math.fsum(losses) / 200)
    assert found.counts.tolist() == [len(entries) for entries in bins]
    if sharpness < 10:  # beyond that scikit-learn's clipping shows
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        assert found.nll == pytest.approx(reference.log_loss(labels, probabilities, labels=range(7)))


def test_calibration_has_a_closed_form_for_constant_confidence() -> None:
    logit = math.log(0.7 / 0.1)  # softmax of (logit, 0, 0, 0) is (0.7, 0.1, 0.1, 0.1)
    scores = np.tile([logit, 0, 0, 0], (10, 1))
    found = calibration(scores, np.array([0] * 9 + [1]))
    assert found.ece == pytest.approx(0.9 - 0.7) and found.nll == pytest.approx(
        -(9 * math.log(0.7) + math.log(0.1)) / 10
    )
    assert calibration(scores, np.array([0] * 7 + [1] * 3)).ece == pytest.approx(0)
    assert calibration(np.eye(4) * 1e4, np.arange(4)).nll == 0  # sure and right; nothing overflows


def test_no_skill_is_the_best_constant_answer_or_a_guess() -> None:
    for labels, classes in (([0, 0, 0, 1], 10), ([0, 1], 2), ([4, 4, 1, 4, 0, 1], 5)):
        found = score_metrics(np.zeros((len(labels), classes)), np.array(labels))
        constant = [score_metrics(np.eye(classes)[[k] * len(labels)], np.array(labels)) for k in range(classes)]
        assert found["majority_share"] == max(entry["top1"] for entry in constant)
        assert found["majority_share"] >= found["chance_uniform"] == 1 / classes
