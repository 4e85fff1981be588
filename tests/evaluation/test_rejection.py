"""None of these: thresholds, AUROC and risk-coverage against counts written out; a bundle that holds a threshold."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mmcl.models.rejection as rejection
from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.rules import Protocol
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore, open_store
from mmcl.deploy.export import described
from mmcl.deploy.rejecting import rejection_of
from mmcl.encoders.building import build_encoder
from mmcl.evaluation.metrics import softmax
from mmcl.evaluation.rejection import check_unknown
from mmcl.evaluation.rejection_numbers import rejection_metrics, risks, values_of
from mmcl.models.bundle import describe, load_bundle
from mmcl.models.clip_set import ClipSet
from mmcl.models.description import parse_description, read_bundle
from mmcl.models.familiarity import Familiarity, directions, write_familiarity
from mmcl.models.model import Model
from mmcl.models.record import Record
from mmcl.models.rejection import FAMILIARITY, fit_rejection, read_rejection
from mmcl.predict import main as predict
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

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
    sure, right = softmax(scores).max(axis=1), scores.argmax(axis=1) == labels
    for share in (0.0, 0.1, 0.3):
        rule = fit_rejection(sure, right, "p validation", "w", share)
        lost = sum(rule(float(p)) for p in sure[right])
        assert lost == int(share * right.sum()) and rule.clips == right.sum()
    with pytest.raises(UserError, match="needs 20 or more"):
        fit_rejection(sure[:10], right[:10], "p validation", "w")
    with pytest.raises(UserError, match="share"):
        fit_rejection(sure, right, "p", "w", 1.0)


def test_a_threshold_of_few_clips_goes_on_where_they_end() -> None:
    """The tail is exponential here, so that the share of other clips that is lost is known."""
    rng, lost, smallest = np.random.default_rng(4), [], []
    for _ in range(500):
        values = 0.9 - rng.exponential(0.02, 90)
        rule = fit_rejection(values, np.ones(90, dtype=bool), "p", "w", 0.005, FAMILIARITY)
        lost.append(np.exp((rule.threshold - 0.9) / 0.02))
        smallest.append(np.exp((values.min() - 0.9) / 0.02))
    assert 0.004 < np.median(lost) < 0.007 and np.mean(lost) < 0.01 < np.mean(smallest)
    low = fit_rejection(np.linspace(0, 0.01, 30), np.ones(30, dtype=bool), "p", "w")
    assert low.threshold == 0  # no probability is less


def test_metrics_are_counts_of_pairs_and_of_the_surest() -> None:
    known, labels = made_up(80, 2.5, 1)
    unknown, _ = made_up(50, 0.5, 2)
    wrong = known.argmax(axis=1) != labels
    values, others = (values_of(np.c_[scores, scores[:, 0]], familiar=True) for scores in (known, unknown))
    found = rejection_metrics(values, wrong, others, "probability", threshold=0.5)
    sure, unsure = softmax(known).max(axis=1), softmax(unknown).max(axis=1)
    pairs = (sure[:, None] > unsure[None]).mean() + 0.5 * (sure[:, None] == unsure[None]).mean()
    assert found["auroc"]["probability"] == pytest.approx(pairs)
    by_energy = (np.log(np.exp(known).sum(1))[:, None] > np.log(np.exp(unknown).sum(1))[None]).mean()
    assert found["auroc"]["energy"] == pytest.approx(by_energy)
    assert found["auroc"]["familiarity"] == pytest.approx((known[:, :1] > unknown[None, :, 0]).mean())
    order = sorted(range(80), key=lambda clip: -sure[clip])
    expected = [sum(wrong[clip] for clip in order[: n + 1]) / (n + 1) for n in range(80)]
    np.testing.assert_allclose(risks(sure, wrong), expected)
    assert found["aurc"]["probability"] == pytest.approx(np.mean(expected))
    assert found["top1_after"] == pytest.approx(np.mean([p >= 0.5 and not w for p, w in zip(sure, wrong, strict=True)]))
    assert found["unknown_rejected"] == pytest.approx((unsure < 0.5).mean())
    nobody = {name: row[:0] for name, row in others.items()}
    alone = rejection_metrics(values, wrong, nobody, "familiarity", None)
    assert alone["auroc"]["energy"] is None and alone["unknown_rejected"] is None and alone["top1_after"] is None


def root(feature: np.ndarray) -> np.ndarray:
    """A feature's direction, number by number."""
    rooted = np.array([math.copysign(math.sqrt(abs(number)), number) for number in feature])
    return rooted / math.sqrt(sum(number**2 for number in rooted))


