"""Runs side by side: intervals against a naive bootstrap and a closed form, null results, what may be compared."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_reports import ids_of, invented, save
from PIL import Image

from mmcl.common.errors import UserError
from mmcl.compare import main
from mmcl.evaluation.compare import compare, mean_and_deviation, paired_bootstrap
from mmcl.evaluation.reporting.comparison import comparison_text
from mmcl.evaluation.reporting.groups import read_groups, read_pairing
from mmcl.evaluation.reporting.same_clips import check_same_clips
from mmcl.evaluation.reporting.saved import read_report
from mmcl.studies.grid import Study
from mmcl.studies.statistics import compare_arms, read_reports
from mmcl.studies.table import write_table


def naive_bootstrap(a: np.ndarray, b: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """Draw clips, and seeds of each side, one by one."""
    rng, differences = np.random.default_rng(seed), []
    for _ in range(resamples):
        clips = rng.integers(0, a.shape[1], a.shape[1])
        sides = [side[rng.integers(0, len(side), len(side))][:, clips].mean() for side in (a, b)]
        differences.append(sides[0] - sides[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize(("seeds_a", "seeds_b"), [(1, 1), (3, 2)])
def test_the_interval_equals_a_naive_bootstrap(seeds_a: int, seeds_b: int) -> None:
    rng = np.random.default_rng(0)
    ease = rng.random(300)  # some clips are hard for everybody: pairing matters
    a = rng.random((seeds_a, 300)) < 0.5 + 0.5 * ease
    b = rng.random((seeds_b, 300)) < 0.4 + 0.5 * ease
    difference, low, high = paired_bootstrap(a, b)
    assert difference == pytest.approx(a.mean() - b.mean())
    expected = naive_bootstrap(a, b, 4000, 1)
    assert (low, high) == pytest.approx(expected, abs=0.12 * (expected[1] - expected[0]))
    assert (low, high) == paired_bootstrap(a, b)[1:] != paired_bootstrap(a, b, seed=1)[1:]
    swapped = paired_bootstrap(b, a)
    assert swapped[0] == pytest.approx(-difference)
    assert (-swapped[2], -swapped[1]) == pytest.approx((low, high), abs=0.12 * (high - low))


def test_one_seed_a_side_has_the_width_of_the_paired_normal_interval() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(2000) < 0.8
    b = np.where(rng.random(2000) < 0.9, a, ~a)
    _, low, high = paired_bootstrap(a, b)
    paired = 2 * 1.96 * np.std(a.astype(float) - b) / np.sqrt(2000)
    assert high - low == pytest.approx(paired, rel=0.05)
    assert paired < 0.7 * 2 * 1.96 * np.sqrt((a.var() + b.var()) / 2000)  # unpaired would be wider


def test_a_null_result_can_be_shown_and_a_difference_too() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(500) < 0.7
    assert paired_bootstrap(right, right) == (0, 0, 0)
    misses = 0
    for trial in range(100):  # two models of the same skill: about 5 of 100 intervals miss 0
        ease, *draws = np.random.default_rng(trial).random((3, 400))
        a, b = (draw < ease for draw in draws)
        _, low, high = paired_bootstrap(a, b, resamples=1000)
        misses += not low <= 0 <= high
    assert misses <= 12
    better = right | (rng.random(500) < 0.3)
    difference, low, high = paired_bootstrap(better, right)
    assert 0 < low < difference < high


def test_seeds_that_disagree_widen_the_interval() -> None:
    b = np.zeros(400, dtype=bool)
    steady = np.arange(400) < np.array([[200], [200]])
    uneven = np.arange(400) < np.array([[100], [300]])
    widths = [np.ptp(paired_bootstrap(side, b)[1:]) for side in (steady, uneven)]
    assert steady.mean() == uneven.mean() and widths[1] > 3 * widths[0]


def test_sides_of_different_clips_are_a_mistake() -> None:
    for a, b in ((np.ones(3), np.ones(4)), (np.ones((2, 0)), np.ones((1, 0))), (np.ones((0, 3)), np.ones(3))):
        with pytest.raises(ValueError, match="the same clips"):
            paired_bootstrap(a, b)


def test_mean_and_sample_deviation() -> None:
    values = [0.9698, 0.9744, 0.9721]
    mean, deviation = mean_and_deviation(values)
    assert mean == pytest.approx(statistics.mean(values)) and deviation == pytest.approx(statistics.stdev(values))
    assert mean_and_deviation([0.5]) == (0.5, None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folders: three seeds of a good model, two of a poor one, one as good as the good."""
    base = tmp_path_factory.mktemp("runs")
    for name, skill, seed in (("good_0", 2.0, 0), ("good_1", 2.0, 1), ("good_2", 2.0, 2), ("lr=0.1_0", 0.5, 3),
                              ("lr=0.1_1", 0.5, 4), ("rival", 2.0, 5)):  # fmt: skip
        order = np.random.default_rng(seed).permutation(200)
        save(base / name / "report-test", *invented(seed, skill), order=order, seed=seed)
    return base


