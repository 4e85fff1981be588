"""What every evaluation, surgery, attack and attribution promises, tried on a small model and the demo's clips."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmcl.attacks import ATTACKS
from mmcl.attacks.base import Attack, build_attack
from mmcl.attributions import ATTRIBUTIONS
from mmcl.attributions.base import build_attribution
from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore, open_store
from mmcl.deploy.export import described
from mmcl.encoders.building import build_encoder
from mmcl.engine.configuring import configure
from mmcl.evaluation import EVALUATIONS
from mmcl.evaluation.base import Evaluation, Verdict, build_evaluation, make_apply
from mmcl.evaluation.report import write_report
from mmcl.evaluation.reporting.saved import read_report
from mmcl.models.bundle import build_network, describe, load_bundle, write_bundle
from mmcl.models.description import parse_description
from mmcl.models.folder import open_model
from mmcl.models.model import Model
from mmcl.models.projection import ProjectionHead
from mmcl.models.vocabulary import Vocabulary
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.surgery import SURGERIES
from mmcl.surgery.base import build_surgery
from mmcl.train import train

OF_SEVERAL = ("fuse",)  # surgeries that need other models: tests/encoders/test_fuse.py
WITHHELD, D, CPU = [2, 7], 6, torch.device("cpu")
TEXT = {"source": "sentence", "model": "made-up", "clip_model": None, "clip_pretrained": None}
# These need a run, or train some: tests/evaluation/test_probes.py, test_continual.py, tests/tasks/test_sa_dvae_runs.py.
RUNS = ("finetune", "semi", "continual", "cycles")
SURGERIES_TOO = {"factored": "contracts.factored:Factored"}


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The throw-away surgery stands in the registry as one that ships does."""
    with patch.dict(SURGERIES._entries, SURGERIES_TOO):
        yield


@pytest.fixture(scope="module")
def store(demo_store) -> ClipStore:
    return open_store(demo_store)


@pytest.fixture(scope="module")
def rules(tmp_path_factory) -> Path:
    """A protocol that withholds two classes, and a label map from the demo to itself."""
    folder = tmp_path_factory.mktemp("rules")
    sides = {"dataset": "demo", "train": {"subject": [1, 3]}, "test": {"subject": [2, 4]}}
    rule = {"open": {"dataset": "demo", "base": "sides", "unseen": WITHHELD}, "sides": sides}
    (folder / "own.yaml").write_text(json.dumps(rule))
    (folder / "map.yaml").write_text("{protocol: own, source: demo, target: demo, pairs: {0: 1, 3: 3}}")
    return folder


def small(store: ClipStore, names: list[str], table: list[str] = (), facts: dict | None = None) -> Model:
    """A small network with lived-in statistics; with a table of made-up texts where asked."""
    torch.manual_seed(3)
    encoder = build_encoder("ctrgcn", store.layout, len(names), {"width": 8, "depth": 3, "persons": 1})
    preprocess = Preprocess(store.layout, store.layout, 1, PreprocessOptions(window=16))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        encoder.train()(preprocess(torch.randn(8, 1, 20, store.layout.joint_count, 3)))
    vocabulary = None
    if table:
        head = ProjectionHead(encoder.feature_width, D)
        head.text = TEXT
        rows = torch.nn.functional.normalize(torch.randn(len(table), D), dim=-1)
        vocabulary = Vocabulary(head, ["{name}"], table, rows)
    description = describe("ctrgcn", encoder.eval(), preprocess, names, facts, vocabulary)
    return Model(description, encoder, preprocess, vocabulary, Path("made-up"))


@pytest.fixture(scope="module")
def model(store) -> Model:
    return small(store, store.class_names)


def chosen(store: ClipStore, protocol: str, side: str = "test") -> Selection:
    rule = load_protocol(protocol)
    return Selection(store, protocol, rule, split(store, rule), side)


def evaluation_case(name: str, store: ClipStore, rules: Path) -> tuple[Model, Selection, dict]:
    """A model, clips and options that fit an evaluation; what is not named here is judged as top-1 is."""
    if name == "transfer":
        return small(store, store.class_names), Selection(store), {"map": str(rules / "map.yaml")}
    if name == "classes":
        return small(store, store.class_names, store.class_names), Selection(store), {"classes": "own"}
    if name == "open_vocabulary":
        data = chosen(store, f"{rules / 'own.yaml'}:open", "unseen")
        seen = [store.class_names[label] for label in data.sides.classes]
        return small(store, seen, store.class_names), data, {}
    return small(store, store.class_names), chosen(store, "demo/cross_subject"), EVALUATIONS[name].tiny