def test_familiarity_is_the_nearest_clip_of_the_answered_class() -> None:
    rng = np.random.default_rng(3)
    features, known, scores = rng.normal(size=(9, 4)), rng.normal(size=(6, 4)), rng.normal(size=(9, 4))
    labels = np.array([0, 0, 1, 1, 1, 3])  # nothing is known of class 2
    expected = []
    for feature, row in zip(features, scores, strict=True):
        own = [float(np.dot(root(feature), root(known[n]))) for n in range(6) if labels[n] == row.argmax()]
        expected.append(max(own, default=-1.0))
    assert -1.0 in expected and max(expected) > 0
    kept = Familiarity(directions(torch.from_numpy(known)), torch.from_numpy(labels)).double()
    found = kept(torch.from_numpy(features), torch.from_numpy(scores))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    again = kept(torch.from_numpy(3.0 * known), torch.eye(4, dtype=torch.float64)[labels])
    np.testing.assert_allclose(again, 1.0, atol=1e-6)  # a clip that was learned from; lengths do not matter


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
    rule, nothing = rejection_of(model, 0.0, "probability")
    familiar, kept = rejection_of(model, 0.0)
    assert nothing is None and (rule.score, familiar.score) == ("probability", "familiarity")
    train = np.flatnonzero(store.subjects == 3)  # the protocol's other training person
    assert sorted(kept.labels.tolist()) == sorted(store.labels[train].tolist())
    shown = lambda clip: torch.from_numpy(store.joints(clip).copy())[None]  # noqa: E731
    learned = {clip: root(model.features(shown(clip))[0].double().numpy()) for clip in train}
    held, sure, near = np.flatnonzero(store.subjects == 1), [], []
    for clip in held:
        scores = model(shown(clip))[0].double().softmax(-1)
        if (answer := int(scores.argmax())) == store.labels[clip]:
            sure.append(float(scores.max()))
            own = root(model.features(shown(clip))[0].double().numpy())
            near.append(max(float(own @ learned[other]) for other in train if store.labels[other] == answer))
    assert rule.clips == familiar.clips == len(sure) > 0 and rule.threshold == pytest.approx(min(sure), abs=1e-6)
    assert familiar.threshold == pytest.approx(min(near), abs=1e-5)
    assert rule.side == "demo/cross_subject validation"
    kept = Model(model.description.changed(rejection=rule.to_json()), model.encoder, model.preprocess)
    assert described(kept).rejection == rule.to_json()  # exported again, it is the same network's
    with torch.no_grad():
        next(kept.encoder.parameters()).add_(1e-3)
    assert described(kept).rejection is None
    none = replace(model.description, provenance={**model.description.provenance, "validation": None})
    with pytest.raises(UserError, match="held no clips out"):
        rejection_of(Model(none, model.encoder, model.preprocess), 0.01)


def learned_from(model: Model, store: ClipStore, clips: np.ndarray) -> Model:
    """The same model, whose record says that it has learned from these clips."""
    record = Record(store.dataset, trained=ClipSet.of(store, clips), selected=ClipSet())
    return Model(model.description.changed(record=record.to_json()), model.encoder, model.preprocess)


def test_clips_that_a_model_has_learned_from_set_no_threshold(store, model, monkeypatch) -> None:
    monkeypatch.setattr(rejection, "FEWEST", 1)
    held, train = np.flatnonzero(store.subjects == 1), np.flatnonzero(store.subjects == 3)
    assert rejection_of(learned_from(model, store, train), 0.0, "probability")[0].clips
    with pytest.raises(UserError, match=rf"has learned from 2 of the {len(held)} clips .* new to it"):
        rejection_of(learned_from(model, store, np.concatenate([train, held[:2]])), 0.0, "probability")


def test_only_clips_that_were_learned_from_are_familiar(store, model, monkeypatch) -> None:
    """Of a run with few clips a class, the others of the training side are as new as any."""
    monkeypatch.setattr(rejection, "FEWEST", 1)
    few = np.flatnonzero(store.subjects == 3)[::2]
    kept = rejection_of(learned_from(model, store, few), 0.0)[1]
    assert sorted(kept.labels.tolist()) == sorted(store.labels[few].tolist())


def test_classes_that_were_trained_are_not_unknown(store, model) -> None:
    protocol = "own_open"
    rule = Protocol(protocol, store.dataset, {"subject": [1, 3]}, {"subject": [2, 4]}, unseen=[2, 5])
    data = Selection(store, protocol, rule, split(store, rule))
    withheld = {store.class_names[label] for label in data.sides.unseen_classes}
    with pytest.raises(UserError, match=f"was trained on 2 of the 2 classes that {protocol} withholds"):
        check_unknown(model, data)
    known = [name for name in store.class_names if name not in withheld]
    check_unknown(Model(model.description.changed(class_names=known), model.encoder, model.preprocess), data)


def load_bundle_of(path: Path, facts: dict) -> Model:
    """The bundle of a config.json, as if it went by probability."""
    content = path.read_text()
    path.write_text(json.dumps({**json.loads(content), "rejection": facts}))
    model = load_bundle(path.parent)
    path.write_text(content)
    return model


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
    path.write_text(json.dumps({**content, "rejection": {**facts, "score": "familiarity", "threshold": 0.5}}))
    assert predict(words) == 2 and "familiarity.safetensors is missing" in capsys.readouterr().err
    model = load_bundle_of(path, facts)
    own = directions(model.features(torch.from_numpy(clip)[None]))
    label = plain["predictions"][0]["label"]
    for rows, labels, sure in ((own, [label], 1.0), (own, [(label + 1) % 6], -1.0), (-own, [label], -1.0)):
        write_familiarity(path.parent, Familiarity(rows, torch.tensor(labels)))
        predict(words)
        said = json.loads(capsys.readouterr().out)
        assert said["familiarity"] == pytest.approx(sure, abs=1e-5) and said["none_of_these"] is (sure < 0.5)
    for wrong, labels in ((own[:, :-1], [0]), (own, [6]), (own * torch.nan, [0]), (own, [0, 0])):
        write_familiarity(path.parent, Familiarity(wrong, torch.tensor(labels)))
        assert predict(words) == 2 and "familiarity.safetensors is damaged" in capsys.readouterr().err
    assert read_rejection(None, "x") is None and read_bundle(tmp_path / "bundle").rejection is not None
