"""Attacks from model to model on the demo's clips: what counts, who is told, what is saved, and both defences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcl.attack import attack_options, build_parser, main, targets
from mmcl.attacks.base import build_attack
from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore, open_store
from mmcl.encoders.building import build_encoder
from mmcl.evaluation.attack_models import defended, wanted_classes
from mmcl.evaluation.base import build_evaluation, make_apply
from mmcl.models.bundle import describe, write_bundle
from mmcl.models.model import Model
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.surgery.base import build_surgery

CPU = torch.device("cpu")


def nearest_mean(store: ClipStore, seed: int) -> Model:
    """Random features, and the classifier of the nearest class mean: right more often than not, without training."""
    torch.manual_seed(seed)
    options = {"width": 8, "depth": 3, "persons": 1}
    encoder = build_encoder("ctrgcn", store.layout, len(store.class_names), options)
    preprocess = Preprocess(store.layout, store.layout, 1, PreprocessOptions(window=16))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        encoder.train()(preprocess(torch.randn(8, 1, 20, store.layout.joint_count, 3)))
    model = Model(describe("ctrgcn", encoder.eval(), preprocess, store.class_names), encoder, preprocess)
    features = torch.from_numpy(make_apply(store, CPU)(model.features, np.arange(len(store))))
    labels = torch.from_numpy(store.labels)
    means = torch.stack([features[labels == label].mean(dim=0) for label in range(len(store.class_names))])
    scale = 20.0 / means.var(dim=0).sum()
    with torch.no_grad():
        encoder.classifier.weight.copy_(scale * means)
        encoder.classifier.bias.copy_(-0.5 * scale * means.square().sum(dim=1))
    return model


@pytest.fixture(scope="module")
def store(demo_store) -> ClipStore:
    return open_store(demo_store)


@pytest.fixture(scope="module")
def folders(store, tmp_path_factory) -> dict[str, Path]:
    """Bundles of two models."""
    base = tmp_path_factory.mktemp("models")
    for number, name in enumerate(("first", "second")):
        (base / name).mkdir()
        write_bundle(base / name, nearest_mean(store, number))
    return {name: base / name for name in ("first", "second")}


@pytest.fixture(scope="module")
def data(store) -> Selection:
    rule = load_protocol("demo/cross_subject")
    return Selection(store, "demo/cross_subject", rule, split(store, rule), "test")


def test_every_pair_is_judged_on_clips_that_both_knew(store, folders, data) -> None:
    model = nearest_mean(store, 0)
    evaluation = build_evaluation("robustness", {
        "attacks": ["ifgsm"], "options": {"ifgsm": {"steps": 4}}, "epsilons": [0.03, 0.0], "every_pair": True,
        "models": {"other": [str(folders["second"])]}, "save": True,
    })  # fmt: skip
    verdict = evaluation.run(model, data, make_apply(store, CPU))
    names = ["model", "other"]
    cells = {(cell["attack"], cell["epsilon"], cell["surrogate"], cell["target"]): cell
             for cell in verdict.facts["cells"]}  # fmt: skip
    assert set(cells) == {(a, e, s, t) for a in ("ifgsm", "noise") for e in (0.03, 0.0) for s in names for t in names}
    labels = data.targets(data.clips, store.class_names)
    apply = make_apply(store, CPU)
    right = {"model": apply(model, data.clips).argmax(axis=1) == labels}
    right["other"] = apply(nearest_mean(store, 1), data.clips).argmax(axis=1) == labels
    assert right["model"].mean() > 0.4 and verdict.metrics["clean_accuracy"] == right["model"].mean()
    assert cells["ifgsm", 0.03, "model", "other"]["clips"] == (right["model"] & right["other"]).sum()
    assert all(cell["success"] == 0 for key, cell in cells.items() if key[1] == 0.0 and key[2] == key[3])
    own, noise = cells["ifgsm", 0.03, "model", "model"], cells["noise", 0.03, "model", "model"]
    assert own["success"] > noise["success"] and own["low"] <= own["success"] <= own["high"]
    assert own["bone"] > 0 and 0 < own["position"] <= 0.03 * 3**0.5 * 1.001 and own["largest"] <= 0.0301
    values = verdict.arrays["ifgsm 0.03 model > model"]
    assert verdict.metrics["robust_accuracy"] == (right["model"] & (np.nan_to_num(values[0], nan=1) == 0)).mean()
    changed = verdict.arrays["clips ifgsm 0.03"]
    assert len(changed) == right["model"].sum()
    clip = int(data.clips[np.flatnonzero(right["model"])[0]])
    clean = store.numbers(clip)
    moved = np.abs(changed[0][: len(clean), : clean.shape[1]] - np.nan_to_num(clean))
    assert 0 < moved.max() <= 0.0301 and not changed[0][:, clean.shape[1] :].any()
    again = model(torch.from_numpy(changed[[0]].astype(np.float32)), torch.tensor([clean.shape[1]])).argmax(dim=1)
    assert bool(again != labels[np.flatnonzero(right["model"])[0]]) == bool(values[0][right["model"]][0])


def test_targets_ask_for_another_class_of_models_with_and_without_smoothing(store, data) -> None:
    evaluation = build_evaluation("robustness", {
        "attacks": ["ifgsm"], "options": {"ifgsm": {"steps": 10}}, "epsilons": [0.1], "targeted": True, "draws": [0, 1],
        "smoothing": [1.0], "save": True,
    })  # fmt: skip
    model = nearest_mean(store, 0)
    verdict = evaluation.run(model, data, make_apply(store, CPU))
    right, labels = verdict.arrays["right"], verdict.arrays["labels"]
    lengths = torch.tensor([store.numbers(int(clip)).shape[1] for clip in data.clips[right]])
    found = model(torch.from_numpy(verdict.arrays["clips ifgsm 0.1"].astype(np.float32)), lengths).argmax(dim=1).numpy()
    np.testing.assert_array_equal(verdict.correct[right], found == labels[right])  # no clip that errs as nobody asked
    hits = verdict.arrays["ifgsm 0.1 model > model"][:, right]
    assert not verdict.correct[~right].any() and (hits[0] == 0).sum() > (found == labels[right]).sum()
    assert verdict.metrics["robust_accuracy"] == verdict.correct.mean() == verdict.metrics["robust_accuracy_mean"]
    assert "of the first draw" in verdict.facts["kind"]
    asked = wanted_classes(nearest_mean(store, 0), evaluation.options.seed).numpy()
    assert sorted(asked) == list(range(len(asked))) and not (asked == np.arange(len(asked))).any()
    rows = {row["attack"]: row for row in verdict.facts["attacks"]}
    assert rows["ifgsm"]["itself"] > rows["noise"]["itself"]
    pairs = {(cell["surrogate"], cell["target"]) for cell in verdict.facts["cells"]}
    smoothed = "model, smoothed 1"  # is attacked, too: through its smoothing
    assert pairs == {(one, two) for one in ("model", smoothed) for two in ("model", smoothed)}
    assert verdict.arrays["ifgsm 0.1 model > model"].shape == (2, len(data.clips))


def test_a_model_is_no_second_seed_of_itself(store, data, folders) -> None:
    twice = [str(folders["second"]), str(folders["second"])]
    evaluation = build_evaluation("robustness", {"attacks": ["ifgsm"], "models": {"other": twice}})
    with pytest.raises(UserError, match="'other' holds a model twice, which are no two seeds"):
        evaluation.run(nearest_mean(store, 0), data, make_apply(store, CPU))


def test_models_that_an_attack_looks_at_are_no_others(store, data, folders) -> None:
    """A target of an ensemble's own is left out for the ensemble alone, and named in no mean."""
    folder = [str(folders["second"])]
    evaluation = build_evaluation("robustness", {
        "attacks": ["ensemble", "mifgsm"], "models": {"other": folder}, "epsilons": [0.03], "clips": 8,
        "options": {"ensemble": {"steps": 1, "models": folder}, "mifgsm": {"steps": 1}},
    })  # fmt: skip
    verdict = evaluation.run(nearest_mean(store, 0), data, make_apply(store, CPU))
    rows = {row["attack"]: row for row in verdict.facts["attacks"]}
    assert rows["ensemble"]["others"] is None and rows["ensemble"]["itself"] is not None
    assert rows["mifgsm"]["others"] is not None and rows["mifgsm"]["less_first"] is None
    cells = {(cell["attack"], cell["target"]): cell for cell in verdict.facts["cells"]}
    assert cells["ensemble", "other"]["success"] is None and cells["mifgsm", "other"]["success"] is not None