def close(one: object, two: object) -> None:
    """Nested numbers agree."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            close(one[key], two[key])
    elif isinstance(one, float):
        assert one == pytest.approx(two, abs=1e-5)
    else:
        assert one == two


@pytest.mark.parametrize("name", [name for name in EVALUATIONS if name not in RUNS])
def test_an_evaluation_keeps_its_promises(name, store, rules, tmp_path) -> None:
    judged, data, options = evaluation_case(name, store, rules)
    before = copy.deepcopy(judged.state_dict())
    evaluation = build_evaluation(name, options)
    verdict = evaluation.run(judged, data, make_apply(store, CPU, 64))
    assert verdict.metrics[verdict.main] is not None and len(set(verdict.ids)) == len(verdict.ids) > 0
    assert set(verdict.ids) <= set(store.ids)
    again = evaluation.run(judged, data, make_apply(store, CPU, 5))  # other batches, the same evaluation once more
    close(dict(verdict.metrics), dict(again.metrics))
    assert verdict.ids == again.ids and all(tensor.equal(before[key]) for key, tensor in judged.state_dict().items())
    report = write_report(tmp_path / "report", verdict, {"protocol": "p", "split": "s", "data_fingerprint": "f"})
    saved = read_report(tmp_path / "report")
    assert saved.value == pytest.approx(report[verdict.main]) and sorted(verdict.ids) == saved.ids
    if verdict.correct is not None:
        assert saved.correct.mean() == pytest.approx(verdict.correct.mean())
    with pytest.raises(UserError, match="no option zzz"):
        build_evaluation(name, {"zzz": 1})


@pytest.mark.parametrize("name", [name for name in [*SURGERIES, *SURGERIES_TOO] if name not in OF_SEVERAL])
def test_a_surgery_gives_another_model_that_is_exported_loaded_and_operated_again(name, model, store, tmp_path) -> None:
    data = chosen(store, "demo/cross_subject", "train")
    before, described = copy.deepcopy(model.state_dict()), model.description
    surgery = build_surgery(name, SURGERIES[name].tiny)
    changed = surgery.run(model, data)
    joints = torch.from_numpy(store.joints(0).copy())[None]
    assert all(tensor.equal(before[key]) for key, tensor in model.state_dict().items())
    assert model.description == described and not torch.equal(changed(joints), model(joints))
    assert [operation.name for operation in changed.description.surgeries] == [name]
    assert changed.record.parents[0].trained is None and changed.record.weights != changed.record.parents[0].weights
    read = parse_description(json.loads(json.dumps(changed.description.to_json())), "again")
    built, _ = build_network(read, "again")
    shapes = {key: tensor.shape for key, tensor in built.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in changed.encoder.state_dict().items()}
    (tmp_path / "bundle").mkdir()
    write_bundle(tmp_path / "bundle", changed)
    loaded = load_bundle(tmp_path / "bundle")
    torch.testing.assert_close(loaded(joints), changed(joints), rtol=1e-5, atol=1e-5)
    twice = build_surgery("adapt", {"batch_size": 8}).run(loaded, data)
    assert [operation.name for operation in twice.description.surgeries] == [name, "adapt"]
    assert len([*twice.record.lineage()]) == 3
    with pytest.raises(UserError, match="no option zzz"):
        build_surgery(name, {"zzz": 1})


def test_a_model_with_other_modules_is_trained_on_and_loaded_again(model, demo_store, tmp_path) -> None:
    """The surgery is in the run's configuration and description: nobody needs the bundle that it started from."""
    changed = build_surgery("factored", {"rank": 2}).run(model)
    (tmp_path / "bundle").mkdir()
    write_bundle(tmp_path / "bundle", changed)
    words = [f"--start.checkpoint={tmp_path / 'bundle'}", f"--data.path={demo_store}", "--data.workers=0",
             "--data.protocol=demo/cross_subject", "--data.batch_size=8", "--schedule.epochs=1",
             "--schedule.warmup_epochs=0", "--engine.trackers=[]", f"--out={tmp_path / 'run'}"]  # fmt: skip
    config = configure(words)
    assert [operation.name for operation in config.surgeries] == ["factored"]
    assert train(config) == 0
    (tmp_path / "bundle" / "model.safetensors").unlink()
    trained = open_model(tmp_path / "run")
    assert isinstance(trained.encoder.classifier, nn.Sequential) and trained.encoder.altered
    assert trained.encoder.classifier[0].weight.shape[0] == 2
    (tmp_path / "out").mkdir()
    trained.description = described(trained)
    write_bundle(tmp_path / "out", trained)
    again, joints = load_bundle(tmp_path / "out"), torch.randn(2, 1, 20, trained.layout.joint_count, 3)
    torch.testing.assert_close(again(joints), trained(joints), rtol=1e-5, atol=1e-5)
    content = again.description.to_json()
    assert content["surgeries"][0]["structure"] == {"rank": 2, "widths": [12, 32]}
    content["surgeries"][0]["structure"]["rank"] = 10**9
    with pytest.raises(UserError, match="a rank of 1000000000 does not fit"):
        build_network(parse_description(content, "edited"), "edited")


