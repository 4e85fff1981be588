"""A gate is fitted on a run that was trained as the judged model was, to the end, on the same clips; else refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from open_runs import PSEUDO, WITHHELD, naive_cosines

from mmcl.common.errors import UserError
from mmcl.data.store import ClipStore, open_store
from mmcl.evaluation import open_vocabulary
from mmcl.evaluation.gate import Gate, harmonic_mean
from mmcl.export import main as export
from mmcl.models.folder import open_model
from mmcl.zero_shot import main

SEEN = [label for label in range(12) if label not in WITHHELD]


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def naive_logits(run: Path, store: ClipStore, clips: np.ndarray) -> np.ndarray:
    """What the classifier says of clips, one at a time."""
    model = open_model(run, layout=store.layout)
    with torch.no_grad():
        return np.stack([model(torch.tensor(store.joints(int(clip)))[None]).numpy()[0] for clip in clips])


@pytest.fixture(scope="module")
def gated(open_run, gate_run) -> dict:
    """The report of the run with the gate."""
    assert main(["--checkpoint", str(open_run), "--gate", str(gate_run)]) == 0
    return report_of(open_run / "report-open-gate-gate_run")


def test_a_gated_judgement_is_the_one_computed_clip_by_clip(gated, open_run, gate_run, demo_store, clip) -> None:
    store = open_store(demo_store)
    trained = [label for label in SEEN if label not in PSEUDO]
    calibration = np.flatnonzero((store.subjects == 3) & ~np.isin(store.labels, WITHHELD))
    order = [*trained, *PSEUDO]
    gate = Gate.fit(
        *(rows[np.argsort(np.isin(store.labels[calibration], PSEUDO), kind="stable")] for rows in (
            naive_logits(gate_run, store, calibration),
            naive_cosines(gate_run, store, calibration, clip, PSEUDO) / 0.1,
            np.array([order.index(label) for label in store.labels[calibration]]),
        ))
    )  # fmt: skip
    facts = gated["gate"]
    assert (facts["calibration_clips"], facts["fitted_on"]) == (len(calibration), 4) == (10, 4)
    assert facts["run"] == str(gate_run / "checkpoints/last")
    for key, value in {**gate.calibration, "temperature": gate.temperature, "threshold": gate.threshold}.items():
        assert facts[key] == pytest.approx(value), key

    clips = np.flatnonzero(np.isin(store.subjects, [2, 4]))
    logits = naive_logits(open_run, store, clips)
    cosines = naive_cosines(open_run, store, clips, clip, WITHHELD) / 0.1
    hits: dict[bool, list[bool]] = {False: [], True: []}
    for row, label in enumerate(store.labels[clips].tolist()):
        to_unseen = gate.route(logits[row : row + 1], cosines[row : row + 1])[0]
        answer = WITHHELD[cosines[row].argmax()] if to_unseen else SEEN[logits[row].argmax()]
        hits[label in WITHHELD].append(answer == label)
    seen, unseen = np.mean(hits[False]), np.mean(hits[True])
    assert gated["generalised"]["seen"] == pytest.approx(seen)
    assert gated["generalised"]["unseen"] == pytest.approx(unseen)
    assert gated["generalised"]["harmonic"] == pytest.approx(harmonic_mean(seen, unseen))


def test_with_and_without_a_gate_are_two_reports_and_both_are_said(gated, open_run, gate_run, capsys) -> None:
    assert main(["--checkpoint", str(open_run)]) == 0
    alone = report_of(open_run / "report-open")
    assert "gate" not in alone and "generalised" not in alone
    assert alone["top1"] == gated["top1"] and alone["generalised_by_text_alone"] == gated["generalised_by_text_alone"]
    assert "gate: none" in capsys.readouterr().out
    assert main(["--checkpoint", str(open_run), "--gate", str(gate_run / "checkpoints/last")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gate: ")]
    assert f"fitted on 4 of 10 calibration clips by {gate_run}" in line
    assert f"threshold {gated['gate']['threshold']:g}" in line
    assert "gate" in (open_run / "report-open-gate-gate_run/report.md").read_text()


def edited(section: str, key: str, value: object) -> Callable[[Path], None]:
    """A change to a run's config.yaml."""

    def edit(run: Path) -> None:
        config = yaml.safe_load((run / "config.yaml").read_text())
        config[section][key] = value
        (run / "config.yaml").write_text(yaml.safe_dump(config))

    return edit


