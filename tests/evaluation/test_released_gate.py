"""The gate as SA-DVAE released it: draws, features, regression, choice and answers equal the released scripts'."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from golden import load_arrays, load_json

from mmcl.common.errors import UserError
from mmcl.evaluation import released_gate
from mmcl.evaluation.gate import TEMPERATURES, THRESHOLDS
from mmcl.evaluation.released_gate import ReleasedGate, fit_released_gate, gate_features, released_generalised


def settings(name: str) -> dict[str, Any]:
    """Temperatures and thresholds that a case chose from: in a grid the defaults, else what was given."""
    arrays, chosen = load_arrays("sa_dvae", "gate"), load_json("sa_dvae", "gate_config")["summary"][name]
    given = tuple(sorted({int(found[1]) for key in arrays if (found := re.match(rf"{name}/T(\d+)/", key))}))
    if name.startswith("grid"):
        return {} if given == TEMPERATURES else {"temperatures": given}
    return {"temperatures": given, "thresholds": np.array([chosen["threshold"]])}


def fitted(name: str) -> ReleasedGate:
    """The gate that we fit on the hold-out clips of a case."""
    arrays, facts = load_arrays("sa_dvae", "gate"), load_json("sa_dvae", "gate_config")
    return fit_released_gate(
        (arrays["in/val_unseen_zs_probabilities"], arrays["in/val_unseen_seen_logits"]),
        (arrays["in/val_seen_zs_probabilities"], arrays["in/val_seen_seen_logits"]),
        **settings(name), seed=facts["numpy_seed_inside_script"],
    )  # fmt: skip


@cache
def gates() -> dict[str, ReleasedGate]:
    """By name of the case."""
    found = {name: fitted(name) for name in load_json("sa_dvae", "gate_config")["summary"]}
    assert set(found) == {key.partition("/")[0] for key in load_arrays("sa_dvae", "gate")} - {"in"}
    return found


def cases() -> Iterator[tuple[str, dict[str, np.ndarray], ReleasedGate]]:
    """Name, arrays, and our gate."""
    for name, gate in gates().items():
        yield name, load_arrays("sa_dvae", "gate"), gate


def test_the_grid_is_the_released_one():
    assert list(TEMPERATURES) == list(range(1, 10))
    np.testing.assert_allclose(THRESHOLDS, np.arange(25, 75) / 100)


def test_the_same_temperature_and_threshold_are_chosen():
    for name, arrays, gate in cases():
        assert gate.temperature == arrays[f"{name}/best_temperature"], name
        assert gate.threshold == pytest.approx(float(arrays[f"{name}/best_threshold"])), name
        assert gate.accuracy == pytest.approx(float(arrays[f"{name}/best_accuracy"])), name


def test_the_regression_and_what_it_says_are_the_released_ones():
    for name, arrays, gate in cases():
        inputs = arrays["in/test_zs_probabilities"], arrays["in/test_seen_logits"]
        found, expected = gate_features(*inputs, gate.temperature), arrays[f"{name}/test_features"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(
            gate.chances(*inputs), arrays[f"{name}/gate_probability_unseen_seen"], rtol=0, atol=1e-6
        )
        assert np.array_equal(gate.to_seen(*inputs), arrays[f"{name}/routed_to_seen"].astype(bool))


def test_answers_and_accuracies_are_the_released_ones():
    for name, arrays, gate in cases():
        answers, found = released_generalised(
            gate, arrays["in/test_zs_probabilities"], arrays["in/test_seen_logits"], arrays["in/test_labels"],
            arrays["in/unseen_ids"], arrays["in/seen_ids"],
        )  # fmt: skip
        assert np.array_equal(answers, arrays[f"{name}/final_prediction"])
        expected = {"seen": "S", "unseen": "U", "harmonic": "H"}
        assert found == pytest.approx({key: float(arrays[f"{name}/{letter}"]) for key, letter in expected.items()})


def test_every_temperature_has_the_released_rows_and_weights(monkeypatch):
    """Caught where the regression is fitted, so that all are compared, those of losing temperatures too."""
    seen = []

    class Recorder(released_gate.MultinomialRegression):
        def fit(self, x, y):
            seen.append((x, y, super().fit(x, y)))
            return self

    monkeypatch.setattr(released_gate, "MultinomialRegression", Recorder)
    arrays = load_arrays("sa_dvae", "gate")
    for name in load_json("sa_dvae", "gate_config")["summary"]:
        seen.clear()
        fitted(name)
        compared = 0
        for temperature, (x, y, model) in zip(settings(name).get("temperatures", TEMPERATURES), seen, strict=True):
            key = f"{name}/T{temperature}"
            np.testing.assert_allclose(model.coef_, arrays[f"{key}/coef"], rtol=0, atol=1e-6)
            np.testing.assert_allclose(model.intercept_, arrays[f"{key}/intercept"], rtol=0, atol=1e-6)
            if f"{key}/train_x" in arrays:
                np.testing.assert_allclose(x, arrays[f"{key}/train_x"], atol=1e-6)
                assert np.array_equal(y, arrays[f"{key}/train_y"])
                compared += 1
        assert compared, name


def test_the_regression_nears_a_binary_one_of_half_the_penalty_and_stops_before():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = rng.normal(size=(200, 3)) + y[:, None]
    found = released_gate.MultinomialRegression().fit(x, y).predict_proba(x)
    expected = LogisticRegression(C=2, tol=1e-10, max_iter=10000).fit(x, y).predict_proba(x)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.abs(found - expected).max() > 0


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
    with pytest.raises(UserError, match="only one kind is here"):
        released_generalised(gate, unseen, logits, np.array([0, 0, 2, 2]), np.array([1, 3]), np.array([0, 2]))
    assert answers.tolist() == [0, 2, 3, 1] and found == {"seen": 0.5, "unseen": 0.5, "harmonic": 0.5}
