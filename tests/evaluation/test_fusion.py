"""Score fusion: by clip id whatever the order of rows, weights from validation clips only, mistakes refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_reports import NAMES, ids_of, invented, save
from scipy.special import softmax

from mmcl.common.errors import UserError
from mmcl.ensemble import build_parser, ensemble, main
from mmcl.evaluation.fusion import KINDS, fit_weights, fuse


def call(*words: str | Path) -> dict:
    return ensemble(build_parser().parse_args([str(word) for word in words]))


def saved(folder: Path) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "scores.npz"))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models' reports on test clips (a, b) and on other clips held out of training (va, vb); rows in any order."""
    base, found = tmp_path_factory.mktemp("reports"), {}
    for number, name in enumerate("ab"):
        order = np.random.default_rng(number).permutation(200)
        scores, labels = invented(number, 1.5 - number)
        found[name] = save(base / name, scores, labels, order=order, seed=number)
        held, held_labels = invented(number + 10, 1.5 - number)
        found["v" + name] = save(
            base / ("v" + name), held, held_labels, ids_of(200, "held"), order[::-1], split="validation",
            checkpoint=f"/elsewhere/runs/{name}/checkpoints/last", seed=number,
        )  # fmt: skip
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_fused_scores_equal_a_loop_over_clips(reports: dict[str, Path], tmp_path: Path, kind: str) -> None:
    report = call(reports["a"], reports["b"], "--weights", 3, 1, "--fuse", kind, "--out", tmp_path / "out")
    done, right = saved(tmp_path / "out"), 0
    members = [invented(0, 1.5), invented(1, 0.5)]
    for name, row, label in zip(done["ids"], done["scores"], done["labels"], strict=True):
        a, b = (np.float32(scores[int(name[4:])]).astype(float) for scores, _ in members)
        expected = softmax(a) * 0.75 + softmax(b) * 0.25 if kind == "probabilities" else softmax(a * 0.75 + b * 0.25)
        np.testing.assert_allclose(softmax(row.astype(float)), expected, rtol=1e-5)
        assert label == members[0][1][int(name[4:])]
        right += int(expected.argmax() == label)
    assert report["correct"] == right and done["class_names"].tolist() == NAMES
    assert report["fused"] == KINDS[kind] and report["weights"] == "given"  # type: ignore[index]
    assert [member["weight"] for member in report["members"]] == [0.75, 0.25]
    assert [member["seed"] for member in report["members"]] == [0, 1] and "seed" not in report
    assert report["protocol"] == "none/test" and report["data_fingerprint"] == "f"
    page = (tmp_path / "out" / "report.md").read_text()
    assert str(reports["b"]) in page and "0.75" in page


def test_the_order_of_rows_changes_nothing(reports: dict[str, Path], tmp_path: Path) -> None:
    shuffled = {
        name: save(tmp_path / name, *invented(number, 1.5 - number), seed=number,
                   order=np.random.default_rng(number + 7).permutation(200))
        for number, name in enumerate("ab")
    }  # fmt: skip
    assert (saved(shuffled["a"])["ids"] != saved(reports["a"])["ids"]).any()
    results = []
    for number, members in enumerate((reports, shuffled)):
        fitted = ("--fit", reports["va"], reports["vb"])
        results.append(call(members["a"], members["b"], *fitted, "--out", tmp_path / f"out{number}"))
    for name, array in saved(tmp_path / "out0").items():
        np.testing.assert_array_equal(array, saved(tmp_path / "out1")[name])
    for report in results:
        for member in report["members"]:
            del member["report"], member["checkpoint"]
    assert results[0] == results[1]


