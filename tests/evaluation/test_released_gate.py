"""The gate as SA-DVAE released it: draws, features, regression, choice and answers equal the released scripts'."""

from __future__ import annotations

import numpy as np
import pytest
from golden import load_arrays, load_json

from mmcl.evaluation.released_gate import ReleasedGate, fit_released_gate, gate_features, released_generalised

CASES = {"grid": {}, "fixed": {"temperatures": (2,), "thresholds": np.array([0.5])}}


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    """Name, arrays, and the gate that we fit on their hold-out clips."""
    arrays, facts = load_arrays("sa_dvae", "gate"), load_json("sa_dvae", "gate_config")
    gate = fit_released_gate(
        (arrays["in/val_unseen_zs_probabilities"], arrays["in/val_unseen_seen_logits"]),
        (arrays["in/val_seen_zs_probabilities"], arrays["in/val_seen_seen_logits"]),
        **CASES[request.param], seed=facts["numpy_seed_inside_script"],
    )  # fmt: skip
    return request.param, arrays, gate


def test_the_same_temperature_and_threshold_are_chosen(case):
    name, arrays, gate = case
    assert gate.temperature == arrays[f"{name}/best_temperature"]
    assert gate.threshold == pytest.approx(float(arrays[f"{name}/best_threshold"]))
    assert gate.accuracy == pytest.approx(float(arrays[f"{name}/best_accuracy"]))


def test_the_regression_and_what_it_says_are_the_released_ones(case):
    name, arrays, gate = case
    key = f"{name}/T{int(gate.temperature)}"
    np.testing.assert_allclose(gate.model.coef_, 2 * arrays[f"{key}/coef"], rtol=0, atol=2e-3)
    inputs = arrays["in/test_zs_probabilities"], arrays["in/test_seen_logits"]
    np.testing.assert_allclose(
        gate_features(*inputs, gate.temperature), arrays[f"{name}/test_features"], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(gate.chances(*inputs), arrays[f"{name}/gate_probability_unseen_seen"], atol=1e-4)
    assert np.array_equal(gate.to_seen(*inputs), arrays[f"{name}/routed_to_seen"].astype(bool))


def test_answers_and_accuracies_are_the_released_ones(case):
    name, arrays, gate = case
    answers, found = released_generalised(
        gate, arrays["in/test_zs_probabilities"], arrays["in/test_seen_logits"], arrays["in/test_labels"],
        arrays["in/unseen_ids"], arrays["in/seen_ids"],
    )  # fmt: skip
    assert np.array_equal(answers, arrays[f"{name}/final_prediction"])
    expected = {"seen": "S", "unseen": "U", "harmonic": "H"}
    assert found == pytest.approx({key: float(arrays[f"{name}/{letter}"]) for key, letter in expected.items()})


def test_training_rows_of_every_temperature_are_the_released_ones(case, monkeypatch):
    """Caught where the regression is fitted, so that all draws are compared, those of losing temperatures too."""
    import sklearn.linear_model

    name, arrays, _ = case
    seen = []

    class Recorder(sklearn.linear_model.LogisticRegression):
        def fit(self, x, y):
            seen.append((x, y))
            return super().fit(x, y)

    monkeypatch.setattr(sklearn.linear_model, "LogisticRegression", Recorder)
    fit_released_gate(
        (arrays["in/val_unseen_zs_probabilities"], arrays["in/val_unseen_seen_logits"]),
        (arrays["in/val_seen_zs_probabilities"], arrays["in/val_seen_seen_logits"]), **CASES[name],
    )  # fmt: skip
    compared = 0
    for temperature, (x, y) in zip(CASES[name].get("temperatures", range(1, 10)), seen, strict=True):
        key = f"{name}/T{temperature}"
        if f"{key}/train_x" in arrays:
            np.testing.assert_allclose(x, arrays[f"{key}/train_x"], atol=1e-6)
            assert np.array_equal(y, arrays[f"{key}/train_y"])
            compared += 1
    assert compared


class Fixed:
    """A regression that says what it is told."""

    def __init__(self, unseen: list[float]) -> None:
        self.chances = np.array([unseen, [1 - chance for chance in unseen]]).T

    def predict_proba(self, _: np.ndarray) -> np.ndarray:
        return self.chances


def test_a_threshold_is_applied_to_the_other_side():
    gate = ReleasedGate(1.0, 0.3, Fixed([0.2, 0.4, 0.69, 0.71]), 1.0)
    assert gate.to_seen(np.ones((4, 2)), np.ones((4, 3))).tolist() == [True, True, True, False]


def test_harmonic_mean_of_routed_answers():
    gate = ReleasedGate(1.0, 0.5, Fixed([0.0, 0.0, 1.0, 1.0]), 1.0)
    unseen = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=float)
    logits = np.eye(4)[[0, 2, 0, 0]]
    answers, found = released_generalised(
        gate, unseen, logits, np.array([0, 0, 3, 3]), unseen_ids=np.array([1, 3]), seen_ids=np.array([0, 2])
    )
    assert answers.tolist() == [0, 2, 3, 1] and found == {"seen": 0.5, "unseen": 0.5, "harmonic": 0.5}