@pytest.fixture(scope="module")
def clips(store) -> tuple[Tensor, Tensor]:
    """Four clips of different lengths with joints that are missing, and their labels."""
    joints = torch.zeros(4, 1, 40, store.layout.joint_count, 3)
    for row, clip in enumerate((0, 9, 17, 30)):
        part = torch.from_numpy(store.joints(clip)[:, : 28 + 4 * row].copy())
        joints[row, :, : part.shape[1]] = part
    joints[0, 0, 3, 4] = 0.0
    joints[1, 0, 5, 2] = torch.nan
    return joints, torch.from_numpy(store.labels[[0, 9, 17, 30]].copy())


@pytest.fixture(scope="module")
def undecided(store) -> Model:
    """A model that answers with many classes: its mean scores are brought to zero."""
    model = small(store, store.class_names)
    scores = make_apply(store, CPU)(model, np.arange(0, len(store), 3))
    with torch.no_grad():
        model.encoder.classifier.bias -= torch.from_numpy(scores.mean(axis=0))
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    """A model as a bundle, for attacks on several."""
    path = tmp_path_factory.mktemp("others")
    write_bundle(path, model)
    return path


@pytest.mark.parametrize("unit", ["metres", "body"])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_stays_in_its_budget_and_touches_nobody_who_is_not_there(
    name, unit, undecided, clips, store, folder
) -> None:
    joints, model = clips[0], undecided
    labels = model(joints.nan_to_num(0.0)).argmax(dim=1)  # some attacks rest where the model errs already
    others = {"models": [str(folder)]} if name == "ensemble" else {}
    attack = build_attack(name, {**ATTACKS[name].tiny, **others, "epsilon": 0.02, "unit": unit})
    model = attack.prepare(model, chosen(store, "demo/cross_subject", "train"))
    found, again = attack.run(model, joints, labels), attack.run(model, joints, labels)
    clean, there = joints.nan_to_num(0.0), (joints.nan_to_num(0.0) != 0).any(dim=-1)
    assert torch.equal(found, again) and found.shape == joints.shape and not found.requires_grad
    size = 1.0
    if unit == "body":
        extent = clean.masked_fill(~there[..., None], -9).amax(3) - clean.masked_fill(~there[..., None], 9).amin(3)
        size = float(extent.amax())  # no smaller than any clip's median extent
        assert 0.5 < size < 3.0
    moved = (found - clean).abs()
    assert 0 < moved.max() <= 0.02 * size * 1.0001 and not moved[~there].any()
    attack.options = dataclasses.replace(attack.options, epsilon=0.0)
    torch.testing.assert_close(attack.run(model, joints, labels), clean)
    for wrong in (labels[:2], labels.float(), labels + 100):
        with pytest.raises(UserError, match="labels must be"):
            attack.run(model, joints, wrong)
    with pytest.raises(UserError, match="epsilon"):
        build_attack(name, {**others, "epsilon": -1.0}).run(model, joints, labels)


def test_the_gradient_does_more_harm_than_noise_and_a_target_is_approached(model, clips, folder) -> None:
    joints, labels = clips
    lengths = torch.tensor([28, 32, 36, 40])

    def loss(x: Tensor, wanted: Tensor) -> float:
        return float(nn.functional.cross_entropy(model(x.nan_to_num(0.0), lengths), wanted))

    def attacked(name: str) -> Tensor:
        attack = build_attack(name, {"epsilon": 0.05, **({"models": [str(folder)]} if name == "ensemble" else {})})
        return attack.run(attack.prepare(model, None), joints, labels)

    harm = {name: loss(attacked(name), labels) for name in ("noise", "fgsm", "ifgsm", "mifgsm", "dim", "ensemble")}
    assert min(harm[name] for name in harm if name != "noise") > max(harm["noise"], loss(joints, labels)) + 0.05
    target = (labels + 1) % 12
    moved = build_attack("ifgsm", {"epsilon": 0.05, "targeted": True}).run(model, joints, target)
    assert loss(moved, target) < loss(joints, target)


