"""Continual learning is judged from the checkpoints of a run; its numbers are those of closed forms and releases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden import load_json

from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.data.store import open_store
from mmcl.engine.parsing import parse
from mmcl.evaluate import main as evaluate
from mmcl.evaluation.base import build_evaluation, make_apply
from mmcl.evaluation.continual import kept_checkpoints
from mmcl.evaluation.judging import select
from mmcl.evaluation.stream_matrix import part_accuracies, stream_metrics
from mmcl.models.folder import find_model, open_model
from mmcl.train import train

RUN = [
    "--data.protocol=demo/stream_3x4", "--data.batch_size=8", "--data.workers=0", "--preprocess.window=16",
    "--augmentation.crop_floor=16", "--encoder.name=ctrgcn", "--encoder.width=8", "--encoder.depth=3",
    "--task.name=continual", "--task.method=charon", "--task.memory=3", "--task.interval=2", "--task.probe_epochs=1",
    "--schedule.epochs=1", "--schedule.warmup_epochs=0", "--engine.trackers=[]",
]  # fmt: skip


@pytest.fixture(scope="module")
def streamed(demo_store, tmp_path_factory) -> Path:
    """A run of three parts of four classes."""
    out = tmp_path_factory.mktemp("streamed") / "run"
    assert train(parse([*RUN, f"--data.path={demo_store}", f"--out={out}"])) == 0
    return out


def test_numbers_of_the_released_code() -> None:
    found = load_json("charon", "metrics")
    rows = found["results"]
    matrix = np.zeros((len(rows), len(rows)))  # the release pads what it has not measured with zeros
    for number, row in enumerate(rows):
        matrix[number, : len(row)] = row
    got = stream_metrics(matrix, np.array(found["random_results"]), released=True)
    names = {"final_average_accuracy": "final_average", "backward_transfer": "backward_transfer",
             "forward_transfer": "forward_transfer", "forgetting": "forgetting"}  # fmt: skip
    for theirs, ours in names.items():
        assert got[ours] == pytest.approx(found[theirs], rel=1e-12)


def test_forgetting_looks_from_the_parts_own_row_to_the_last_but_one() -> None:
    matrix = np.array([[0.5, 0.9, 0.0], [0.7, 0.6, 0.0], [0.8, 0.3, 0.9]])
    got = stream_metrics(matrix)
    # Part 1 was best after part 2 (0.7) and gained since; part 2's 0.9 was luck before it was learned.
    assert got["forgetting"] == pytest.approx(((0.7 - 0.8) + (0.6 - 0.3)) / 2)
    assert stream_metrics(matrix, released=True)["forgetting"] == pytest.approx((0.0 + (0.9 - 0.3)) / 2)
    assert got["final_average"] == pytest.approx(2 / 3)
    assert got["average_incremental"] == pytest.approx((0.5 + 0.65 + 2 / 3) / 3)
    assert got["backward_transfer"] == pytest.approx((0.3 - 0.3) / 2) and got["forward_transfer"] is None


def test_all_parts_at_once_forget_nothing() -> None:
    got = stream_metrics(np.array([[0.5, 1.0, 0.75]]), np.zeros(3))
    assert got["final_average"] == got["average_incremental"] == 0.75
    assert got["forgetting"] is got["backward_transfer"] is got["forward_transfer"] is None


def test_accuracy_by_part_is_counted_clip_by_clip() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 6)), rng.integers(0, 6, 200)
    parts = (np.array([4, 1]), np.array([0, 2, 3]), np.array([5]))
    free, told = part_accuracies(scores, labels, parts)
    for number, part in enumerate(parts):
        own = [clip for clip in range(200) if labels[clip] in part]
        answers = [max(part, key=lambda output, clip=clip: scores[clip, output]) for clip in own]
        assert told[number] == np.mean([answer == labels[clip] for clip, answer in zip(own, answers, strict=True)])
        assert free[number] == np.mean([np.argmax(scores[clip]) == labels[clip] for clip in own])
    assert np.isnan(part_accuracies(scores, labels, (np.array([], dtype=int),))[0]).all()


def test_a_run_is_judged_after_every_part(streamed, tmp_path, capsys) -> None:
    out = tmp_path / "report"
    assert evaluate(["--checkpoint", str(streamed), "--evaluation", "continual", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    with np.load(out / "scores.npz") as file:
        matrix = file["class_incremental"]
    saved = find_model(streamed)
    data = select(saved, None, None, "test")
    assert matrix.shape == (3, 3) and report["main"] == "final_average"
    # Row by row, as somebody would do it by hand with `mmcl evaluate` on the kept checkpoints.
    for number in range(3):
        model = open_model(streamed / "checkpoints" / f"probe{number}", layout=data.store.layout)
        right = make_apply(data.store, model.device)(model, data.clips).argmax(axis=1)
        labels = data.targets(data.clips, model.class_names)
        expected = [(right == labels)[np.isin(labels, part)].mean() for part in data.sides.stream]
        np.testing.assert_allclose(matrix[number], expected)
    assert report["final_average"] == pytest.approx(matrix[-1].mean())
    # Three clips' bytes hold six clips of every second frame: 16 frames of 20 joints, three numbers of four bytes.
    assert report["memory_clips"] == 6 and report["memory_bytes"] == 6 * 8 * model.encoder.layout.joint_count * 12 * (
        model.preprocess.persons
    )
    cost, lines = report["cost_by_part"], (streamed / "metrics.jsonl").read_text().splitlines()
    steps = [line for line in map(json.loads, lines) if line["kind"] == "train"]
    own = [sum(line["seconds"] for line in steps if line["stage"][-1] == str(number)) for number in range(3)]
    assert [row["training_seconds"] for row in cost] == pytest.approx(own, abs=0.01) and min(own) > 0
    assert [row["memory_clips"] for row in cost] == [6, 6, 6] and cost[-1]["memory_bytes"] == report["memory_bytes"]
    assert "## Cost by part" in (out / "report.md").read_text()
    assert (out / "parts.png").stat().st_size > 5000 and "| after part | 1 | 2 | 3 |" in (out / "report.md").read_text()


def test_what_cannot_be_judged_so_is_said(streamed, demo_store, tmp_path) -> None:
    with pytest.raises(UserError, match="lets all classes arrive at once"):
        evaluate(["--checkpoint", str(streamed), "--evaluation", "continual", "--protocol", "demo/cross_subject",
                  "--out", str(tmp_path / "report")])  # fmt: skip
    with pytest.raises(UserError, match="not a bundle"):
        kept_checkpoints(tmp_path)
    data = select(find_model(streamed), None, None, "test")
    other = Selection(data.store, data.protocol, data.rule, data.split, data.side)
    turned = {**vars(data.split), "stream": data.split.stream[::-1]}
    object.__setattr__(other, "split", type(data.split)(**turned))
    store = open_store(demo_store)
    model = open_model(streamed, layout=store.layout)
    with pytest.raises(UserError, match="has learned other classes than the first 1 parts"):
        build_evaluation("continual").run(model, other, make_apply(store, model.device))
