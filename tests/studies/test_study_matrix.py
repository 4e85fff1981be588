"""The matrix of a study: where cells stand, what is in them, and which are dark."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmcl.studies.grid import Study
from mmcl.studies.matrix import TIMES, matrix_table, measures, places, shades

STUDY = Study(
    "made", "own_joint", {"ctrgcn.plain": {}, "ctrgcn.stars": {}, "tcn.plain": {}}, [0, 1], judge=["top1", "robustness"]
)


def save(report: Path, **facts: object) -> None:
    """A report of a complete run."""
    report.mkdir(parents=True)
    (report.parent / "summary.json").touch()
    (report / "report.json").write_text(json.dumps(facts))


def test_arms_stand_by_encoder_and_task() -> None:
    rows, columns, place = places(STUDY.arms)
    assert (rows, columns) == (["ctrgcn", "tcn"], ["plain", "stars"])
    assert place == {"ctrgcn.plain": (0, 0), "ctrgcn.stars": (0, 1), "tcn.plain": (1, 0)}
    assert places(["a", "b"]) == (["a", "b"], [""], {"a": (0, 0), "b": (1, 0)})


def test_measures_are_means_over_finished_runs_and_times_are_read_where_they_were_measured(tmp_path) -> None:
    runs = {run.name: run for run in STUDY.runs(tmp_path)}
    for name, top1 in (("ctrgcn.plain/0", 0.5), ("ctrgcn.plain/1", 0.75), ("tcn.plain/0", 0.25)):
        save(runs[name].report, main="top1", top1=top1, ece=top1 / 10)
    robust = runs["tcn.plain/1"].folder / runs["tcn.plain/1"].beside[0].report
    save(robust, main="robust_accuracy", robust_accuracy=0.125)
    names = ["top-1, %", "calibration error, %", "robust accuracy, %"]
    found = measures(STUDY, runs.values(), tmp_path)
    assert [measure.name for measure in found] == names and [measure.less for measure in found] == [False, True, False]
    assert found[0].values == {"ctrgcn.plain": 62.5, "tcn.plain": 25.0}
    assert found[1].values == pytest.approx({"ctrgcn.plain": 6.25, "tcn.plain": 2.5})
    assert "| ctrgcn.stars |  |  |  |" in matrix_table(STUDY, found) and "| 12.5 |" in matrix_table(STUDY, found)
    times = [{"name": name, "times": {"fp32": {"seconds": 0.004}}} for name in ("tcn.plain", "of another study")]
    (tmp_path / TIMES).parent.mkdir()
    (tmp_path / TIMES).write_text(json.dumps({"points": times}))
    last = measures(STUDY, runs.values(), tmp_path)[-1]
    assert last.values == {"tcn.plain": 4.0} and last.less
    assert not measures(replace(STUDY, arms={"x": {}}), [], tmp_path)


def test_what_a_run_was_judged_by_before_it_is_complete_is_no_measure(tmp_path) -> None:
    (run,) = replace(STUDY, arms={"a": {}}, seeds=[0]).runs(tmp_path)
    save(run.report, main="top1", top1=0.5)
    assert measures(STUDY, [run], tmp_path)
    (run.folder / "summary.json").unlink()
    assert not measures(STUDY, [run], tmp_path)


def test_judges_with_a_number_of_one_name_have_columns_of_their_own(tmp_path) -> None:
    study = replace(STUDY, arms={"a": {}}, seeds=[0], judge=["top1", "open_vocabulary"])
    (run,) = study.runs(tmp_path)
    save(run.report, main="top1", top1=0.9, ece=0.02)
    save(run.folder / run.beside[0].report, main="top1", top1=0.3, ece=0.4)
    found = {measure.name: measure.values["a"] for measure in measures(study, [run], tmp_path)}
    assert found == pytest.approx({
        "top-1 (top1), %": 90.0, "calibration error (top1), %": 2.0, "top-1 (open_vocabulary), %": 30.0,
        "calibration error (open_vocabulary), %": 40.0,
    })  # fmt: skip


def test_shades_go_by_rank_within_a_measure() -> None:
    grid = np.array([[3.0, np.nan], [900.0, 3.0], [5.0, -1.0]])
    more = shades(grid, less=False)
    assert more[1, 0] > more[2, 0] > more[0, 0] == more[1, 1] > more[2, 1] and np.isnan(more[0, 1])
    assert shades(grid, less=True)[2, 1] == more[1, 0]
    assert np.isfinite(shades(np.array([[7.0]]), less=True)).all()
