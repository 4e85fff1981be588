"""Starting from a checkpoint: what is loaded, frozen, refused; few shots; and resuming to the very same weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from running import SMALL, arguments, weights
from safetensors.torch import load_file, save_file

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.split import Split
from mmcl.data.store import open_store
from mmcl.data.thinning import draw_shots, short_classes
from mmcl.deploy.export import export_run
from mmcl.encoders.building import build_encoder
from mmcl.engine.configuring import configure
from mmcl.engine.loop import Loop
from mmcl.engine.setup import build_task, open_data
from mmcl.engine.start import start
from mmcl.models.bundle import describe, write_bundle
from mmcl.models.folder import find_model
from mmcl.models.learned import record_of
from mmcl.models.model import Model
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.train import train

FOREIGN = ["sit", "stand", "hop"]
# What the checkpoint says is left out: the encoder's size, the window.
PLAIN = [word for word in SMALL if not word.startswith(("--encoder", "--preprocess"))]


def make_source(folder: Path, names: list[str], layout: str = "kinect_v2_25") -> Path:
    """A bundle whose encoder has been somewhere: no default weights, no default statistics."""
    torch.manual_seed(5)
    joints = load_layout(layout)
    encoder = build_encoder("ctrgcn", joints, len(names), {"width": 8, "depth": 3, "persons": 1})
    preprocess = Preprocess(joints, joints, 1, PreprocessOptions(streams=("bone",), window=20, crop=0.9))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        encoder.train()
        encoder(preprocess(torch.randn(8, 1, 40, joints.joint_count, 3)))
    folder.mkdir()
    write_bundle(folder, Model(describe("ctrgcn", encoder, preprocess, names), encoder, preprocess))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return make_source(tmp_path_factory.mktemp("source") / "bundle", FOREIGN)


def command(store: Path, out: Path, source: Path, *more: str) -> list[str]:
    return [*PLAIN, f"--data.path={store}", f"--out={out}", f"--start.checkpoint={source}", *more]


def encoder_of(run: Path) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix("encoder."): tensor for name, tensor in weights(run).items() if name.startswith("encoder.")
    }


def test_a_linear_probe_leaves_every_tensor_but_the_classifier_bit_for_bit(
    demo_store, source, tmp_path, capsys
) -> None:
    out = tmp_path / "run"
    assert train(configure(command(demo_store, out, source, "--start.train=head"))) == 0
    before, after = load_file(source / "model.safetensors"), encoder_of(out)
    assert before.keys() == after.keys() and any("running_var" in name for name in before)
    changed = {
        name for name in before if before[name].shape != after[name].shape or not before[name].equal(after[name])
    }
    assert changed == {"classifier.weight", "classifier.bias"}
    opening = capsys.readouterr().out
    assert f"start: {source}" in opening and "trained: the classifier alone" in opening
    assert "new, for 12 classes that are not its 3" in opening
    assert "training clips show more people than encoder.persons (1): only the first are looked at" in opening
    facts = json.loads((out / "summary.json").read_text())["start"]
    assert facts == json.loads((out / "start.json").read_text()) and facts["checkpoint"] == str(source)


def test_all_of_it_is_trained_from_the_checkpoint_s_weights(demo_store, source, tmp_path) -> None:
    first, far = tmp_path / "first", tmp_path / "far"
    almost = ["--optimiser.rate=1e-9", "--optimiser.momentum=0", "--optimiser.nesterov=false", "--schedule.epochs=1"]
    train(configure(command(demo_store, first, source, *almost)))
    train(configure(command(demo_store, far, source)))
    before = load_file(source / "model.safetensors")
    for name, tensor in encoder_of(first).items():  # a learning rate of nothing: where did it start?
        if not name.startswith("classifier") and "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=1e-5)
    moved = {name for name, tensor in encoder_of(far).items() if not tensor.equal(before[name]) or "classifier" in name}
    assert {name for name in before if "weight" in name or "running" in name} <= moved


def started(words: list[str]) -> dict[str, torch.Tensor]:
    """The encoder of a run just before its first step."""
    config = configure(words)
    data = open_data(config)
    torch.manual_seed(config.seed)
    task = build_task(config, data, torch.device("cpu"))
    start(config, data, task.encoder)
    return {name: tensor.clone() for name, tensor in task.encoder.state_dict().items()}


def test_the_classifier_is_kept_where_class_names_are_equal_and_new_elsewhere(demo_store, source, tmp_path) -> None:
    names = open_store(demo_store).class_names
    random = started(command(demo_store, tmp_path / "x", source, "--start.weights=false"))
    for classes, kept in ((names, True), (names[::-1], False), (FOREIGN, False)):
        other = make_source(tmp_path / f"{len(list(tmp_path.iterdir()))}", classes)
        before, now = load_file(other / "model.safetensors"), started(command(demo_store, tmp_path / "x", other))
        assert now["classifier.weight"].equal((before if kept else random)["classifier.weight"])
        assert all(now[name].equal(before[name]) for name in before if not name.startswith("classifier"))
    assert not any(random[name].equal(before[name]) for name in before if name.endswith("conv.weight"))


def test_a_run_and_one_of_its_checkpoints_are_sources_too(demo_store, source, tmp_path) -> None:
    out = tmp_path / "run"
    train(configure(command(demo_store, out, source, "--start.train=head", "--data.layout=kinect_v2_25")))
    for path in (out, out / "checkpoints" / "last"):
        again = command(demo_store, tmp_path / "x", path)
        assert configure(again).preprocess.streams == ("bone",) and configure(again).encoder.width == 8
        assert all(tensor.equal(encoder_of(out)[name]) for name, tensor in started(again).items())
        record, unknown = record_of(find_model(path).description, path).lineage()
        assert (record.protocol, record.store) == ("demo/cross_subject", open_store(demo_store).fingerprint)
        assert record.trained is not None and len(record.trained) > 0 and unknown.weights  # a bundle that says nothing
    rule = tmp_path / "halves.yaml"
    rule.write_text(json.dumps({"halves": {"dataset": "demo", "train": {"subject": [1]}, "test": {"subject": [2]}}}))
    train(configure(command(demo_store, tmp_path / "next", out, f"--data.protocol={rule}", "--schedule.epochs=1")))
    export_run(tmp_path / "next", tmp_path / "bundle")
    for path in (tmp_path / "next", tmp_path / "bundle"):
        lineage = record_of(find_model(path).description, path).lineage()
        assert [one.protocol for one in lineage if one.protocol] == [str(rule), "demo/cross_subject"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither a bundle .* nor a run folder"):
        configure(command(demo_store, tmp_path / "x", tmp_path / "empty"))


def test_a_mirror_image_needs_joints_with_sides(demo_store, tmp_path) -> None:
    trunk = ["base_spine", "neck", "head"]
    tree = {"joints": trunk, "parents": {"neck": "base_spine", "head": "neck"}}
    (tmp_path / "own.yaml").write_text(json.dumps({"name": "own", **tree}))
    words = arguments(demo_store, tmp_path / "run", f"--data.layout={tmp_path / 'own.yaml'}")
    config = configure([*words, "--augmentation.flip=0.5"])
    with pytest.raises(UserError, match="no joints of layout 'own' begin with left_ and right_"):
        build_task(config, open_data(config), torch.device("cpu"))


def test_shape_and_input_are_the_checkpoint_s_unless_told_otherwise(demo_store, source, tmp_path) -> None:
    config = configure(command(demo_store, tmp_path / "run", source, "--preprocess.window=24", "--encoder.dropout=0.2"))
    assert (config.encoder.width, config.encoder.depth, config.encoder.persons) == (8, 3, 1)
    assert config.data.layout == "kinect_v2_25"
    assert config.preprocess == PreprocessOptions(("bone",), 24, crop=0.9, dimensions=3)
    data = open_data(config)
    facts = start(config, data, build_task(config, data, torch.device("cpu")).encoder)
    assert facts is not None and facts["changed"] == "preprocess.window 20 -> 24, encoder.dropout 0.0 -> 0.2"
    with pytest.raises(
        UserError, match=r"fits --encoder.width=8 \(now 16\), --data.layout=kinect_v2_25 \(now kinect_v1_20\)"
    ):
        started(command(demo_store, tmp_path / "run", source, "--encoder.width=16", "--data.layout=kinect_v1_20"))
    with pytest.raises(UserError, match="start.train is head"):
        configure(arguments(demo_store, tmp_path / "run", "--start.train=head"))


def test_joints_that_differ_are_converted_to_the_checkpoint_s_by_name(demo_store, tmp_path) -> None:
    source = make_source(tmp_path / "v1", FOREIGN, "kinect_v1_20")  # the clips have 25 joints
    config = configure(command(demo_store, tmp_path / "run", source))
    task = build_task(config, open_data(config), torch.device("cpu"))
    assert config.data.layout == "kinect_v1_20" and task.encoder.layout.joint_count == 20
    assert (task.preprocess.source.joint_count, task.preprocess.target.joint_count) == (25, 20)


def test_a_stopped_run_resumes_to_the_weights_of_a_straight_one(demo_store, source, tmp_path, monkeypatch) -> None:
    straight, out = tmp_path / "straight", tmp_path / "run"
    train(configure(command(demo_store, straight, source, "--start.train=head", "--task.label_smoothing=0.1")))
    words = command(demo_store, out, source, "--start.train=head", "--task.label_smoothing=0.1", "--resume=true")
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_asked_to_stop", lambda loop, _: loop.position.steps == 4)
        assert train(configure(words)) == 130
    assert train(configure(words)) == 0
    assert all(tensor.equal(weights(straight)[name]) for name, tensor in weights(out).items())
    tensors = load_file(source / "model.safetensors")
    other = make_source(tmp_path / "other", FOREIGN)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, other / "model.safetensors")
    (out / "summary.json").unlink()
    with pytest.raises(UserError, match="cannot resume.*start.checkpoint was"):
        train(configure([*words, f"--start.checkpoint={other}"]))
    record = json.loads((out / "start.json").read_text())
    (out / "start.json").write_text(json.dumps({**record, "sha256": "0"}))
    with pytest.raises(UserError, match="is not what it was when the run was begun"):
        train(configure(words))


def made_split() -> tuple[Split, SimpleNamespace]:
    """60 clips of three classes, 30, 20 and 4 of them for training."""
    labels = np.repeat([0, 1, 2], [33, 21, 6])
    train_clips = np.concatenate([np.arange(30), np.arange(33, 53), np.arange(54, 58)])
    test_clips = np.setdiff1d(np.arange(60), train_clips)
    ids = [f"clip{number:02d}" for number in np.random.default_rng(0).permutation(60)]
    empty = np.arange(0)
    store = SimpleNamespace(ids=ids, labels=labels, class_names=["a", "b", "c"])
    return Split(train_clips, empty, test_clips, np.arange(3), empty, empty, ids, labels), store


@pytest.mark.parametrize("shots", [1, 5, 10, 25])
def test_shots_are_so_many_clips_of_each_class_or_all_it_has(shots) -> None:
    sides, store = made_split()
    few = draw_shots(sides, store, shots, 3)
    assert np.bincount(store.labels[few.train]).tolist() == [min(shots, n) for n in (30, 20, 4)]
    assert set(few.train) <= set(sides.train) and not set(few.train) & set(sides.test)
    assert few.train.tolist() == sorted(few.train) and few.test is sides.test
    assert short_classes(few, store, shots) == {name: n for name, n in (("b", 20), ("c", 4)) if n < shots}
    assert draw_shots(sides, store, shots, 3).train.tolist() == few.train.tolist()
    assert any(draw_shots(sides, store, shots, seed).train.tolist() != few.train.tolist() for seed in range(4, 9))


def test_shots_go_by_ids_whatever_the_order_of_the_store() -> None:
    sides, store = made_split()
    few = {store.ids[clip] for clip in draw_shots(sides, store, 5, 0).train}
    order = np.random.default_rng(1).permutation(60)  # clip order[i] comes i-th now
    moved = SimpleNamespace(ids=[store.ids[i] for i in order], labels=store.labels[order], class_names="abc")
    there = np.flatnonzero(np.isin(order, sides.train))
    other = Split(there, *[sides.validation] * 2, sides.classes, *[sides.unseen] * 2, moved.ids, moved.labels)
    again = draw_shots(other, moved, 5, 0)
    assert {moved.ids[clip] for clip in again.train} == few
    assert few <= {store.ids[clip] for clip in draw_shots(sides, store, 10, 0).train}


def test_a_run_of_few_shots_says_so(demo_store, tmp_path, capsys) -> None:
    out = tmp_path / "run"
    train(configure(arguments(demo_store, out, "--data.shots=5", "--schedule.epochs=1", "--seed=2")))
    opening = capsys.readouterr().out
    assert "5 training clips a class, drawn by seed 2; classes that have fewer: " in opening and "24 train" in opening
    shots = json.loads((out / "summary.json").read_text())["shots"]
    assert (shots["clips_a_class"], shots["seed"], set(shots["fewer"].values())) == (5, 2, {2})
    config = configure(arguments(demo_store, out, "--data.shots=1"))
    store, few = open_store(demo_store), open_data(config).split
    whole = split(store, load_protocol("demo/cross_subject"))
    assert np.bincount(store.labels[few.train]).tolist() == [1] * 12 and set(few.train) < set(whole.train)