def other_data(run: Path) -> None:
    facts = json.loads((run / "model.json").read_text())
    facts["provenance"]["data_fingerprint"] = "other clips"
    (run / "model.json").write_text(json.dumps(facts))


def unfinished(run: Path) -> None:
    path = run / "checkpoints/last/position.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "complete": False}))


def other_words(run: Path) -> None:
    facts = json.loads((run / "model.json").read_text())
    facts["vocabulary"]["templates"] = ["someone doing this: {name}"]
    (run / "model.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (edited("augmentation", "rotation", 0.2), "augmentation.rotation is 0.2 there and 0.3 here"),
        (edited("data", "validation", {"subject": [3]}), "data.validation.subject is"),
        (edited("schedule", "epochs", 2), "schedule.epochs is 2 there and 1 here"),
        (unfinished, "is not complete: go on with it first"),
        (other_data, "trained on data is other clips there"),
        (other_words, "not trained with the model's texts: the text of"),
    ],
)
def test_a_run_that_was_trained_otherwise_is_refused_before_anything_is_scored(
    open_run, gate_run, tmp_path, monkeypatch, change, complaint
) -> None:
    gate = shutil.copytree(gate_run, tmp_path / "gate")
    change(gate)
    monkeypatch.setattr(open_vocabulary, "open_scores", lambda *_, **__: pytest.fail("scored"))
    with pytest.raises(UserError, match=complaint):
        main(["--checkpoint", str(open_run), "--gate", str(gate)])


def test_what_changes_no_weight_may_differ(open_run, gate_run, tmp_path) -> None:
    gate = shutil.copytree(gate_run, tmp_path / "elsewhere")
    for change in (
        *(edited("data", key, value) for key, value in (("workers", 1), ("eval_batch_size", 3))),
        edited("engine", "log_every", 3),
    ):
        change(gate)
    assert main(["--checkpoint", str(open_run), "--gate", str(gate), "--out", str(tmp_path / "report")]) == 0


def test_another_protocol_s_run_is_no_gate(open_run, gate_run, train_open) -> None:
    with pytest.raises(UserError, match="and no run of .*/gate"):
        main(["--checkpoint", str(open_run), "--gate", str(open_run)])
    own = open_run.parent / "own.yaml"
    with pytest.raises(UserError, match="has no /gate variant"):
        main(["--checkpoint", str(open_run), "--protocol", f"{own}:all_seen", "--gate", str(gate_run)])


def test_a_bundle_is_gated_like_its_run_and_compared_by_what_it_says(gated, open_run, gate_run, tmp_path) -> None:
    bundle = tmp_path / "bundle"
    assert export(["--run", str(open_run), "--out", str(bundle)]) == 0
    words = ["--checkpoint", str(bundle), "--protocol", f"{open_run.parent / 'own.yaml'}:open", "--gate", str(gate_run)]
    words += ["--data", gated["data"], "--out", str(tmp_path / "report")]
    assert main(words) == 0
    report = report_of(tmp_path / "report")
    assert report["gate"] == gated["gate"] and report["generalised"] == gated["generalised"]
    with pytest.raises(UserError, match="is a bundle: the gate is fitted on a run folder"):
        main([*words[:-6], "--gate", str(bundle), *words[-4:]])
    config = json.loads((bundle / "config.json").read_text())
    for key, value in (
        ("epochs", 7), ("data_fingerprint", "other clips"), ("task", "supervised"), ("adapted", "elsewhere"),
        ("started_from", "runs/other"), ("shots", 5),
    ):  # fmt: skip
        changed = {**config, "provenance": {**config["provenance"], key: value}}
        (bundle / "config.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=rf"was not trained as .* was: .*{value} here"):
            main(words)
