"""None of these: thresholds, AUROC and risk-coverage against counts written out; a bundle that holds a threshold."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mmcl.models.rejection as rejection
from mmcl.common.errors import UserError
from mmcl.data.store import open_store
from mmcl.deploy.export import described, rejection_of
from mmcl.encoders.base import build_encoder
from mmcl.evaluation.metrics import softmax
from mmcl.evaluation.rejection import class_cosines, rejection_metrics, risks
from mmcl.models.bundle import describe
from mmcl.models.description import parse_description, read_bundle
from mmcl.models.model import Model
from mmcl.models.rejection import fit_rejection, read_rejection
from mmcl.predict import main as predict
from mmcl.skeletons.preprocess import Preprocess, PreprocessOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))
from making import people, write_small  # noqa: E402


def made_up(n: int, sharpness: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, n)
    scores = rng.normal(size=(n, 6))
    scores[np.arange(n), labels] += sharpness
    return scores, labels


def test_a_threshold_rejects_the_share_it_was_given_and_no_more() -> None:
    scores, labels = made_up(300, 2.0, 0)
    probabilities = softmax(scores)
    right = probabilities.argmax(axis=1) == labels
    for share in (0.0, 0.01, 0.1):
        rule = fit_rejection(probabilities, labels, "p validation", "w", share)
        lost = sum(rule(float(p)) for p in probabilities.max(axis=1)[right])
        assert lost == int(share * right.sum()) and rule.clips == right.sum()
    with pytest.raises(UserError, match="needs 20 or more"):
        fit_rejection(probabilities[:10], labels[:10], "p validation", "w")
    with pytest.raises(UserError, match="share"):
        fit_rejection(probabilities, labels, "p", "w", 1.0)


def test_metrics_are_counts_of_pairs_and_of_the_surest() -> None:
    known, labels = made_up(80, 2.5, 1)
    unknown, _ = made_up(50, 0.5, 2)
    found = rejection_metrics(known, labels, unknown, threshold=0.5)
    sure, unsure = softmax(known).max(axis=1), softmax(unknown).max(axis=1)
    pairs = (sure[:, None] > unsure[None]).mean() + 0.5 * (sure[:, None] == unsure[None]).mean()
    assert found["auroc"] == pytest.approx(pairs)
    by_energy = (np.log(np.exp(known).sum(1))[:, None] > np.log(np.exp(unknown).sum(1))[None]).mean()
    assert found["auroc_energy"] == pytest.approx(by_energy)
    wrong, order = known.argmax(axis=1) != labels, sorted(range(80), key=lambda clip: -sure[clip])
    expected = [sum(wrong[clip] for clip in order[: n + 1]) / (n + 1) for n in range(80)]
    np.testing.assert_allclose(risks(sure, wrong), expected)
    assert found["aurc"] == pytest.approx(np.mean(expected))
    assert found["top1_after"] == pytest.approx(np.mean([p >= 0.5 and not w for p, w in zip(sure, wrong, strict=True)]))
    assert found["unknown_rejected"] == pytest.approx((unsure < 0.5).mean())
    alone = rejection_metrics(known, labels, unknown[:0], None)
    assert alone["auroc"] is None and alone["unknown_rejected"] is None and alone["top1_after"] is None


def test_cosines_are_angles_from_the_middle() -> None:
    rng = np.random.default_rng(3)
    features, means, middle = rng.normal(size=(9, 4)), rng.normal(size=(9, 4)), rng.normal(size=4)
    expected = [
        float(np.dot(f - middle, m - middle) / (np.linalg.norm(f - middle) * np.linalg.norm(m - middle)))
        for f, m in zip(features, means, strict=True)
    ]
    np.testing.assert_allclose(class_cosines(features, means, middle), expected)
    np.testing.assert_allclose(class_cosines(means, means, middle), 1.0)
    assert class_cosines(middle[None], means[:1], middle) == 0


@pytest.fixture(scope="module")
def store(demo_store):
    return open_store(demo_store)


@pytest.fixture(scope="module")
def model(store, demo_store):
    torch.manual_seed(0)
    encoder = build_encoder("ctrgcn", store.layout, len(store.class_names), {"width": 8, "depth": 3, "persons": 1})
    preprocess = Preprocess(store.layout, store.layout, 1, PreprocessOptions(window=8))
    facts = {"data": str(demo_store), "protocol": "demo/cross_subject", "validation": {"subject": [1]}}
    description = describe("ctrgcn", encoder.eval(), preprocess, store.class_names, facts)
    return Model(description, encoder, preprocess)


def test_an_export_sets_the_threshold_on_clips_that_were_held_out(store, model, monkeypatch) -> None:
    monkeypatch.setattr(rejection, "FEWEST", 1)
    rule = rejection_of(model, 0.0)
    held = np.flatnonzero(store.subjects == 1)
    sure = []
    for clip in held:
        with torch.no_grad():
            scores = model(torch.from_numpy(store.joints(clip).copy())[None])[0].double().softmax(-1)
        if int(scores.argmax()) == store.labels[clip]:
            sure.append(float(scores.max()))
    assert rule.clips == len(sure) > 0 and rule.threshold == pytest.approx(min(sure), abs=1e-6)
    assert rule.side == "demo/cross_subject validation"
    kept = Model(model.description.changed(rejection=rule.to_json()), model.encoder, model.preprocess)
    assert described(kept).rejection == rule.to_json()  # exported again, it is the same network's
    with torch.no_grad():
        next(kept.encoder.parameters()).add_(1e-3)
    assert described(kept).rejection is None
    none = replace(model.description, provenance={**model.description.provenance, "validation": None})
    with pytest.raises(UserError, match="held no clips out"):
        rejection_of(Model(none, model.encoder, model.preprocess), 0.01)


def test_predict_says_none_of_these(tmp_path, capsys) -> None:
    write_small(tmp_path / "bundle")
    clip = people(1, 1, 40)[0].numpy()
    np.save(tmp_path / "clip.npy", clip)
    words = [str(tmp_path / "bundle"), str(tmp_path / "clip.npy"), "--json"]
    predict(words)
    plain = json.loads(capsys.readouterr().out)
    assert "none_of_these" not in plain
    probability = plain["predictions"][0]["probability"]
    path = tmp_path / "bundle" / "config.json"
    for threshold, said in ((probability + 0.01, True), (probability - 0.01, False)):
        facts = {"threshold": threshold, "share": 0.01, "clips": 50, "side": "p validation", "weights": "w"}
        path.write_text(json.dumps({**json.loads(path.read_text()), "rejection": facts}))
        predict(words)
        assert json.loads(capsys.readouterr().out)["none_of_these"] is said
        predict(words[:2])
        assert ("none of these (" in capsys.readouterr().out) is said
    predict([*words, "--no-reject"])
    assert json.loads(capsys.readouterr().out) == plain
    content = json.loads(path.read_text())
    assert parse_description(content, "again").to_json()["rejection"] == facts
    for wrong in ({"threshold": 2.0}, {"threshold": "x"}, {"more": 1}):
        path.write_text(json.dumps({**content, "rejection": {**facts, **wrong}}))
        with pytest.raises(UserError, match="rejection"):
            predict(words)
    assert read_rejection(None, "x") is None and read_bundle(tmp_path / "bundle").rejection is not None