def test_more_models_with_independent_errors_are_better_together(reports: dict[str, Path], tmp_path: Path) -> None:
    equal = call(reports["a"], reports["b"], "--out", tmp_path / "out")
    assert equal["weights"] == "equal"
    single = [json.loads((reports[name] / "report.json").read_text())["top1"] for name in "ab"]
    assert [member["top1"] for member in equal["members"]] == single
    fitted = call(reports["a"], reports["b"], "--fit", reports["va"], reports["vb"], "--out", tmp_path / "out")
    assert fitted["top1"] >= max(single) and "fitted on 200 validation clips" in fitted["weights"]
    a, b = (member["weight"] for member in fitted["members"])
    assert a > b > 0 and a + b == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_fitted_weights_are_the_best_of_a_fine_grid(kind: str) -> None:
    members = [invented(seed, skill) for seed, skill in ((0, 2.0), (1, 1.0), (2, 0.0))]
    scores, labels = [scores * 2 for scores, _ in members], members[0][1]

    def likelihood(weights: np.ndarray) -> float:
        """The largest over temperatures, by trying many."""
        fused = fuse(scores, weights, kind)  # type: ignore[arg-type]
        tried = [softmax(fused * sharpness, axis=1)[np.arange(200), labels] for sharpness in np.geomspace(0.2, 5, 60)]
        return max(float(np.log(probabilities).mean()) for probabilities in tried)

    found = fit_weights(scores, labels, kind)  # type: ignore[arg-type]
    grid = [np.array([i, j, 40 - i - j]) / 40 for i in range(0, 41, 2) for j in range(0, 41 - i, 2)]
    best = max(grid, key=likelihood)
    assert likelihood(found) > likelihood(best) - 2e-4  # the temperatures tried are not all
    np.testing.assert_allclose(found, best, atol=0.06)
    np.testing.assert_array_equal(found, fit_weights(scores, labels, kind))  # type: ignore[arg-type]
    assert fit_weights([scores[0]] * 4, labels, kind) == pytest.approx([0.25] * 4, abs=1e-3)  # type: ignore[arg-type]
    huge = fit_weights([scores[0] * 1e3, scores[2] * 1e3], labels, kind)  # type: ignore[arg-type]
    assert huge.min() >= 0 and huge.sum() == pytest.approx(1)