@pytest.mark.parametrize("name", ["a > b", "x, smoothed 3"])
def test_a_name_that_a_report_cannot_hold_is_refused(store, data, name: str) -> None:
    evaluation = build_evaluation("robustness", {"attacks": ["ifgsm"], "name": name})
    with pytest.raises(UserError, match=f"cannot be called '{name}'"):
        evaluation.run(nearest_mean(store, 0), data, make_apply(store, CPU))


@pytest.mark.parametrize(
    ("build", "name", "options"),
    [(build_evaluation, "robustness", {"seed": -1}), (build_evaluation, "faithfulness", {"seed": -1}),
     (build_evaluation, "robustness", {"draws": [0, -2]}), (build_attack, "basar", {"seed": -3}),
     (build_surgery, "low_rank", {"seed": -1})],
)  # fmt: skip
def test_seeds_below_zero_are_refused(build, name: str, options: dict) -> None:
    with pytest.raises(UserError, match="0 or more"):
        build(name, options)


def test_smoothing_takes_off_what_is_too_fast_and_is_part_of_the_model(store, data) -> None:
    model = nearest_mean(store, 0)
    behind = defended(model, 2.0)
    joints = torch.from_numpy(store.joints(int(data.clips[0])).copy())[None]
    shaken = joints + 0.02 * (-1.0) ** torch.arange(joints.shape[2])[:, None, None] * (joints != 0)
    far, near = ((one.preprocess(shaken) - one.preprocess(joints)).abs().mean() for one in (model, behind))
    assert near < 0.2 * far and behind.description.preprocess["smoothing"] == 2.0
    assert model.preprocess.options.smoothing == 0.0


