"""Metrics against loops; transfer maps against the specification's arithmetic; reports."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from mmcl.data.preparation.build import prepare
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.store import open_store
from mmcl.errors import UserError
from mmcl.evaluation.metrics import chance, classification_metrics, per_class
from mmcl.evaluation.report import write_report
from mmcl.evaluation.transfer import load_map, mapped_clips, transfer_maps

NAMES = [f"class {k}" for k in range(7)]


@pytest.fixture
def judged() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 200)  # the last class never occurs
    scores = rng.normal(size=(200, 7))
    scores[np.arange(200), labels] += 1.0
    return scores, labels


def test_metrics_equal_loops(judged) -> None:
    scores, labels = judged
    top1 = top5 = 0
    by_class: dict[int, list[bool]] = {}
    for row, label in zip(scores, labels, strict=True):
        order = sorted(range(7), key=lambda k: -row[k])
        top1 += order[0] == label
        top5 += label in order[:5]
        by_class.setdefault(int(label), []).append(order[0] == label)
    found = classification_metrics(scores, labels)
    assert (found["n"], found["correct"]) == (200, top1)
    assert found["top1"] == pytest.approx(top1 / 200) and found["top5"] == pytest.approx(top5 / 200)
    mean = sum(sum(right) / len(right) for right in by_class.values()) / len(by_class)
    assert found["mean_class_accuracy"] == pytest.approx(mean)
    for row in per_class(scores, labels, NAMES):
        right = by_class.get(row["label"], [])
        assert (row["clips"], row["correct"]) == (len(right), sum(right))


def test_chance_is_the_best_constant_answer() -> None:
    assert chance(np.array([0, 0, 0, 1]), 10) == 0.75
    assert chance(np.array([0, 1]), 2) == 0.5


def test_a_report_is_complete_and_joins_by_id(judged, tmp_path) -> None:
    scores, labels = judged
    ids = [f"clip{i}" for i in range(200)]
    facts = {"protocol": "none/test", "data_fingerprint": "f", "checkpoint": "c", "selection": "last epoch"}
    report = write_report(tmp_path / "report", scores, labels, ids, NAMES, facts)
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == report
    assert {
        "protocol",
        "data_fingerprint",
        "checkpoint",
        "selection",
        "n",
        "top1",
        "top5",
        "mean_class_accuracy",
    } <= set(report)
    wrong = list(csv.DictReader((tmp_path / "report" / "wrong.csv").open()))
    assert len(wrong) == report["n"] - report["correct"]
    saved = np.load(tmp_path / "report" / "scores.npz")
    assert saved["ids"].tolist() == ids
    np.testing.assert_allclose(saved["scores"], scores, rtol=1e-6)
    assert (tmp_path / "report" / "confusion.png").read_bytes()[:4] == b"\x89PNG"
    assert "none/test" in (tmp_path / "report" / "report.md").read_text()


def test_a_report_never_replaces_what_is_no_report(judged, tmp_path) -> None:
    scores, labels = judged
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("precious")
    ids = [str(i) for i in range(200)]
    with pytest.raises(UserError, match="holds something else"):
        write_report(tmp_path / "run", scores, labels, ids, NAMES, {"protocol": "p"})
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    for _ in range(2):  # an older report may go
        write_report(tmp_path / "report", scores, labels, ids, NAMES, {"protocol": "p"})


def test_mmcl_utd_mhad_is_191_clips_and_101_of_them_print_52_88(utd_all) -> None:
    rule = load_map("mmcl/utd_mhad")
    clips, labels = mapped_clips(rule, utd_all, [f"A{k + 1}" for k in range(120)])
    assert len(clips) == rule.clips == 191
    pairs = {(int(utd_all.labels[clip]) + 1, int(label)) for clip, label in zip(clips, labels, strict=True)}
    assert pairs == {(3, 22), (6, 95), (7, 62), (24, 8), (25, 7), (27, 79)}  # the specification's table
    scores = np.zeros((191, 120))
    scores[np.arange(191), np.where(np.arange(191) < 101, labels, 0)] = 1.0
    assert f"{classification_metrics(scores, labels)['top1']:.2%}" == "52.88%"


@pytest.fixture(scope="module")
def utd_all(test_data, tmp_path_factory):
    """All 861 takes, skeletons only."""
    root, out = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("out") / "store"
    (root / "Skeleton").symlink_to(test_data / "utd_mhad" / "Skeleton")
    return prepare(UTDMHAD(root), out, workers=2, progress=False).store


def test_a_users_own_map_and_its_mistakes(demo_store, tmp_path) -> None:
    store = open_store(demo_store)
    own = tmp_path / "own.yaml"
    own.write_text("source: mine\ntarget: demo\npairs: {bow: 3, kick: jump}\n")
    clips, labels = mapped_clips(load_map(str(own)), store, ["sit", "run", "jump", "greet"])
    assert len(clips) == 8 and set(labels) == {3, 2}
    with pytest.raises(UserError, match="source class 'jump'"):
        mapped_clips(load_map(str(own)), store, ["sit", "run", "hop", "greet"])
    with pytest.raises(UserError, match="judges 'utd_mhad' clips"):
        mapped_clips(load_map("mmcl/utd_mhad"), store, NAMES)
    own.write_text("pairs: 3")
    with pytest.raises(UserError, match="needs source, target and pairs"):
        load_map(str(own))
    with pytest.raises(UserError, match="choose one of"):
        load_map("no/such")
    assert set(transfer_maps()) == {"demo/kinect_v1", "mmcl/utd_mhad"}
