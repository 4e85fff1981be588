"""A bundle is the trained graph and nothing else: exported, verified, loaded without the training stack, predicted."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mmcl
from mmcl.common.errors import UserError
from mmcl.common.files import check_replaceable
from mmcl.deploy.export import export_model
from mmcl.deploy.verify import TRAINING_PACKAGES, verify_bundle
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_parameters
from mmcl.export import main as export
from mmcl.models.bundle import describe, write_bundle
from mmcl.models.card import model_card
from mmcl.models.description import is_bundle, read_bundle
from mmcl.models.model import Model
from mmcl.predict import main as predict
from mmcl.skeletons.convert import conversion_matrix
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

pytestmark = pytest.mark.usefixtures("real_fresh_processes")
SOURCE, TARGET = load_layout("utd_mhad_20"), load_layout("kinect_v2_25")
NAMES = ["wave", "throw a ball", "sit down", "jump", "walk", "fall"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An encoder with lived-in statistics on 25 joints, fed from 20 through layout conversion; and its bundle."""
    torch.manual_seed(0)
    encoder = build_encoder("ctrgcn", TARGET, len(NAMES), {"width": 16, "depth": 4, "persons": 2})
    options = PreprocessOptions(streams=("bone",), window=24, centring="every_frame", crop=0.9, scaling="box")
    preprocess = Preprocess(SOURCE, TARGET, 2, options)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        encoder.train()
        for _ in range(3):
            encoder(preprocess(torch.randn(8, 2, 40, 20, 3)))
    encoder.eval()
    facts, folder = {"dataset": "none", "protocol": "none/test"}, tmp_path_factory.mktemp("made")
    write_bundle(folder, Model(describe("ctrgcn", encoder, preprocess, NAMES, facts), encoder, preprocess))
    return encoder, preprocess, folder


@pytest.fixture
def trained(made):
    """A copy of the encoder and of what comes before it."""
    return copy.deepcopy(made[:2])


@pytest.fixture
def bundle(made, tmp_path) -> Path:
    """A copy of the bundle."""
    return Path(shutil.copytree(made[2], tmp_path / "bundle"))


def naive_probe(trained, path: Path) -> dict[str, torch.Tensor]:
    """Clips and the scores that the encoder itself gives them, in double precision."""
    encoder, preprocess = (copy.deepcopy(part).double() for part in trained)
    preprocess.dtype = torch.float64
    joints, lengths = torch.randn(3, 2, 50, 20, 3), torch.tensor([50, 31, 44])
    with torch.no_grad():
        probe = {"joints": joints, "lengths": lengths, "scores": encoder(preprocess(joints.double(), lengths))}
    save_file(probe, path)
    return probe


def test_logits_of_the_bundle_are_those_of_the_graph_without_any_training_package(trained, bundle, tmp_path) -> None:
    naive_probe(trained, tmp_path / "probe.safetensors")
    found = verify_bundle(bundle, tmp_path / "probe.safetensors", count_parameters(trained[0]))
    assert found.difference <= 1e-12 and 1e-9 < found.rounding < 1e-4  # single precision is no measure of the weights
    assert {"open_clip", "transformers", "peft", "accelerate", "datasets", "decord"} <= set(TRAINING_PACKAGES)


def test_verification_can_fail(trained, bundle, tmp_path) -> None:
    path, parameters = tmp_path / "probe.safetensors", count_parameters(trained[0])
    probe = naive_probe(trained, path)
    with pytest.raises(UserError, match="parameters, the trained encoder"):
        verify_bundle(bundle, path, parameters + 1)
    scale = float(probe["scores"].abs().max())
    save_file({**probe, "scores": probe["scores"] + 1e-6 * scale}, path)  # less than single precision can tell
    with pytest.raises(UserError, match="differ from the trained network's"):
        verify_bundle(bundle, path, parameters)


def test_a_badly_conditioned_network_is_exported_where_its_weights_are_right(trained, bundle, tmp_path) -> None:
    """A batch norm that subtracts a thousand and adds it again: single precision has few digits left, double many."""
    (encoder, preprocess), norm = trained, trained[0].data_bn
    with torch.no_grad():
        norm.running_mean.add_(1000.0)
        norm.bias.add_(1000.0 * norm.weight / torch.sqrt(norm.running_var + norm.eps))
    model = Model(describe("ctrgcn", encoder, preprocess, NAMES), encoder, preprocess)
    _, found = export_model(model, tmp_path / "out")
    assert found.difference < 1e-7 and found.rounding > 1e-5  # which the old gate of 1e-5 refused


def test_the_bundle_holds_exactly_the_encoder(trained, bundle) -> None:
    encoder, _ = trained
    assert load_file(bundle / "model.safetensors").keys() == encoder.state_dict().keys()
    loaded = mmcl.load(bundle)
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in encoder.parameters())
    x = torch.randn(2, 2, 24, 25, 3)
    torch.testing.assert_close(loaded.encoder(x), encoder(x), rtol=0, atol=0)