def test_the_verb_writes_a_report_to_read(store, folders, demo_store, tmp_path, capsys) -> None:
    options = ["steps=2", "ifgsm/one.steps=1", "tasar.samples=2", "tasar.bandwidth=0.3",
               "tasar.posterior={epochs: 1, dual_epochs: 1, inner: 1}"]  # fmt: skip
    words = [str(folders["first"]), f"--target=other={folders['second']}", "--attack=tasar", "--attack=ifgsm/one",
             *(f"--option={option}" for option in options), "--epsilon=0.03", "--epsilon=0.01",
             f"--data={demo_store}", "--protocol=demo/cross_subject", f"--out={tmp_path / 'report'}",
             "--name=mine"]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    page = (tmp_path / "report" / "report.md").read_text()
    assert "on others" in said and "report in" in said and "![heat maps](transfer.png)" in page
    assert all((tmp_path / "report" / name).stat().st_size > 2000 for name in ("transfer.png", "budget.png"))
    assert [report["attack_options"][name]["steps"] for name in ("ifgsm/one", "tasar")] == [1, 2]
    assert {row["attack"] for row in report["attacks"]} == {"tasar", "ifgsm/one", "noise"}
    assert len(report["cells"]) == 12 and {cell["target"] for cell in report["cells"]} == {"mine", "other"}
    with np.load(tmp_path / "report" / "scores.npz") as arrays:
        assert not any(key.startswith("clips ") for key in arrays.files)  # nobody's recordings unless asked for


def test_mistakes_on_the_command_line_are_told(folders) -> None:
    assert build_parser().parse_args(["x"]).target == []
    assert targets(["runs/a", "b=c,d"]) == {"a": ["runs/a"], "b": ["c", "d"]}
    assert attack_options(["steps=5", "tasar.motion=false"], ["ifgsm", "tasar"]) == {
        "ifgsm": {"steps": 5}, "tasar": {"steps": 5, "motion": False},
    }  # fmt: skip
    for word in ("zzz=1", "mig.steps=1", "steps"):
        with pytest.raises(UserError, match="--option"):
            attack_options([word], ["ifgsm"])
    for word in ("=x", "a="):
        with pytest.raises(UserError, match="--target"):
            targets([word])
    with pytest.raises(UserError, match="not asked for"):
        build_evaluation("robustness", {"options": {"mig": {}}})
    for key, flag in (("epsilon", "--epsilon"), ("targeted", "--targeted"), ("unit", "--unit"), ("seed", "--draws")):
        with pytest.raises(UserError, match=f"'{key}' is no option of ifgsm alone: give .*{flag}"):
            build_evaluation("robustness", {"options": attack_options([f"{key}=1"], ["ifgsm"])})
    for key in ("epsilons", "smoothing"):
        with pytest.raises(UserError, match="is there twice, in six digits: 0.05, 0.0500000001"):
            build_evaluation("robustness", {key: [0.05, 0.0500000001]})
    for epsilon in (-1.0, 1e300):
        with pytest.raises(UserError, match="epsilon"):
            build_evaluation("robustness", {"epsilons": [epsilon]})
