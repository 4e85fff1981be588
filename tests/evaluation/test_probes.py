"""Probes: equal to the released code's votes, to closed forms, and run from a model folder to a report."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from golden import load_arrays
from scipy.stats import ttest_rel

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.store import open_store
from mmcl.data.thinning import draw_share
from mmcl.engine.parsing import parse
from mmcl.evaluation.base import build_evaluation, make_apply
from mmcl.evaluation.few_shot import FewShotOptions, accuracies, draw_episodes
from mmcl.evaluation.finetune import ARMS, Amount, FinetuneOptions, command
from mmcl.evaluation.judging import select
from mmcl.evaluation.knn import votes
from mmcl.evaluation.linear import LinearOptions, train_probe
from mmcl.evaluation.readouts import Sides, floors, readouts
from mmcl.evaluation.semi import gain_by_draw
from mmcl.models.folder import find_model, open_model
from mmcl.probe import main as probe
from mmcl.train import train

RUN = [
    "--data.protocol=demo/cross_subject", "--data.batch_size=8", "--data.workers=0", "--preprocess.window=16",
    "--augmentation.crop_floor=16", "--encoder.name=mamp", "--encoder.width=16", "--encoder.depth=2",
    "--encoder.heads=2", "--encoder.frames=16", "--optimiser.name=adamw", "--optimiser.rate=0.003",
    "--schedule.epochs=1", "--schedule.warmup_epochs=0", "--engine.trackers=[]",
]  # fmt: skip


@pytest.fixture(scope="module")
def model_folder(demo_store, tmp_path_factory) -> Path:
    """A run of one epoch of masked motion prediction."""
    out = tmp_path_factory.mktemp("probed") / "run"
    words = ["--task.name=masked_motion", "--task.decoder.width=16", "--task.decoder.depth=1", "--task.decoder.heads=2"]
    assert train(parse([*RUN, *words, f"--data.path={demo_store}", f"--out={out}"])) == 0
    return out


# ---- against the released code and closed forms


def test_votes_of_neighbours_equal_the_released_ones():
    arrays = load_arrays("stars", "knn")
    bank, labels, queries = arrays["in/bank"], arrays["in/bank_labels"], arrays["in/query"]
    right = arrays["in/query_labels"]
    classes = max(array.shape[1] for name, array in arrays.items() if name.endswith("/ranking"))
    cases = {name.rpartition("/")[0] for name in arrays} - {"in"}
    assert {case.partition("/")[0] for case in cases} == {"weighted", "unweighted"}
    for case in cases:
        kind, _, words = case.partition("/")
        k, _, temperature = words.removeprefix("k").partition("_t")
        sharpness = 1 / float(temperature) if kind == "weighted" else None
        found = votes(bank, labels, queries, int(k), classes, sharpness)
        if kind == "weighted":
            order = np.argsort(-found, axis=1, kind="stable")
            np.testing.assert_array_equal(order, arrays[f"{case}/ranking"], err_msg=case)
        else:
            np.testing.assert_array_equal(found.argmax(axis=1), arrays[f"{case}/prediction"], err_msg=case)
        share = (found.argmax(axis=1) == right).mean()
        assert share == pytest.approx(float(arrays[f"{case}/accuracy"])), case


def test_all_vote_where_there_are_fewer_than_k():
    found = votes(np.eye(3), np.array([0, 2, 2]), np.array([[1.0, 0, 0]]), 10, 4)
    np.testing.assert_allclose(found, [[1 / 3, 0, 2 / 3, 0]])


def test_votes_are_those_of_the_softmax_however_sharp():
    """At a temperature of 0.001 the exponential of a cosine is beyond double precision."""
    rng = np.random.default_rng(0)
    bank, queries, labels = rng.normal(size=(40, 6)), rng.normal(size=(10, 6)), rng.integers(0, 5, 40)
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (queries, bank)]
    cosine = unit[0] @ unit[1].T
    for temperature in (0.001, 0.07):
        found = votes(bank, labels, queries, 3, 5, 1 / temperature)
        for query in range(10):
            near = (-cosine[query]).argsort()[:3]
            weight = np.exp((cosine[query][near] - cosine[query][near].max()) / temperature)
            expected = np.bincount(labels[near], weights=weight / weight.sum(), minlength=5)
            np.testing.assert_allclose(found[query], expected, atol=1e-9)


def test_one_clip_a_class_is_nothing_to_warn_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (votes(np.eye(30), np.arange(30), np.eye(30), 1, 30).argmax(axis=1) == np.arange(30)).all()


def test_a_linear_probe_separates_what_a_plane_separates_whatever_the_scale():
    draws = np.random.default_rng(0)
    labels = torch.arange(120) % 3
    rows = torch.from_numpy(draws.normal(size=(120, 8))).float()
    rows[torch.arange(120), labels] += 8.0
    scales = torch.tensor([1e-3, 1.0, 1e3, 1, 1, 1, 1, 1])
    head = train_probe(rows * scales, labels, 3, LinearOptions(epochs=20, batch=30))
    with torch.no_grad():
        assert (head.eval()(rows * scales).argmax(dim=1) == labels).float().mean() == 1.0
    again = train_probe(rows * scales, labels, 3, LinearOptions(epochs=20, batch=30))
    assert torch.equal(head[1].weight, again[1].weight)
    shuffled = labels[torch.randperm(120, generator=torch.Generator().manual_seed(1))]
    head = train_probe(torch.randn(120, 2), shuffled, 3, LinearOptions(epochs=20, batch=30))
    assert (head.eval()(torch.randn(300, 2)).argmax(dim=1) == torch.arange(300) % 3).float().mean() < 0.5


def made_sides(classes: int, each: int) -> Sides:
    labels = np.repeat(np.arange(classes), each)
    return Sides(np.arange(len(labels)), labels, np.arange(len(labels)), labels, [str(c) for c in range(classes)])


def test_episodes_hold_so_many_classes_and_clips_and_their_closed_forms():
    sides, options = made_sides(6, 4), FewShotOptions(ways=3, queries=2, episodes=50)
    episodes = draw_episodes(sides, 2, options)
    assert len(episodes) == 50
    for episode in episodes:
        assert episode.support.shape == (3, 2) and len(np.unique(episode.support)) == 6
        classes = sides.bank_labels[episode.support]
        assert (classes == classes[:, :1]).all() and len(np.unique(classes[:, 0])) == 3
        assert (sides.labels[episode.queries] == classes[episode.labels, 0]).all()
        assert np.bincount(episode.labels).tolist() == [2, 2, 2]
    rows = np.eye(6)[sides.bank_labels]
    assert (accuracies(rows, rows, episodes) == 1.0).all()
    assert (accuracies(rows, np.roll(np.eye(6), 1, axis=0)[sides.labels], episodes) < 0.6).all()
    noise = np.random.default_rng(0).normal(size=(2, 24, 16))
    chance = accuracies(noise[0], noise[1], draw_episodes(sides, 1, FewShotOptions(ways=3, queries=4, episodes=2000)))
    assert chance.mean() == pytest.approx(1 / 3, abs=0.05)
    with pytest.raises(UserError, match="6 classes have 2 training clips.*few_shot.ways=6"):
        draw_episodes(sides, 2, FewShotOptions(ways=7))


def test_a_share_of_the_clips_is_nested_and_by_seed(demo_store):
    store = open_store(demo_store)
    whole = split(store, load_protocol("demo/cross_subject"))
    some = {share: draw_share(whole, share, 3).train for share in (0.01, 0.25, 0.5)}
    assert [len(some[share]) for share in some] == [1, round(0.25 * len(whole.train)), round(0.5 * len(whole.train))]
    assert set(some[0.01]) <= set(some[0.25]) <= set(some[0.5]) <= set(whole.train)
    assert not np.array_equal(draw_share(whole, 0.5, 4).train, some[0.5])


# ---- on a model


def test_readouts_and_floors(model_folder, demo_store):
    store, model = open_store(demo_store), open_model(model_folder)
    apply = make_apply(store, torch.device("cpu"))
    rows = {name: apply(function, np.arange(6)) for name, function in {**readouts(model), **floors(model)}.items()}
    joints = model.layout.joint_count
    raw = 2 * 32 * joints * 3
    widths = {"features": 16, "joints": 16 * joints, "coordinates": raw, "velocities": raw, "random encoder": 16,
              "random encoder, joints": 16 * joints}  # fmt: skip
    assert {name: found.shape[1] for name, found in rows.items()} == widths
    # Every joint counts the same, so that the mean token is the mean of the joints' ones.
    means = rows["joints"].reshape(6, joints, 16).mean(axis=1)
    np.testing.assert_allclose(means, rows["features"], atol=1e-5)
    assert not np.allclose(rows["random encoder"], rows["features"], atol=1e-2)
    coordinates = rows["coordinates"].reshape(6, 2, 32, joints, 3)
    assert np.abs(coordinates[:, :, :, model.layout.centre]).max() < 1e-6
    velocities = rows["velocities"].reshape(coordinates.shape)
    np.testing.assert_allclose(velocities[:, :, 1:31].std(), np.diff(coordinates, axis=2)[:, :, 1:31].std(), rtol=0.05)
    again = apply(floors(model)["random encoder"], np.arange(6))
    np.testing.assert_array_equal(again, rows["random encoder"])
    assert not np.allclose(apply(floors(model, seed=1)["random encoder"], np.arange(6)), again, atol=1e-3)


def test_the_verb_judges_features_and_floors_and_writes_reports(model_folder, tmp_path, capsys):
    words = ["--checkpoint", str(model_folder), "--out", str(tmp_path), "--probe", "knn", "--probe", "linear",
             "--probe", "few_shot", "--option", "few_shot.episodes=20", "--option", "few_shot.shots=[1]",
             "--option", "few_shot.neighbours=[1]", "--option", "knn.k=[1,3]",
             "--option", "linear.epochs=5"]  # fmt: skip
    assert probe(words) == 0
    printed = capsys.readouterr().out
    names = ["features", "joints", "coordinates", "velocities", "random encoder", "random encoder, joints"]
    for name in ("knn", "linear", "few_shot"):
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert list(report["top1_by_readout"]) == names and 0 <= report[report["main"]] <= 1
        assert f"{name} on demo/cross_subject test" in printed and (tmp_path / name / "report.md").is_file()
    few = json.loads((tmp_path / "few_shot" / "report.json").read_text())["top1_by_readout"]["coordinates"]
    knn = json.loads((tmp_path / "knn" / "report.json").read_text())["top1_by_readout"]["coordinates"]
    assert few["1 nearest of all"]["top1"] == knn["k=1"]
    assert few["5-way 1-shot"]["low"] < few["5-way 1-shot"]["top1"] < few["5-way 1-shot"]["high"]


def test_graphs_alone_have_nothing_to_read():
    with pytest.raises(UserError, match="holds ONNX graphs alone"):
        readouts(SimpleNamespace(path="bundle"))


def test_bad_options_are_named(model_folder):
    for words, message in ((["--option", "linear.rate=1"], "PROBE.KEY=VALUE"), (["--option", "knn.k=[0]"], "knn.k"),
                           (["--option", "knn.kk=1"], "knn.*no option kk|no option kk")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            probe(["--checkpoint", str(model_folder), "--probe", "knn", *words])


def test_the_side_that_is_learned_from_is_not_judged(model_folder):
    saved = find_model(model_folder)
    data = select(saved, None, None, "train")
    for name in ("knn", "few_shot", "linear", "finetune", "semi"):
        with pytest.raises(UserError, match="learns from the clips of the train side"):
            build_evaluation(name).run(saved.load(), data, make_apply(data.store, torch.device("cpu")))


def test_a_share_that_is_one_clip_is_refused_before_anything_is_trained(model_folder):
    data = select(find_model(model_folder), None, None)
    share = 1 / len(data.sides.train)
    with pytest.raises(UserError, match="training clips is 1, and training takes two.*semi.shots"):
        list(command(open_model(model_folder), data, FinetuneOptions(), Amount(share), ARMS[0]))


def test_few_labels_fine_tuned_and_from_scratch(model_folder, demo_store, tmp_path):
    """Two draws of a clip a class, each trained twice; a second call finds the runs complete."""
    saved = find_model(model_folder)
    data = select(saved, None, None)
    apply = make_apply(data.store, torch.device("cpu"))
    training = {"epochs": 1, "batch": 8, "folder": str(tmp_path / "runs"),
                "encoder": {"pooling": "joints", "head": "mlp", "hidden": 8}}  # fmt: skip
    evaluation = build_evaluation("semi", {"shots": [1], "repeats": 2, "training": training})
    verdict = evaluation.run(saved.load(), data, apply)
    row = verdict.metrics["top1_by_readout"]["1 clip a class"]
    assert set(row) == {"fine-tuned", "deviation", "from scratch", "gain", "gain, draws paired",
                        "coordinates, nearest clip", "velocities, nearest clip"}  # fmt: skip
    assert row["gain"]["difference"] == pytest.approx(row["fine-tuned"] - row["from scratch"])
    paired = row["gain, draws paired"]
    assert len(paired["by_draw"]) == 2 and np.mean(paired["by_draw"]) == pytest.approx(row["gain"]["difference"])
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 4
    starts = [json.loads((run / "start.json").read_text())["loaded"] for run in runs]
    assert sum(words == "no weights" for words in starts) == 2
    rates = json.loads((runs[0] / "metrics.jsonl").read_text().splitlines()[0])
    assert rates["rate/level0"] / rates["rate/classifier"] == pytest.approx(0.8**3)  # input, two blocks, last norm
    settings = {run.name[:4]: yaml.safe_load((run / "config.yaml").read_text()) for run in runs}
    found = {name: (each["optimiser"]["rate"], each["task"]["layer_decay"]) for name, each in settings.items()}
    assert found == {"fine": (3e-4, 0.8), "from": (2e-3, 1.0)}  # random weights are trained as suits them
    before = [(run / "summary.json").stat().st_mtime_ns for run in runs]
    again = evaluation.run(saved.load(), data, apply)
    assert again.metrics == verdict.metrics
    assert before == [(run / "summary.json").stat().st_mtime_ns for run in runs]
    bank = Amount(shots=1, seed=0).subset(data).sides.train
    assert len(bank) == len(data.sides.classes)


def test_the_paired_interval_is_that_of_a_t_test_of_the_draws():
    own, base = np.random.default_rng(0).normal(size=(2, 5)) * 0.02 + [[0.5], [0.4]]
    found = gain_by_draw(own - base)
    low, high = ttest_rel(own, base).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert "low" not in gain_by_draw(np.array([0.1]))


def test_fine_tuning_on_all_clips(model_folder, tmp_path):
    saved = find_model(model_folder)
    data = select(saved, None, None)
    options = {"epochs": 1, "batch": 8, "scratch": False, "folder": str(tmp_path / "runs")}
    verdict = build_evaluation("finetune", options).run(saved.load(), data, make_apply(data.store, torch.device("cpu")))
    assert list(verdict.metrics["top1_by_readout"]) == ["fine-tuned", "coordinates, nearest clip",
                                                       "velocities, nearest clip"]  # fmt: skip
    assert verdict.correct is not None and verdict.metrics["finetune_top1"] == verdict.correct.mean()