def test_a_published_size_stays_the_published_size(tmp_path) -> None:
    encoder = build_encoder("ctrgcn", TARGET, 120, {})
    preprocess = Preprocess(TARGET, TARGET, 2, PreprocessOptions())
    names = [f"A{k + 1}" for k in range(120)]
    write_bundle(tmp_path, Model(describe("ctrgcn", encoder, preprocess, names), encoder, preprocess))
    assert sum(parameter.numel() for parameter in mmcl.load(tmp_path).parameters()) == 1_462_092


def test_one_clip_in_several_layouts_gets_one_answer(bundle) -> None:
    own = mmcl.load(bundle)
    joints = torch.randn(2, 1, 30, 20, 3)
    kinect_v1 = load_layout("kinect_v1_20")  # the same joints in another order
    reordered = conversion_matrix(SOURCE, kinect_v1) @ joints
    torch.testing.assert_close(mmcl.load(bundle, layout="kinect_v1_20")(reordered), own(joints))
    with pytest.raises(UserError, match="takes joints .* of layout 'utd_mhad_20'"):
        own(torch.randn(1, 1, 30, 25, 3))


def test_export_bakes_other_joints_into_a_bundle(bundle, tmp_path) -> None:
    """What it takes afterwards are these joints, in their order; the network and its answers are the same."""
    words = ["--run", str(bundle), "--out", str(tmp_path / "other")]
    assert export([*words, "--layout", "kinect_v1_20"]) == 0
    own, other, kinect_v1 = mmcl.load(bundle), mmcl.load(tmp_path / "other"), load_layout("kinect_v1_20")
    assert (own.layout.name, other.layout.name) == ("utd_mhad_20", "kinect_v1_20")
    joints = torch.randn(2, 1, 30, 20, 3)
    torch.testing.assert_close(other(conversion_matrix(SOURCE, kinect_v1) @ joints), own(joints))
    assert not torch.allclose(other(joints), own(joints), atol=1e-2)  # the order of joints is another
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    assert config["layout"]["joints"] == list(kinect_v1.joints) and "'kinect_v1_20'" in config["input"]
    assert config["encoder_layout"]["joints"] == list(TARGET.joints)
    np.save(tmp_path / "clip.npy", joints[0].numpy())
    assert predict([str(tmp_path / "other"), str(tmp_path / "clip.npy")]) == 0
    with pytest.raises(UserError, match="layout"):
        export([*words, "--overwrite", "--layout", "no_such_layout"])