def test_an_attack_that_leaves_its_budget_is_a_fault_that_is_seen(model, clips) -> None:
    class Far(Attack):
        def perturb(self, model, joints, lengths, labels, mask, limit):
            return joints + 1.01 * limit * mask[..., None]

    class Ghosts(Attack):
        def perturb(self, model, joints, lengths, labels, mask, limit):
            return joints + 0.5 * limit

    for kind, words in ((Far, "beyond its budget"), (Ghosts, "not there")):
        entry = {"bad": f"{kind.__module__}:{kind.__qualname__}"}
        with patch.dict(ATTACKS._entries, entry), pytest.raises(RuntimeError, match=words):
            kind(Attack.options_type()).run(model, *clips)


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_an_attribution_shares_a_score_among_joints_and_says_what_is_left(name, model, clips) -> None:
    joints, labels = clips[0].nan_to_num(0.0), clips[1]
    lengths, V = torch.tensor([28, 32, 36, 40]), joints.shape[3]
    background = joints[[1, 2]].roll(1, dims=0)
    found = build_attribution(name, ATTRIBUTIONS[name].tiny).run(model, joints, lengths, labels, background)
    again = build_attribution(name, ATTRIBUTIONS[name].tiny).run(model, joints, lengths, labels, background)
    assert found.values.shape == (4, V) and torch.equal(found.values, again.values)
    torch.testing.assert_close(found.scores, model(joints, lengths)[torch.arange(4), labels])
    expected = found.scores - found.baseline - found.values.sum(dim=1)
    torch.testing.assert_close(found.residual, expected)
    try:
        frames = build_attribution(name, {**ATTRIBUTIONS[name].tiny, "over": "frames"})
        parts = frames.run(model, joints, lengths, labels, background).values
    except UserError as error:
        assert "none a frame" in str(error)
    else:
        assert parts.shape == (4, 16, V)  # frames of the model's window
        torch.testing.assert_close(parts.sum(dim=1), found.values)
    for wrong in (background[:0], background[:, :, :, :5]):
        with pytest.raises(UserError, match="background clips must be"):
            build_attribution(name).run(model, joints, lengths, labels, wrong)
    with pytest.raises(UserError, match="target must be from 0 to 11"):
        build_attribution(name).run(model, joints, lengths, labels + 12, background)


def test_gradient_times_input_is_exact_where_the_model_is_linear(store) -> None:
    """A network of one matrix behind a preparation that only resizes: the score is a sum over joints."""
    network = small(store, store.class_names)
    layout = store.layout

    class Linear(type(network.encoder)):
        def features(self, x):
            return self.matrix(x.flatten(1))

    torch.manual_seed(0)
    network.encoder.__class__ = Linear
    network.encoder.matrix = nn.Linear(16 * layout.joint_count * 3, network.encoder.feature_width)
    network.encoder.altered = True  # no folded form of CTR-GCN
    options = PreprocessOptions(window=16, centring="none", crop=1.0, gaps="zero")
    network.preprocess = Preprocess(layout, layout, 1, options)
    joints = torch.randn(3, 1, 24, layout.joint_count, 3) + 2.0
    background, target = torch.randn(5, 1, 24, layout.joint_count, 3) + 2.0, torch.tensor([0, 5, 11])
    found = build_attribution("gradient").run(network, joints, None, target, background)
    assert found.values.abs().max() > 0.01 and found.residual.abs().max() < 1e-4
    left = build_attribution("random").run(network, joints, None, target, background).residual
    assert left.abs().max() > 0.1  # the control is no explanation


class Extremes(Evaluation):
    """An evaluation with arrays and a picture of its own, and no clip that is right or wrong."""

    options_type = type(build_evaluation("top1").options)

    def run(self, model, data, apply):
        sizes = apply(lambda joints, lengths: joints.abs().flatten(1).amax(dim=1), data.clips)
        numbers = {"largest": float(sizes.max()), "by_half": {"first": float(sizes[: len(sizes) // 2].max())}}
        return Verdict(numbers, "largest", data.ids(data.clips), arrays={"sizes": sizes}, facts={"protocol": "made-up"})

    def draw(self, verdict, folder, store):
        (folder / "sizes.txt").write_text(str(verdict.arrays["sizes"].tolist()))
        return ["## Sizes", "[all of them](sizes.txt)"]


def test_an_evaluation_of_another_kind_has_its_own_arrays_and_page(model, store, tmp_path) -> None:
    data, evaluation = chosen(store, "demo/cross_subject"), Extremes(None)
    verdict = evaluation.run(model, data, make_apply(store, CPU, 7))
    naive = max(float(np.abs(store.joints(int(clip))).max()) for clip in data.clips)
    assert verdict.metrics["largest"] == pytest.approx(naive)
    write_report(tmp_path / "report", verdict, {"data_fingerprint": "f"}, evaluation=evaluation)
    page, saved = (tmp_path / "report" / "report.md").read_text(), read_report(tmp_path / "report")
    assert "# largest" in page and "(sizes.txt)" in page and "by half" in page.casefold()
    assert (tmp_path / "report" / "sizes.txt").is_file() and saved.correct is None and not saved.classified
    assert np.load(tmp_path / "report" / "scores.npz")["sizes"].shape == (len(data.clips),)
