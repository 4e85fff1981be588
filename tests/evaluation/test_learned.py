"""Clips that a model has learned from: left out where it is judged by text, said aloud where a protocol wants them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from open_runs import WITHHELD

from mmcl.adapt import main as adapt
from mmcl.common.errors import UserError
from mmcl.data.learned import Lesson, not_learned, overlap, recorded_lessons
from mmcl.data.store import open_store
from mmcl.engine.parsing import parse
from mmcl.evaluate import main as evaluate
from mmcl.train import train
from mmcl.zero_shot import main as zero_shot

HALVES = {"dataset": "demo", "train": {"subject": [1, 2]}, "test": {"subject": [3, 4]}}  # the run learned from 1 and 3


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("halves") / "halves.yaml"
    path.write_text(json.dumps({"halves": HALVES}))
    return str(path)


def test_a_model_is_judged_by_the_test_sides_of_all_it_has_learned_from(demo_store, halves) -> None:
    store = open_store(demo_store)
    own, other = Lesson("demo/cross_subject", store.fingerprint), Lesson(halves, store.fingerprint)
    clips = np.arange(len(store))[::-1]
    for lessons, subjects in (
        ((own,), {2, 4}),
        ((own, other), {4}),
        ((Lesson(halves, "another store"),), {1, 2, 3, 4}),
    ):
        kept, words = not_learned(clips, store, lessons)
        assert {int(store.subjects[clip]) for clip in clips[kept]} == subjects
        assert kept.sum() == np.isin(store.subjects, list(subjects)).sum()
        assert all(lesson.protocol in words for lesson in lessons) or words == "all"
    seen = np.flatnonzero(np.isin(store.subjects, [3, 4]))
    words = overlap(seen, store, (own,))
    count = int((store.subjects == 3).sum())
    assert f"of these {len(seen)} clips, {count} are on the training side of demo/cross_subject" in words
    assert overlap(np.flatnonzero(store.subjects == 4), store, (own, other)) == ""
    prepared_anew = Lesson("demo/cross_subject", "another fingerprint", "demo")
    assert f"{count} are on the training side" in overlap(seen, store, (prepared_anew,))
    kept, words = not_learned(
        clips, store, (prepared_anew,)
    )  # without what trains by that rule, whoever the others are
    assert {int(store.subjects[clip]) for clip in clips[kept]} == {2, 4} and "demo/cross_subject" in words
    others = np.flatnonzero(store.subjects == 4)
    assert not_learned(others, store, (prepared_anew,))[1] == "all"
    assert overlap(seen, store, (Lesson("gone.yaml", "another fingerprint", "demo"),)) == ""  # says nothing of these
    with pytest.raises(UserError, match="none of the 12 clips .* may judge this model"):
        not_learned(np.flatnonzero(store.subjects == 3), store, (own,))
    with pytest.raises(UserError, match="gone.yaml"):
        not_learned(clips, store, (Lesson("gone.yaml", store.fingerprint),))
    assert "cannot be told" in overlap(clips, store, (Lesson("gone.yaml", store.fingerprint),))


def test_what_a_bundle_records_of_itself() -> None:
    adapted = {"protocol": "b/test", "data_fingerprint": "2", "dataset": "b"}
    started = {"checkpoint": "runs/first", "lessons": [["c/test", "3", "c"], ["d/test", "4", None]]}
    written = {"protocol": "a/test", "data_fingerprint": "1", "adapted": adapted, "started_from": started}
    assert recorded_lessons(json.loads(json.dumps(written))) == (
        Lesson("a/test", "1"),
        Lesson("b/test", "2", "b"),
        Lesson("c/test", "3", "c"),
        Lesson("d/test", "4"),
    )
    assert recorded_lessons({"protocol": "a/test", "adapted": None}) == ()


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
            assert "of these 24 clips, 12 are on the training side of demo/cross_subject, which the model has" in err
            assert "12 are on the training side" in (out / "report.md").read_text()
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