def test_predict_prints_labels_and_json(bundle, tmp_path, capsys) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "one.npy", rng.normal(size=(40, 20, 3)))
    np.savez(tmp_path / "two.npz", joints=rng.normal(size=(2, 33, 20, 3)).astype(np.float32))
    files = [str(tmp_path / "one.npy"), str(tmp_path / "two.npz")]
    assert predict([str(bundle), *files, "--top", "5", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == files
    for line, shape in zip(lines, [(1, 40), (2, 33)], strict=True):
        probabilities = [entry["probability"] for entry in line["predictions"]]
        assert len(probabilities) == 5 and probabilities == sorted(probabilities, reverse=True), shape
    joints = torch.from_numpy(np.load(files[0])).float()[None, None]
    expected = mmcl.load(bundle)(joints).softmax(-1).detach()[0]
    best = lines[0]["predictions"][0]
    assert best["label"] == int(expected.argmax()) and best["name"] == NAMES[best["label"]]
    assert best["probability"] == pytest.approx(float(expected.max()), abs=1e-5)
    assert predict([str(bundle), files[0]]) == 0
    assert best["name"] in capsys.readouterr().out


def test_predict_reads_what_prepare_reads(bundle, tmp_path, capsys) -> None:
    joints = np.random.default_rng(1).normal(size=(30, 20, 3))
    joints[4, 7] = np.nan  # missing: zero for the model, whatever the format
    np.save(tmp_path / "a.npy", np.nan_to_num(joints))
    np.save(tmp_path / "b.npy", joints)
    np.savetxt(tmp_path / "c.csv", joints.reshape(30, 60), delimiter=",")
    (tmp_path / "d.json").write_text(json.dumps({"skeletons": np.where(np.isnan(joints), None, joints).tolist()}))
    assert predict([str(bundle), *(str(tmp_path / name) for name in ("a.npy", "b.npy", "c.csv", "d.json"))]) == 0
    answers = {line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()}
    np.save(tmp_path / "mm.npy", 1000 * joints)
    assert predict([str(bundle), str(tmp_path / "mm.npy"), "--unit", "mm"]) == 0
    assert answers == {capsys.readouterr().out.split(maxsplit=1)[1].strip()}


def test_predict_reads_real_takes(bundle, test_data, capsys) -> None:
    recording = test_data / "ntu" / "skeleton" / "S001C003P008R002A058.skeleton"
    assert predict([str(bundle), str(recording)]) == 0 and "1" in capsys.readouterr().out
    takes = test_data / "utd_mhad" / "Skeleton"
    assert predict([str(bundle), str(takes / "a1_s1_t1_skeleton.mat"), str(takes / "a27_s8_t1_skeleton.mat")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_predict_needs_none_of_the_training_stack(bundle, tmp_path) -> None:
    np.save(tmp_path / "clip.npy", np.random.default_rng(0).normal(size=(40, 20, 3)))
    blocked = [name for name in TRAINING_PACKAGES if name not in ("scipy",)]
    code = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        f"from mmcl.predict import main\nsys.exit(main([{str(bundle)!r}, {str(tmp_path / 'clip.npy')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.npy", np.zeros((40, 19, 3)), "19 joints, expected 20.*layout 'utd_mhad_20'; --layout"),
        ("b.npy", np.full((40, 20, 3), np.nan), "all coordinates are zero or missing"),
        ("j.npy", np.full((40, 20, 3), np.inf), "infinite coordinates in 40 of 40 frames"),
        ("k.npy", np.ones((40, 20, 2)), "two coordinates"),
        ("c.npy", np.zeros((40, 20)), "20 numbers a line, expected 20 joints x 2 or 3 or 4"),
        ("d.npy", np.array([["x"]]), "numbers"),
        ("e.npy", b"\x93NUMPY broken", "readable"),
        ("f.mat", b"MATLAB 5.0 cut", "not a readable MATLAB file"),
        ("i.npz", b"PK\x03\x04 cut", "damaged or cut off"),
        ("l.skeleton", b"3\n1\n", "ends in frame 1"),
        ("g.txt", b"", "skeleton files end in"),
        ("h.npy", None, "no such file"),
    ],
)
def test_bad_files_are_named(bundle, tmp_path, capsys, name, content, complaint) -> None:
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif content is not None:
        path.write_bytes(content)
    assert predict([str(bundle), str(path)]) == 2
    out, said = capsys.readouterr()
    assert not out and said.startswith("error: ") and name in said and re.search(complaint, said), said


def test_float64_arrays_as_numpy_makes_them_are_welcome(bundle) -> None:
    joints = np.random.default_rng(0).normal(size=(1, 1, 30, 20, 3))
    model = mmcl.load(bundle)
    torch.testing.assert_close(model(torch.as_tensor(joints)), model(torch.as_tensor(joints).float()))


def test_a_device_that_is_not_there_is_named(bundle) -> None:
    with pytest.raises(UserError, match="--device cuda:77 is not to be had"):
        predict([str(bundle), "x.npy", "--device", "cuda:77"])


def test_broken_bundles_are_named(bundle, tmp_path) -> None:
    with pytest.raises(UserError, match="neither a bundle"):
        mmcl.load(tmp_path / "nothing")
    config = json.loads((bundle / "config.json").read_text())
    for key, value, complaint in [
        ("format", 99, "bundle format 99"),
        ("class_names", ["one"], "damaged or does not fit"),
        ("encoder", {"name": "resnet", "options": {}}, "'resnet'.*, or install the package that adds it"),
    ]:
        (bundle / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(UserError, match=complaint):
            mmcl.load(bundle)
    (bundle / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "class_names"}))
    with pytest.raises(UserError, match="it lacks class_names"):
        mmcl.load(bundle)
    (bundle / "config.json").write_text(json.dumps(config))
    (bundle / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(UserError, match="damaged"):
        mmcl.load(bundle)


def test_a_folder_of_somebody_else_s_model_is_never_replaced(bundle, tmp_path) -> None:
    theirs = tmp_path / "llava"
    theirs.mkdir()
    (theirs / "config.json").write_text('{"architectures": ["LlavaForConditionalGeneration"]}')
    (theirs / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(UserError, match="exists and holds something else"):
        check_replaceable(theirs, is_bundle, overwrite=True)
    check_replaceable(bundle, is_bundle, overwrite=True)


def test_the_card_of_a_bundle_without_weights_promises_nothing_that_needs_them(bundle) -> None:
    description = read_bundle(bundle)
    whole, graphs = model_card(description), model_card(description.changed(weights=False))
    assert "mmcl.load(" in whole and "was left out" not in whole
    assert "mmcl.load(" not in graphs and "was left out" in graphs


def test_card_and_config_say_what_goes_in(bundle, trained) -> None:
    card, config = (bundle / "README.md").read_text(), json.loads((bundle / "config.json").read_text())
    assert all(name in card for name in NAMES) and "(clips, persons, frames, 20, 3)" in config["input"]
    assert config["preprocess"] == json.loads(json.dumps(asdict(trained[1].options)))
    assert config["counts"]["parameters"] == sum(p.numel() for p in trained[0].parameters())


def test_a_name_of_a_file_costs_itself_alone_and_is_shown_in_one_line(bundle, tmp_path, capsys) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    odd = tmp_path / "a\nb.npy"
    np.save(odd, np.random.default_rng(0).normal(size=(40, 20, 3)))
    assert predict([str(bundle), "x" * 300 + ".npy", str(tmp_path / "pipe.npy"), str(odd)]) == 2
    out, said = capsys.readouterr()
    assert [line.rpartition(": ")[2] for line in said.splitlines() if line.startswith("error")] == [
        "no such file", "a pipe or a device, and no file"]  # fmt: skip
    assert len(out.splitlines()) == 1 and "a\\nb.npy" in out
