"""The seen/unseen gate against a second computation with loops, and against what it must do on separable scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from mmcl.common.errors import UserError
from mmcl.evaluation.gate import Gate, generalised, harmonic_mean


def make_scores(seed: int, per_side: tuple[int, int] = (120, 80), classes: tuple[int, int] = (9, 4), flat: float = 0.3):
    """Both sides answer their own clips mostly right; the classifier is less sure on clips it does not know."""
    rng = np.random.default_rng(seed)
    (n_seen, n_unseen), (S, U) = per_side, classes
    labels = np.concatenate([rng.integers(0, S, n_seen), S + rng.integers(0, U, n_unseen)])
    seen, unseen = rng.normal(size=(len(labels), S)), rng.normal(size=(len(labels), U))
    for clip, label in enumerate(labels):
        if label < S:
            seen[clip, label] += 5.0
        else:
            seen[clip] *= flat
            unseen[clip, label - S] += 2.0
    return seen, unseen, labels


def test_harmonic_mean_is_the_published_arithmetic() -> None:
    assert round(harmonic_mean(62.28, 70.80), 2) == 66.27
    assert harmonic_mean(0.5, 0.5) == 0.5
    assert harmonic_mean(1.0, 0.0) == harmonic_mean(0.0, 0.0) == 0.0


def naive_features(seen: list[float], unseen: list[float], width: int, temperature: float) -> list[float]:
    def highest(scores: list[float]) -> list[float]:
        total = sum(math.exp(score) for score in scores)
        chances = sorted((math.exp(score) / total for score in scores), reverse=True)
        return (chances + [0.0] * width)[:width]

    return highest(unseen) + highest([score / temperature for score in seen])


def test_fit_is_the_grid_search_written_out_in_loops() -> None:
    seen, unseen, labels = make_scores(1, per_side=(60, 60), flat=0.8)
    gate = Gate.fit(seen, unseen, labels)
    truth = [int(label >= 9) for label in labels]
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(np.zeros(len(truth)), truth))
    found = {}
    for temperature in range(1, 10):
        rows = [naive_features(list(a), list(b), 4, temperature) for a, b in zip(seen, unseen, strict=True)]
        chance = [0.0] * len(rows)
        for fitted_on, judged in folds:
            model = LogisticRegression(C=2.0, max_iter=10000)
            model.fit([rows[i] for i in fitted_on], [truth[i] for i in fitted_on])
            for i in judged:
                chance[i] = model.predict_proba([rows[i]])[0, 1]
        for percent in range(25, 75):
            hits = {0: 0, 1: 0}
            for i, label in enumerate(labels):
                answer = 9 + int(unseen[i].argmax()) if chance[i] > percent / 100 else int(seen[i].argmax())
                hits[truth[i]] += answer == label
            a, b = hits[0] / 60, hits[1] / 60
            found[temperature, percent] = 2 * a * b / (a + b)
    best = max(found.values())
    assert found[gate.temperature, round(gate.threshold * 100)] == pytest.approx(best)
    assert gate.calibration["harmonic"] == pytest.approx(best) and gate.clips == 120
    assert gate.temperature == min(t for (t, _), value in found.items() if value == pytest.approx(best))

    other_seen, other_unseen, _ = make_scores(2)
    rows = [naive_features(list(a), list(b), 4, gate.temperature) for a, b in zip(seen, unseen, strict=True)]
    model = LogisticRegression(C=2.0, max_iter=10000).fit(rows, truth)
    rows = [
        naive_features(list(a), list(b), 4, gate.temperature) for a, b in zip(other_seen, other_unseen, strict=True)
    ]
    expected = model.predict_proba(rows)[:, 1] > gate.threshold  # one rule, for fitting and for use
    assert np.array_equal(gate.route(other_seen, other_unseen), expected) and 0 < expected.mean() < 1


def test_where_unseen_clips_leave_the_classifier_flat_both_sides_are_answered() -> None:
    gate = Gate.fit(*make_scores(3))
    seen, unseen, labels = make_scores(4, per_side=(200, 150))
    judged = generalised(seen, unseen, labels, gate)
    assert judged["seen"] > 0 and judged["unseen"] > 0
    assert (
        judged["harmonic"] > 0.5 > 0.0 == harmonic_mean(judged["seen"], 0.0)
    )  # always "seen": nothing unseen is right
    loops = {False: [], True: []}
    for i, to_unseen in enumerate(gate.route(seen, unseen)):
        answer = 9 + unseen[i].argmax() if to_unseen else seen[i].argmax()
        loops[bool(labels[i] >= 9)].append(answer == labels[i])
    assert judged["seen"] == pytest.approx(np.mean(loops[False]))
    assert judged["unseen"] == pytest.approx(np.mean(loops[True]))
    assert judged["unseen_share"] == pytest.approx(np.mean(gate.route(seen, unseen)))


@pytest.mark.parametrize("classes", [(9, 2), (9, 7), (3, 4)])
def test_the_real_run_may_have_other_numbers_of_classes(classes) -> None:
    """Fewer classes than the gate was fitted on: those that are not there have probability 0."""
    gate = Gate.fit(*make_scores(5, classes=(8, 4)))
    seen, unseen, labels = make_scores(6, classes=classes)
    rows = [naive_features(list(a), list(b), 4, gate.temperature) for a, b in zip(seen, unseen, strict=True)]
    assert np.array_equal(gate.route(seen, unseen), gate.model.predict_proba(rows)[:, 1] > gate.threshold)
    assert generalised(seen, unseen, labels, gate)["harmonic"] > 0


def test_the_larger_side_is_drawn_down_to_the_smaller_and_the_draw_is_seeded() -> None:
    scores = make_scores(7, per_side=(300, 30), flat=0.8)
    first, again, other = (Gate.fit(*scores, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.model.coef_, again.model.coef_) and first.clips == first.facts["fitted_on"] == 60
    assert not np.array_equal(first.model.coef_, other.model.coef_)
    # A logistic regression's mean probability is the share of ones it was fitted on, here a half. Fitted on all 330
    # clips, of which 300 are seen ones, it would find "unseen" far too unlikely.
    seen, unseen, labels = scores
    rows = [naive_features(list(a), list(b), 4, first.temperature) for a, b in zip(seen, unseen, strict=True)]
    drawn, all_clips = first.model, LogisticRegression(C=2.0, max_iter=10000).fit(rows, labels >= 9)
    balanced = [
        np.mean([model.predict_proba(rows)[side, 1].mean() for side in (labels < 9, labels >= 9)])
        for model in (drawn, all_clips)
    ]
    assert abs(balanced[0] - 0.5) < 0.1 < 0.5 - balanced[1]


def test_without_a_gate_the_highest_score_of_all_wins() -> None:
    seen, unseen, labels = make_scores(8)
    answers = np.concatenate([seen, unseen], axis=1).argmax(axis=1)
    judged = generalised(seen, unseen, labels, None)
    assert judged["seen"] == pytest.approx((answers == labels)[labels < 9].mean())
    assert judged["unseen"] == pytest.approx((answers == labels)[labels >= 9].mean())
    assert judged["unseen_share"] == pytest.approx((answers >= 9).mean())
    assert judged["harmonic"] == pytest.approx(harmonic_mean(judged["seen"], judged["unseen"]))


def test_mistakes_are_named() -> None:
    seen, unseen, labels = make_scores(9)
    with pytest.raises(UserError, match="120 of seen and 1 of pseudo-unseen"):
        Gate.fit(seen[:121], unseen[:121], labels[:121])
    with pytest.raises(UserError, match="clips of seen and of unseen classes"):
        generalised(seen[:120], unseen[:120], labels[:120], None)