def test_what_does_not_belong_together_is_refused(reports: dict[str, Path], tmp_path: Path) -> None:
    scores, labels = invented(1, 0.5)
    other = labels.copy()
    other[[3, 8]] = (other[[3, 8]] + 1) % 6
    changes: list[tuple[str, dict]] = [
        ("1 only in the first \\(clip199\\)", {"scores": scores[:199], "labels": labels[:199]}),
        ("200 only in the first .clip000, clip001, clip002, ….*200 only in the second", {"ids": ids_of(200, "x")}),
        ("labels of 2 clips \\(clip003, clip008\\)", {"labels": other}),
        ("protocol: none/test and other/test", {"protocol": "other/test"}),
        ("data fingerprint: f and g", {"data_fingerprint": "g"}),
        ("split: test and train", {"split": "train"}),
        (
            "classes: 1 only in the first \\(class 6\\), 1 only in the second \\(jump\\)",
            {"names": [*NAMES[:6], "jump"]},
        ),
        ("classes: 1 only in the first \\(class 6\\)", {"scores": scores[:, :6], "names": NAMES[:6]}),
        ("same names in another order", {"names": NAMES[::-1]}),
        ("more than once \\(clip000\\)", {"ids": ["clip000", *ids_of(200)[:199]]}),
    ]
    for number, (complaint, change) in enumerate(changes):
        folder = save(tmp_path / str(number), **({"scores": scores, "labels": labels} | change))
        with pytest.raises(UserError, match=complaint):
            call(reports["a"], folder, "--out", tmp_path / "out")
    report = call(reports["a"], reports["b"], "--weights", 1e308, 1e308, "--out", tmp_path / "huge")
    assert [member["weight"] for member in report["members"]] == [0.5, 0.5]
    with pytest.raises(UserError, match="is given twice"):
        call(reports["a"], reports["a"], "--out", tmp_path / "out")
    with pytest.raises(UserError, match="at least two"):
        call(reports["a"], "--out", tmp_path / "out")
    with pytest.raises(UserError, match="is one of the reports that are fused"):
        call(reports["a"], reports["b"], "--out", reports["a"])
    warned = save(tmp_path / "warned", scores, labels, warning="3 were learned from")
    assert call(reports["a"], warned, "--out", tmp_path / "fused")["warning"] == "3 were learned from"
    for weights in ([1], [1, 2, 3], [1, -1], [0, 0], ["nan", 1]):
        with pytest.raises(UserError, match="--weights needs 2 numbers"):
            call(reports["a"], reports["b"], "--weights", *weights, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_are_never_fitted_on_what_is_judged(reports: dict[str, Path], tmp_path: Path) -> None:
    def fit(*held: Path) -> dict:
        return call(reports["a"], reports["b"], "--fit", *held, "--out", tmp_path / "out")

    held, labels = invented(11, 0.5)
    as_b = {"ids": ids_of(200, "held"), "split": "validation", "checkpoint": "runs/b/checkpoints/last", "seed": 1}
    changes: list[tuple[str, dict]] = [
        ("is a report of test clips", {"split": "test"}),
        ("is a report of test clips", {"split": None}),  # as label maps' reports, which are all test
        ("is a report of train clips", {"split": "train"}),
        ("in the order of the members", {"checkpoint": "runs/b/checkpoints/best"}),
        ("in the order of the members", {"checkpoint": "checkpoints/last", "stream": "bone"}),
        ("in the order of the members", {"checkpoint": None}),
        ("differ in protocol", {"protocol": "other/test"}),
        ("differ in data fingerprint", {"data_fingerprint": "g"}),
        ("did not judge the same clips", {"ids": ids_of(200, "more")}),
    ]
    for number, (complaint, change) in enumerate(changes):
        with pytest.raises(UserError, match=complaint):
            fit(reports["va"], save(tmp_path / str(number), held, labels, **(as_b | change)))
    with pytest.raises(UserError, match="for each of the 2 members"):
        fit(reports["va"])
    with pytest.raises(UserError, match="in the order of the members"):
        fit(reports["vb"], reports["va"])
    states = [
        save(tmp_path / name, *invented(2), seed=2, network=network, checkpoint="runs/c/checkpoints/last", **more)
        for name, network, more in (
            ("now", "aa", {}), ("then", "bb", {"split": "validation", "ids": ids_of(200, "held")}),
        )
    ]  # fmt: skip
    with pytest.raises(UserError, match="then and .*now are of two states of runs/c/checkpoints/last: run `mmcl eval"):
        call(states[0], reports["a"], "--fit", states[1], reports["va"], "--out", tmp_path / "out")
    leaked = [*ids_of(199, "held"), "clip007"]  # a rule that calls a test clip validation
    pair = []
    for seed, name in enumerate("ab"):
        change = {"ids": leaked, "checkpoint": f"runs/{name}/checkpoints/last", "seed": seed}
        pair.append(save(tmp_path / f"leak{name}", held, labels, **(as_b | change)))
    with pytest.raises(UserError, match=r"holds 1 of the clips that are judged \(clip007\)"):
        fit(*pair)
    assert not (tmp_path / "out").exists()


def test_run_folders_stand_for_their_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate("ab"):
        run = tmp_path / name
        checkpoint = str(run / "checkpoints" / "last")
        save(run / "report-test", *invented(number, 1.0), checkpoint=checkpoint)
        save(run / "report-validation", *invented(number + 10, 1.0), ids_of(200, "held"), split="validation",
             checkpoint=checkpoint)  # fmt: skip
    runs = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main([*runs, "--fit", *runs, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "fitted on 200 validation clips" in printed and f"{tmp_path / 'b' / 'report-test'} (top-1" in printed
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "config.yaml").write_text("")
    with pytest.raises(UserError, match="run `mmcl evaluate --checkpoint .*fresh --split test` first"):
        main([runs[0], str(tmp_path / "fresh"), "--out", str(tmp_path / "out")])
