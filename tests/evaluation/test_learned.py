"""Clips that a model has learned from: left out where it is judged by text, said aloud where a protocol wants them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from open_runs import WITHHELD

from mmcl.adapt import main as adapt
from mmcl.data.store import open_store
from mmcl.engine.parsing import parse
from mmcl.evaluate import main as evaluate
from mmcl.export import main as export
from mmcl.train import train
from mmcl.zero_shot import main as zero_shot

HALVES = {"dataset": "demo", "train": {"subject": [1, 2]}, "test": {"subject": [3, 4]}}  # the run learned from 1 and 3


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("halves") / "halves.yaml"
    path.write_text(json.dumps({"halves": HALVES}))
    return str(path)


def test_evaluating_on_clips_that_were_trained_on_is_said_and_stays_in_the_report(
    demo_store, halves, tmp_path: Path, capsys
) -> None:
    words = [f"--data.path={demo_store}", "--data.protocol=demo/cross_subject", "--data.workers=0", "--encoder.width=8"]
    words += ["--encoder.depth=3", "--data.batch_size=8", "--preprocess.window=16", "--augmentation.crop_floor=16"]
    words += ["--schedule.epochs=1", "--engine.trackers=[]", f"--out={tmp_path / 'run'}"]
    assert train(parse([*words, "--data.validation={subject: [1]}"])) == 0
    capsys.readouterr()
    for protocol, count in (("demo/cross_subject", 0), (halves, 12)):
        out = tmp_path / f"report-{count}"
        evaluate(["--checkpoint", str(tmp_path / "run"), "--protocol", protocol, "--out", str(out)])
        err, report = capsys.readouterr().err, json.loads((out / "report.json").read_text())
        assert ("has learned from" in err) == bool(count) == bool(report["warning"])
        if count:  # subject 3 of 3 and 4
            assert "of these 24 clips, the model has learned from 12 (trained by demo/cross_subject)" in err
            assert "the model has learned from 12" in (out / "report.md").read_text()
        assert report["learned_from"] == "demo/cross_subject"
        # what was held out of the training side matters there alone
        assert report["held_out"] == ({"subject": [1]} if not count else None)


def test_an_adapted_run_is_not_judged_by_what_it_was_trained_on(open_run, demo_store, halves, tmp_path, capsys) -> None:
    store = open_store(demo_store)
    bundle, classes = tmp_path / "adapted", ",".join(store.class_names[label] for label in (0, WITHHELD[0]))
    adapt(["--checkpoint", str(open_run), "--data", str(demo_store), "--protocol", halves, "--out", str(bundle)])
    provenance = json.loads((bundle / "config.json").read_text())["provenance"]
    assert provenance["data_fingerprint"] == store.fingerprint
    counts = {}
    for path in (open_run, bundle):
        out = tmp_path / f"report-{path.name}"
        zero_shot(["--checkpoint", str(path), "--data", str(demo_store), "--classes", classes, "--out", str(out)])
        counts[path] = json.loads((out / "report.json").read_text())["n"]
    assert counts == {open_run: 2 * 2, bundle: 2}  # subjects 2 and 4; of these, 2 was shown in adaptation
    capsys.readouterr()


def test_sides_that_were_swapped_after_training_are_seen_through(demo_store, tmp_path, capsys) -> None:
    """The protocol file says otherwise now: what was trained on is known by the clips themselves, in a bundle too."""
    rule, sides = tmp_path / "own.yaml", ({"subject": [1, 3]}, {"subject": [2, 4]})
    rule.write_text(json.dumps({"own": {"dataset": "demo", "train": sides[0], "test": sides[1]}}))
    words = [f"--data.path={demo_store}", f"--data.protocol={rule}", "--data.workers=0", "--encoder.width=8"]
    words += ["--encoder.depth=3", "--data.batch_size=8", "--preprocess.window=16", "--augmentation.crop_floor=16"]
    words += ["--schedule.epochs=1", "--engine.trackers=[]", f"--out={tmp_path / 'run'}"]
    assert train(parse(words)) == 0
    assert export(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "bundle")]) == 0
    rule.write_text(json.dumps({"own": {"dataset": "demo", "train": sides[1], "test": sides[0]}}))
    for path in (tmp_path / "run", tmp_path / "bundle"):
        capsys.readouterr()
        out = tmp_path / f"report-{path.name}"
        evaluate(["--checkpoint", str(path), "--data", str(demo_store), "--protocol", str(rule), "--out", str(out)])
        said, report = capsys.readouterr().err, json.loads((out / "report.json").read_text())
        assert "of these 24 clips, the model has learned from 24" in report["warning"] and report["warning"] in said
        assert "has another test side than when the model was trained" in report["note"]