def test_the_table_tells_what_the_reports_hold(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"good={runs}/good_*", f"poor={runs}/lr=0.1_0,{runs}/lr=0.1_1", str(runs / "rival")]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    top1 = [json.loads((runs / f"good_{s}" / "report-test" / "report.json").read_text())["top1"] for s in range(3)]
    good, poor, rival = (line for line in printed.splitlines() if line.startswith(("| good", "| poor", f"| {runs}")))
    assert f"| 3 | 200 | {100 * np.mean(top1):.2f} ± {100 * np.std(top1, ddof=1):.2f} |" in good
    assert "| 2 | 200 |" in poor and poor.count("±") == 3 and "holds 0" not in poor and " -" in poor
    assert "| 1 | 200 |" in rival and "±" not in rival and "holds 0" in rival
    assert "none/test" in printed and "paired bootstrap, 10,000 resamples" in printed and "clips" in printed
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [len(group["reports"]) for group in written["groups"]] == [3, 2, 1]
    correct = [np.stack([r.correct for r in reports]) for reports in read_groups(words).values()]
    assert written["groups"][1]["difference"] == pytest.approx(paired_bootstrap(correct[1], correct[0]))
    ece = json.loads((runs / "rival" / "report-test" / "report.json").read_text())["ece"]
    assert written["groups"][2]["ece"] == [pytest.approx(ece, abs=1e-6)]
    assert printed.splitlines()[0] in (tmp_path / "out" / "comparison.md").read_text()
    assert Image.open(tmp_path / "out" / "comparison.png").size > (600, 150)
    (tmp_path / "out" / "comparison.json").unlink()
    with pytest.raises(UserError, match="holds something else"):
        main([*words, "--out", str(tmp_path / "out")])


def test_a_number_that_is_no_share_of_right_answers_has_no_interval_by_clips(tmp_path: Path) -> None:
    """An AUROC may be higher where fewer answers are right: a difference of the latter would turn the verdict round."""
    scores, labels = invented(1)
    words = []
    for name, skill, auroc in (("a", 2.0, 0.5), ("b", 0.5, 0.9)):
        report = save(tmp_path / name / "report-test", *invented(1, skill))
        facts = json.loads((report / "report.json").read_text())
        words.append(str(report))
        (report / "report.json").write_text(json.dumps({**facts, "main": "auroc", "auroc": auroc}))
    first, second = compare(read_groups(words))
    assert (first.values, second.values) == ([0.5], [0.9]) and second.difference is None
    for report in words:  # an average over parts of nearly one size is such a share
        facts = json.loads((Path(report) / "report.json").read_text())
        (Path(report) / "report.json").write_text(json.dumps({**facts, "auroc": facts["top1"] + 0.0004}))
    assert compare(read_groups(words))[1].difference is not None


