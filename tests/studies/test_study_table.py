"""The table of a study against naive computations; it can come out better, worse, and as no difference shown."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t, ttest_ind

from mmcl.common.errors import UserError
from mmcl.evaluation.compare import corrected_interval, paired_bootstrap
from mmcl.studies.differences import seeds_interval
from mmcl.studies.grid import Study
from mmcl.studies.run import Run
from mmcl.studies.sentences import method, sentences
from mmcl.studies.statistics import compare_arms, read_reports
from mmcl.studies.table import write_table

CLIPS = 200


def finish(run: Run, correct: np.ndarray, labels: np.ndarray, ids: list[str] | None = None, trained: int = 100) -> None:
    """Leave what a finished run leaves: scores that are right or wrong as asked, in an order of their own."""
    run.report.mkdir(parents=True)
    order = np.random.default_rng(run.seed).permutation(len(labels))
    answers = np.where(correct, labels, (labels + 1) % 3)
    np.savez(
        run.report / "scores.npz", ids=np.array(ids or [f"clip{i:03d}" for i in range(len(labels))])[order],
        scores=np.eye(3, dtype=np.float32)[answers][order], labels=labels[order], class_names=np.array(["a", "b", "c"]),
    )  # fmt: skip
    facts = {"protocol": "made/up", "split": "test", "data_fingerprint": "f", "top1": float(np.mean(correct))}
    (run.report / "report.json").write_text(json.dumps(facts))
    (run.folder / "summary.json").write_text(json.dumps({"clips": {"train": trained}}))


def make(out: Path, rates: dict[str, float], seeds: int = 3) -> tuple[Study, dict[Run, np.ndarray]]:
    """A study on a fixed test set whose arms are right as often as ``rates`` says."""
    study = Study("made", "own_joint", {arm: {} for arm in rates}, list(range(seeds)))
    rng, made = np.random.default_rng(0), {}
    labels = rng.integers(0, 3, CLIPS)
    for run in study.runs(out):
        made[run] = rng.random(CLIPS) < rates[run.arm]
        finish(run, made[run], labels)
    return study, made


def test_rows_are_means_deviations_and_the_paired_bootstrap_in_clip_order(tmp_path) -> None:
    study, made = make(tmp_path, {"base": 0.7, "good": 0.95, "same": 0.7, "bad": 0.4})
    rows = compare_arms(study, read_reports(study.runs(tmp_path)))
    for row in rows:
        correct = np.stack([made[run] for run in made if run.arm == row.arm])
        assert (row.seeds, row.n, row.draws) == (3, (CLIPS, CLIPS), None)
        assert row.value == pytest.approx(correct.mean())
        assert row.deviation == pytest.approx(np.sqrt(((correct.mean(axis=1) - correct.mean()) ** 2).sum() / 2))
        if row.arm != "base":
            base = np.stack([made[run] for run in made if run.arm == "base"])
            assert (row.difference, row.low, row.high) == paired_bootstrap(correct, base)
    assert [row.verdict for row in rows] == ["", "better", "no difference shown", "worse"]
    means = {arm: np.array([made[run].mean() for run in made if run.arm == arm]) for arm in ("base", "good")}
    assert rows[0].paired == () and rows[1].paired == pytest.approx(means["good"] - means["base"])
    assert "good: to show a difference of 1 point" in write_table(tmp_path, study, rows, {}, {})


@pytest.mark.parametrize("thinned", [{"data.shots": "2"}, {"data.share": 0.1}, {"start.checkpoint": "first/{seed}"}])
def test_runs_of_a_seed_that_share_clips_or_a_beginning_are_compared_in_pairs(tmp_path, thinned) -> None:
    study, made = make(tmp_path, {"base": 0.7, "good": 0.8}, seeds=4)
    runs = study.runs(tmp_path)
    assert not replace(study, set={"data.shots": 0, "data.share": 1}).seeds_pair("good")
    assert replace(study, arms={arm: {"start.checkpoint": "a/{seed}"} for arm in study.arms}).seeds_pair("good")
    study = replace(study, set=thinned)
    reports = read_reports(runs)
    del reports[next(run for run in runs if run.name == "base/1")]  # not finished: its partner stands alone
    row = compare_arms(study, reports)[1]
    sides = [np.stack([made[run] for run in made if run.arm == arm and run.seed != 1]) for arm in ("good", "base")]
    assert (row.difference, row.low, row.high) == paired_bootstrap(*sides, matched=True)
    assert "both arms of a seed together" in method(study, reports)
    differences = sides[0].mean(axis=1) - sides[1].mean(axis=1)
    other = compare_arms(study, reports, "top1")[1]  # as a number of the report, not by clips
    assert (other.difference, other.low, other.high) == pytest.approx(corrected_interval(differences, 0.0))


@pytest.mark.filterwarnings("error")
def test_values_that_are_all_the_same_give_no_interval(tmp_path) -> None:
    half, less = np.array([0.5, 0.5]), np.array([0.4, 0.4])
    assert seeds_interval(half, less) == (pytest.approx(0.1), None, None)
    assert seeds_interval(np.array([0.1, 0.3 - 0.2]), less) == (pytest.approx(-0.3), None, None)  # but for rounding
    assert corrected_interval(np.zeros(2), 0.0) == corrected_interval(np.zeros(3), 1.0) == (0.0, None, None)
    for own in (half, np.array([0.5, 0.6, 0.8])):
        for base in (np.array([0.41, 0.4]), np.array([0.4, 0.5, 0.45])):
            known = ttest_ind(own, base, equal_var=False).confidence_interval() if own[0] != own[1] else None
            difference, low, high = seeds_interval(own, base)
            assert low < difference < high and (known is None or (low, high) == pytest.approx(tuple(known)))
    study, made = make(tmp_path, {"base": 0.7, "good": 0.8}, seeds=2)
    reports = {run: replace(report, facts=report.facts | {"x": 0.5 if run.arm == "good" else 0.4})
               for run, report in read_reports(made).items()}  # fmt: skip
    rows = compare_arms(study, reports, "x")
    assert rows[1].verdict == "" and (rows[1].low, rows[1].compared) == (None, 2)
    assert "+10.00 points to base: no interval, since every seed gave the same difference" in sentences(study, rows)[0]
    alone = compare_arms(study, {run: report for run, report in reports.items() if run.seed == 0}, "x")
    assert "+10.00 points to base on one seed: no interval" in sentences(study, alone)[0]


def test_an_arm_is_paired_where_it_shares_clips_or_a_beginning_with_the_baseline(tmp_path) -> None:
    started = {"start.checkpoint": "a/{seed}"}
    study, _ = make(tmp_path, {"base": 0.7, "good": 0.8, "other": 0.8}, seeds=4)
    study = replace(study, arms={"base": {"data.shots": 2} | started, "good": {"data.shots": 4}, "other": {}})
    assert [study.seeds_pair(arm) for arm in ("good", "other")] == [True, False]
    assert not replace(study, arms={"base": {}, "good": started}).seeds_pair("good")
    (tmp_path / "few.yaml").write_text("data: {share: 0.1}")
    assert replace(study, recipe=str(tmp_path / "few.yaml")).seeds_pair("other")
    runs = study.runs(tmp_path)
    reports = read_reports(run for run in runs if (run.seed == 0) == (run.arm == "base"))
    rows = compare_arms(study, reports)
    assert rows[2].low is not None and rows[1].difference is None
    assert sentences(study, rows)[0].endswith("base has no seed in common with it yet.")
    assert "of base and good learn" in method(study, reports) and "other: the seeds" in method(study, reports)


def test_arms_that_answer_alike_show_no_difference_and_the_page_says_so(tmp_path) -> None:
    study = Study("null", "own_joint", {"base": {}, "twin": {}, "absent": {}}, [0, 1])
    labels, rng = np.arange(CLIPS) % 3, np.random.default_rng(0)
    for run in study.runs(tmp_path)[:2] + study.runs(tmp_path)[3:5]:
        rng = np.random.default_rng(run.seed)
        finish(run, rng.random(CLIPS) < 0.8, labels)
    reports = read_reports(study.runs(tmp_path))
    rows = compare_arms(study, reports)
    assert rows[1].difference == 0 and rows[1].verdict == "no difference shown" and rows[2].value is None
    printed = write_table(tmp_path, study, rows, reports, {"absent/0": "exit status 2: error: no such thing"})
    page = (tmp_path / "study.md").read_text()
    assert "- twin: no difference shown, +0.00 points against base" in printed and printed in page
    assert "- absent: no finished run yet." in printed and "- absent/0: exit status 2: error" in page
    assert "protocol made/up" in page and "made" not in page.splitlines()[0]
    table = list(csv.DictReader((tmp_path / "study.csv").open()))
    assert [row["verdict"] for row in table] == ["", "no difference shown", ""]
    assert float(table[1]["value"]) == pytest.approx(rows[1].value, abs=1e-6)
    saved = json.loads((tmp_path / "study.json").read_text())
    assert len(saved["runs"]) == 4 and saved["unfinished"] and saved["rows"][1]["difference"] == 0
    assert (tmp_path / "study.png").read_bytes()[:4] == b"\x89PNG"


def test_over_draws_the_deviation_is_that_of_draws_and_the_interval_is_corrected(tmp_path) -> None:
    study = Study("drawn", "own_joint", {"base": {}, "other": {}}, [0, 1], draws=4)
    rng, rates = np.random.default_rng(1), {}
    for run in study.runs(tmp_path):
        labels = np.random.default_rng(run.draw).integers(0, 3, 50 + run.draw)  # each draw has its own test clips
        correct = rng.random(len(labels)) < (0.9 if run.arm == "other" else 0.5)
        finish(run, correct, labels, [f"{run.draw}-{i:03d}" for i in range(len(labels))], trained=50)
        rates[run] = correct.mean()
    rows = compare_arms(study, read_reports(study.runs(tmp_path)))

    def by_draw(arm: str) -> np.ndarray:
        return np.array([np.mean([r for run, r in rates.items() if (run.arm, run.draw) == (arm, d)]) for d in range(4)])

    for row in rows:
        assert (row.draws, row.seeds, row.n) == (4, 2, (50, 53))
        assert row.value == pytest.approx(by_draw(row.arm).mean())
        assert row.deviation == pytest.approx(by_draw(row.arm).std(ddof=1))
    gaps = by_draw("other") - by_draw("base")
    half = t.ppf(0.975, 3) * np.sqrt((1 / 4 + 51.5 / 50) * gaps.var(ddof=1))
    assert (rows[1].low, rows[1].high) == pytest.approx((gaps.mean() - half, gaps.mean() + half))
    assert "corrected resampled t" in write_table(tmp_path, study, rows, {}, {}) + (tmp_path / "study.md").read_text()


def test_draws_that_judge_the_same_clips_are_compared_on_them_both_arms_of_a_draw_together(tmp_path) -> None:
    study = Study("orders", "own_joint", {"base": {}, "other": {}}, [0, 1], draws=5, also=["groups.few"])
    rng, labels, made = np.random.default_rng(2), np.arange(80) % 3, {}
    hard = rng.random((5, 80))  # what is hard in a draw is so for both arms
    for run in study.runs(tmp_path):
        made[run] = hard[run.draw] + 0.1 * rng.random(80) < (0.75 if run.arm == "other" else 0.7)
        finish(run, made[run], labels)
        facts = json.loads((run.report / "report.json").read_text())
        few = None if run.draw == 4 else float(made[run][:20].mean())
        (run.report / "report.json").write_text(json.dumps(facts | {"groups": {"few": few}}))
    reports = read_reports(study.runs(tmp_path))
    row = compare_arms(study, reports)[1]
    right = {
        arm: np.stack([np.mean([made[r] for r in made if (r.arm, r.draw) == (arm, d)], axis=0) for d in range(5)])
        for arm in study.arms
    }
    drawn, gaps = np.random.default_rng(0), []
    for _ in range(4000):  # the bootstrap as it is told: clips and draws, with replacement
        draws, clips = drawn.integers(0, 5, 5), drawn.integers(0, 80, 80)
        gaps.append(float((right["other"] - right["base"])[draws][:, clips].mean()))
    assert row.difference == pytest.approx(np.mean(right["other"] - right["base"]))
    assert (row.low, row.high) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])), abs=3e-3)
    few = compare_arms(study, reports, "groups.few")[1]
    gap = (right["other"] - right["base"])[:4, :20].mean(axis=1)  # the report of draw 4 has none
    half = t.ppf(0.975, 3) * gap.std(ddof=1) / 2
    assert few.draws == 4 and (few.low, few.high) == pytest.approx((gap.mean() - half, gap.mean() + half))
    printed = write_table(tmp_path, study, compare_arms(study, reports), reports, {})
    assert "groups.few %" in printed and "which all judge the same clips" in (tmp_path / "study.md").read_text()
    assert json.loads((tmp_path / "study.json").read_text())["also"]["groups.few"][1]["low"] == few.low


@pytest.mark.parametrize(("number", "complaint"), [("groups.rare", "at 'groups' it has"), ("protocol", "is no number")])
def test_a_number_that_no_report_has_is_named(tmp_path, number: str, complaint: str) -> None:
    study, _ = make(tmp_path, {"base": 0.7, "other": 0.8}, seeds=1)
    with pytest.raises(UserError, match=complaint):
        compare_arms(study, read_reports(study.runs(tmp_path)), number)


@pytest.mark.parametrize(
    ("number", "head", "cell", "verdict"),
    [("forgetting", "forgetting %, less is better", "40.00", "worse"), ("nll", "nll, less is", "0.4000", "worse"),
     ("top5", "top5 %", "40.00", "better"), ("length", "length |", "0.4000", "")],
)  # fmt: skip
def test_another_number_is_better_where_it_should_be_and_in_per_cent_where_it_is_a_share(
    tmp_path, number: str, head: str, cell: str, verdict: str
) -> None:
    study, _ = make(tmp_path, {"base": 0.7, "other": 0.8}, seeds=2)
    for run in study.runs(tmp_path):
        facts = json.loads((run.report / "report.json").read_text())
        value = (0.1 if run.arm == "base" else 0.4) + 0.001 * (2 * run.seed - 1)
        (run.report / "report.json").write_text(json.dumps(facts | {number: value}))
    study, reports = replace(study, also=[number]), read_reports(study.runs(tmp_path))
    printed = write_table(tmp_path, study, compare_arms(study, reports), reports, {}).split("\n\n")[-1]
    assert head in printed and cell in printed
    assert json.loads((tmp_path / "study.json").read_text())["also"][number][1]["verdict"] == verdict


def test_what_stands_beside_the_table_does_not_cost_the_table(tmp_path) -> None:
    study, _ = make(tmp_path, {"base": 0.7, "other": 0.8})
    study = replace(study, also=["nowhere"], judge=["top1", "knn"])
    for run in study.runs(tmp_path):
        (run.folder / run.beside[0].report).mkdir()
        (run.folder / run.beside[0].report / "report.json").write_text("[]")
    reports = read_reports(study.runs(tmp_path))
    printed = write_table(tmp_path, study, compare_arms(study, reports), reports, {})
    assert "| other | 3 |" in printed and "- nowhere is not shown: " in printed and "- no matrix: " in printed
    assert (tmp_path / "study.md").is_file() and (tmp_path / "study.json").is_file()


@pytest.mark.parametrize("summary", ["{}", "[]", '{"clips": {"train": "x"}}', '{"clips": {"train": 0}}'])
def test_a_summary_that_does_not_say_how_many_clips_trained_is_named(tmp_path, summary: str) -> None:
    study = Study("drawn", "own_joint", {"base": {}, "other": {}}, [0], draws=2)
    for run in study.runs(tmp_path):
        finish(run, np.arange(30) % 2 > 0, np.arange(30) % 3, [f"{run.draw}-{i:03d}" for i in range(30)])
        (run.folder / "summary.json").write_text(summary)
    with pytest.raises(UserError, match=r"summary.json: it does not say how many clips"):
        compare_arms(study, read_reports(study.runs(tmp_path)))


@pytest.mark.parametrize("value", ["NaN", "1e400", "12345", '"0.5"', "true"])
def test_a_main_number_that_is_none_is_a_damaged_report(tmp_path, value: str) -> None:
    study, _ = make(tmp_path, {"base": 0.7}, seeds=1)
    file = study.runs(tmp_path)[0].report / "report.json"
    file.write_text(f'{{"protocol": "made/up", "top1": {value}}}')
    with pytest.raises(UserError, match=r"damaged report \(top1 is "):
        read_reports(study.runs(tmp_path))


def test_random_halves_that_differ_in_nothing_are_rarely_called_different() -> None:
    """Splits of one data set share clips: a plain t interval would exclude 0 far more often than one time in twenty."""
    rng, wrong, plain = np.random.default_rng(0), 0, 0
    for _ in range(300):
        gap = rng.normal(size=120)  # a difference for each clip of the data set, 0 on average over data sets
        gaps = np.array([gap[rng.permutation(120)[:60]].mean() for _ in range(30)])
        mean, low, high = corrected_interval(gaps, 1.0)
        wrong += not low <= 0 <= high
        plain += abs(mean) > t.ppf(0.975, 29) * gaps.std(ddof=1) / np.sqrt(30)
    assert wrong <= 0.08 * 300 < 0.3 * 300 < plain


def test_one_draw_gives_no_interval_and_other_clips_are_an_error(tmp_path) -> None:
    study = Study("drawn", "own_joint", {"base": {}, "other": {}}, [0], draws=2)
    labels, runs = np.arange(30) % 3, study.runs(tmp_path)
    finish(runs[0], labels > 0, labels)
    finish(runs[1], labels > 1, labels)
    rows = compare_arms(study, read_reports(runs))
    assert rows[1].low is None and "on one draw: no interval" in sentences(study, rows)[0]
    finish(runs[2], labels > 0, labels)
    finish(runs[3], labels > 0, labels, [f"other{i}" for i in range(30)])
    with pytest.raises(UserError, match="did not judge the same clips"):
        read_reports(runs)
