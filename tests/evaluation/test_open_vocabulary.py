"""Open vocabulary from training to report: a tiny run on some of the demo's classes, judged on the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from open_runs import WITHHELD, naive_cosines

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.store import open_store
from mmcl.evaluation.cycles import CyclesOptions
from mmcl.evaluation.gate import TEMPERATURES, THRESHOLDS
from mmcl.evaluation.open_scores import OpenScores
from mmcl.evaluation.open_vocabulary import OpenVocabularyOptions, _fit_gate, _fit_released
from mmcl.models.folder import open_model
from mmcl.zero_shot import main


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_unseen_classes_are_never_trained_and_judged_by_text_alone(open_run, demo_store, clip, capsys) -> None:
    store = open_store(demo_store)
    assert main(["--checkpoint", str(open_run)]) == 0
    report = report_of(open_run / "report-open")
    saved = np.load(open_run / "report-open/scores.npz")
    assert list(open_model(open_run, layout=store.layout).class_names) == [
        name for label, name in enumerate(store.class_names) if label not in WITHHELD
    ]
    clips = np.array([store.ids.index(name) for name in saved["ids"]])
    assert set(store.labels[clips].tolist()) == set(WITHHELD)
    assert report["n"] == len(clips) == np.isin(store.labels[clips], WITHHELD).sum()
    cosines = naive_cosines(open_run, store, clips, clip, WITHHELD)
    np.testing.assert_allclose(saved["scores"] * 0.1, cosines, atol=2e-5)
    right = np.array(WITHHELD)[cosines.argmax(1)] == store.labels[clips]
    assert report["top1"] == pytest.approx(right.mean())
    assert report["trained_classes"] == [n for k, n in enumerate(store.class_names) if k not in WITHHELD]
    assert report["unseen_classes"] == [store.class_names[k] for k in WITHHELD]
    assert report["majority_share"] == report["chance_uniform"] == 0.5
    printed = capsys.readouterr().out
    for line in (
        f"never trained: {', '.join(report['unseen_classes'])}\n", f"texts: {report['texts']}\n", "gate: none",
        "harmonic mean", "most frequent class 50.00%, guessing 50.00%",
    ):  # fmt: skip
        assert line in printed
    page = (open_run / "report-open/report.md").read_text()
    assert "50.00% by always answering the class that most of these clips show, 50.00% by guessing among the 2" in page


def test_classes_by_name_in_any_order(open_run, demo_store, tmp_path, capsys) -> None:
    names = ["squat", "wave a hand", "swim"]
    for number, order in enumerate((names, names[::-1])):
        words = ["--data", str(demo_store), "--classes", ",".join(order), "--out", str(tmp_path / str(number))]
        assert main(["--checkpoint", str(open_run), *words]) == 0
    a, b = (report_of(tmp_path / str(number)) for number in (0, 1))
    assert a["correct"] == b["correct"] and a["n"] == b["n"]
    scores = [np.load(tmp_path / f"{number}/scores.npz")["scores"] for number in (0, 1)]
    np.testing.assert_allclose(scores[0], scores[1][:, ::-1], atol=1e-5)
    store = open_store(demo_store)
    withheld = {store.class_names[label] for label in WITHHELD}
    assert a["trained_classes"] == [name for name in names[:2] if name not in withheld]
    assert a["unseen_classes"] == [name for name in names if name not in a["trained_classes"]]
    assert f"never trained: {', '.join(a['unseen_classes'])}\n" in capsys.readouterr().out
    test = {store.ids[clip] for clip in split(store, load_protocol("demo/cross_subject")).test}
    assert set(np.load(tmp_path / "0/scores.npz")["ids"].tolist()) <= test and "test side" in a["clips"]


def test_other_classes_and_another_checkpoint_get_folders_of_their_own(open_run, demo_store, tmp_path) -> None:
    run = shutil.copytree(open_run, tmp_path / "run", ignore=shutil.ignore_patterns("report*"))
    shutil.copytree(run / "checkpoints/last", run / "checkpoints/best")
    common = ["--checkpoint", str(run), "--data", str(demo_store)]
    for classes in ("Squat,  wave a hand", "squat,bow", "squat,wave a hand"):
        assert main([*common, "--classes", classes]) == 0
    folders = sorted(path.name for path in run.glob("report*"))
    assert len(folders) == 3 and all(name.startswith("report-classes-squat-and-1-") for name in folders)
    main([*common, "--classes", "squat,bow"])
    assert sorted(path.name for path in run.glob("report*")) == folders  # and always the same ones
    assert main([*common, "--which", "best"]) == 0
    assert report_of(run / "report-open-best")["checkpoint"].endswith("best")


def test_a_side_without_a_clip_in_this_store_is_named(open_run) -> None:
    own = open_run.parent / "own.yaml"
    with pytest.raises(UserError, match="finds no test clip of its withheld classes in .*: nothing can be judged"):
        main(["--checkpoint", str(open_run), "--protocol", f"{own}:all_seen"])
    with pytest.raises(UserError, match="finds no test clip of a trained class in"):
        main(["--checkpoint", str(open_run), "--protocol", f"{own}:all_unseen"])


@pytest.mark.parametrize(
    ("protocol", "complaint"),
    [
        ("utd_mhad/open_22_5/99", r"'utd_mhad/open_22_5' has no draw '99': it has 0 … 29"),
        ("utd_mhad/open_22_5/x", r"has no draw 'x': it has 0 … 29"),
        ("utd_mhad/open_22_5", "is 30 random draws: choose one"),
        ("nowhere/own.yaml", r"nowhere/own.yaml: no such file"),
        ("nowhere/own.yaml:open", r"nowhere/own.yaml: no such file"),
        ("no/such", "no zero-shot protocol 'no/such': look at --list-protocols"),
        ("demo/cross_subject", "withholds no class"),
    ],
)
def test_a_mistyped_protocol_keeps_its_message(open_run, protocol, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        main(["--checkpoint", str(open_run), "--protocol", protocol])


def test_clips_that_were_trained_on_are_counted_here_too(open_run, tmp_path, capsys) -> None:
    sides = {"dataset": "demo", "train": {"subject": [2, 4]}, "test": {"subject": [1, 3]}}
    rule = {"swapped": {"dataset": "demo", "base": "sides", "unseen": WITHHELD}, "sides": sides}
    (tmp_path / "swapped.yaml").write_text(json.dumps(rule))
    words = ["--checkpoint", str(open_run), "--protocol", str(tmp_path / "swapped.yaml")]
    assert main([*words, "--out", str(tmp_path / "report")]) == 0
    warning = report_of(tmp_path / "report")["warning"]
    assert "of these 24 clips, the model has learned from 20" in warning and warning in capsys.readouterr().out


def test_a_control_says_so(train_open, capsys) -> None:
    run = train_open("control", "--data.shuffle_texts=true")
    capsys.readouterr()
    assert main(["--checkpoint", str(run)]) == 0
    assert "every class was given the text of another one" in report_of(run / "report-open")["control"]
    assert "control: every class was given the text of another one\n" in capsys.readouterr().out


def test_models_that_know_no_text_or_saw_the_classes_are_refused(open_run, train_open, demo_store) -> None:
    plain = train_open("plain", "--data.protocol=demo/cross_subject")
    with pytest.raises(UserError, match="not the seen ones"):
        main(["--checkpoint", str(plain), "--protocol", f"{open_run.parent / 'own.yaml'}"])
    with pytest.raises(UserError, match="no clip of"):
        main(["--checkpoint", str(plain), "--data", str(demo_store), "--classes", "ski,swim"])
    alone = train_open("alone", "--data.protocol=demo/cross_subject", "--task.text.weight=0")
    with pytest.raises(UserError, match="no projection into a space of texts"):
        main(["--checkpoint", str(alone), "--data", str(demo_store), "--classes", "squat,bow"])
    with pytest.raises(UserError, match="--gate belongs to a protocol that withholds classes"):
        main(["--checkpoint", str(alone), "--protocol", "demo/kinect_v1", "--gate", str(plain)])


def test_a_released_gate_needs_as_many_seen_classes_as_it_looks_at() -> None:
    """Else its regression would be fitted on fewer numbers than it is asked about."""
    n, rng = 30, np.random.default_rng(0)
    labels, both = np.arange(n) % 5, rng.normal(size=(n, 5))
    few = OpenScores(np.arange(n), labels, rng.normal(size=(n, 2)), both, rng.normal(size=(n, 3)), list("abcde"), {})
    with pytest.raises(UserError, match="2 seen and 3 pseudo-unseen classes: leave out --released-gate"):
        _fit_released(few, OpenVocabularyOptions())


@pytest.mark.parametrize("fit", [_fit_gate, _fit_released])
@pytest.mark.parametrize(
    "given", [{"temperature": 2.5, "threshold": 0.455}, {"temperature": 2.5}, {"threshold": 0.455}, {}]
)
def test_a_fixed_gate_chooses_nothing(fit, given) -> None:
    """What is not given is chosen; temperature and threshold that the grid has not show that it is not looked at."""
    n, rng = 60, np.random.default_rng(0)
    labels, both = np.arange(n) % 5, rng.normal(size=(n, 5))
    seen, unseen = both[:, :3] + 2 * np.eye(5)[labels][:, :3], both[:, 3:] + 2 * np.eye(5)[labels][:, 3:]
    scores = OpenScores(np.arange(n), labels, seen, both, unseen, list("abcde"), {})
    judge, facts = fit(scores, OpenVocabularyOptions(**given))
    assert {key: facts[key] for key in given} == given
    assert "temperature" in given or facts["temperature"] in TEMPERATURES
    assert "threshold" in given or facts["threshold"] in THRESHOLDS
    assert 0 <= judge(scores)["harmonic"] <= 1


def test_a_fixed_gate_out_of_range_or_without_a_run_is_refused(open_run) -> None:
    for options in (OpenVocabularyOptions, CyclesOptions):
        with pytest.raises(UserError, match="its temperature, which is 0: it must be above 0"):
            options(temperature=0)
        with pytest.raises(UserError, match="a gate's threshold is a probability, and 50 is none"):
            options(threshold=50)
    with pytest.raises(UserError, match="--gate-threshold needs --gate"):
        main(["--checkpoint", str(open_run), "--gate-threshold", "0.5"])