@pytest.mark.parametrize("draws", [None, 2])
def test_a_study_folder_gives_the_intervals_of_the_study(tmp_path: Path, capsys, draws: int | None) -> None:
    study = Study("s", "own_joint", {"base": {}, "arm": {}}, [3, 4], draws, {"data.shots": 2})
    runs = study.runs(tmp_path)
    for number, run in enumerate(runs):
        save(run.report, *invented(number, 1.0 + 0.2 * run.seed))
        (run.folder / "summary.json").write_text("{}")
    reports = read_reports(runs)
    write_table(tmp_path, study, rows := compare_arms(study, reports), reports, {})
    content = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps({**content, "runs": content["runs"][::-1]}))
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    group = json.loads((tmp_path / "out" / "comparison.json").read_text())["groups"][1]
    assert group["difference"] == pytest.approx([rows[1].difference, rows[1].low, rows[1].high])
    assert group["pairs"] == 2 and "resampled together with those of base" in capsys.readouterr().out
    (tmp_path / "study.json").write_text(json.dumps({**content, "rows": []}))  # of an older mmcl
    assert draws or read_pairing([str(tmp_path)]) == {}


def test_attacks_of_other_budgets_or_options_are_not_compared(tmp_path: Path) -> None:
    reports = []
    for number, (epsilon, steps) in enumerate([(0.01, 10), (0.01, 10), (0.001, 10), (0.01, 50)]):
        facts = {"attacks": [{"attack": "ifgsm", "epsilon": epsilon}], "attack_options": {"ifgsm": {"steps": steps}}}
        reports.append(read_report(save(tmp_path / str(number), *invented(number), **facts)))
    check_same_clips(reports[:2])
    for other, words in ((2, "epsilon 0.01 and epsilon 0.001"), (3, "steps 10 and steps 50")):
        with pytest.raises(UserError, match=f"differ in the main attack: {words}"):
            check_same_clips([reports[0], reports[other]])


def test_only_what_was_judged_alike_is_compared(runs: Path, tmp_path: Path) -> None:
    scores, labels = invented(1)
    changes: list[tuple[str, Callable[[Path], Path]]] = [
        ("differ in protocol", lambda out: save(out, scores, labels, protocol="other/test")),
        ("differ in data fingerprint", lambda out: save(out, scores, labels, data_fingerprint="g")),
        ("did not judge the same clips", lambda out: save(out, scores, labels, ids_of(200, "x"))),
    ]
    for number, (complaint, make) in enumerate(changes):
        with pytest.raises(UserError, match=complaint):
            compare(read_groups([str(runs / "rival"), str(make(tmp_path / str(number)))]))
    warned = save(tmp_path / "a,b", scores, labels, warning="of these, 3 are", control="another's texts")
    groups = read_groups([str(runs / "rival"), str(warned)])  # a comma in the name of a folder that is there
    text = comparison_text(compare(groups), groups)
    assert f"{warned}: warning: of these, 3 are" in text and f"{warned}: control: another's texts" in text
    assert "rival: " not in text
    rival = read_report(runs / "rival")
    with pytest.raises(UserError, match="is given twice"):
        compare({"a": [rival], "b": [rival, rival]})


def test_mistakes_on_the_command_line(runs: Path) -> None:
    for words, complaint in (
        ([str(runs / "rival")], "nothing to compare"),
        ([f"a={runs}/rival", f"a={runs}/good_0"], "two groups are called 'a'"),
        ([f"a={runs}/rival", f"b={runs}/none_*"], "nothing matches"),
        ([f"a={runs}/rival", f"b={runs}/none"], r"holds no report\.json"),
        ([f"{runs}/lr=0.1_0", f"{runs}/lr=0.7_*"], "nothing matches"),  # no group called …/lr
    ):
        with pytest.raises(UserError, match=complaint):
            read_groups(words)
    assert list(read_groups([f"{runs}/lr=0.1_0", f"{runs}/rival"])) == [f"{runs}/lr=0.1_0", f"{runs}/rival"]


def test_a_group_whose_name_is_no_text_is_drawn_escaped(tmp_path: Path) -> None:
    """A shell passes on bytes that are no UTF-8, here in the names of both groups."""
    for number in range(2):
        save(tmp_path / f"{number}", *invented(number))
    words = [f"b\udce4se={tmp_path / '0'}", f"\udcff={tmp_path / '1'}"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert Image.open(tmp_path / "out" / "comparison.png").size[0] > 500
    assert "udce4se" in (tmp_path / "out" / "comparison.md").read_text()
