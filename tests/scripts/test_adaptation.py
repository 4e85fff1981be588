"""From a trained model to another data set: statistics alone, and training on one half, judged on the other."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.io import savemat

from mmcl.adapt import main as adapt
from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.preparation.build import prepare
from mmcl.data.protocols import load_protocol
from mmcl.data.readers.sysu import SYSU
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore, open_store
from mmcl.encoders.building import build_encoder
from mmcl.engine.configuring import configure
from mmcl.evaluate import main as evaluate
from mmcl.models.bundle import describe, load_bundle, write_bundle
from mmcl.models.folder import find_model
from mmcl.models.model import Model
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.surgery.adapt import inputs_of
from mmcl.train import train

PEOPLE = 4


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A bundle for 25 joints and two persons, trained on a set of its own."""
    torch.manual_seed(0)
    layout, folder = load_layout("kinect_v2_25"), tmp_path_factory.mktemp("source")
    encoder = build_encoder("ctrgcn", layout, 3, {"width": 8, "depth": 3, "persons": 2})
    preprocess = Preprocess(layout, layout, 2, PreprocessOptions(window=16))
    facts = {"dataset": "elsewhere", "protocol": "elsewhere/xsub"}
    description = describe("ctrgcn", encoder, preprocess, ["sit", "stand", "hop"], facts)
    write_bundle(folder, Model(description, encoder, preprocess))
    return folder


@pytest.fixture(scope="module")
def sysu(test_data, tmp_path_factory) -> ClipStore:
    """Real Kinect v1 sequences of NW-UCLA in SYSU's form: twelve classes, one clip each of four people."""
    root = tmp_path_factory.mktemp("sysu")
    with tarfile.open(test_data / "nw_ucla" / "all_sqe.tar.gz") as archive:
        files = sorted((m for m in archive.getmembers() if m.name.endswith(".json")), key=lambda member: member.name)
        for number, member in enumerate(files[:: len(files) // (12 * PEOPLE)][: 12 * PEOPLE]):
            joints = np.array(json.load(archive.extractfile(member))["skeletons"])
            path = root / "3DvideoNorm" / f"P{number // 12}" / f"video{number % 12 + 1}" / "sklWorld.mat"
            path.parent.mkdir(parents=True)
            savemat(path, {"SW": joints.transpose(1, 2, 0)})
    return prepare(SYSU(root), root / "store", workers=1, progress=False).store


def test_adapt_writes_a_bundle_that_differs_in_statistics_alone_and_says_so(
    demo_store, source, tmp_path, capsys
) -> None:
    out = tmp_path / "adapted"
    words = ["--checkpoint", str(source), "--data", str(demo_store), "--protocol", "demo/cross_subject"]
    assert adapt([*words, "--out", str(out), "--batch-size", "7"]) == 0
    assert "24 training clips" in capsys.readouterr().out
    before, after = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {name for name in before if name.endswith(("running_mean", "running_var"))}
    store, model = open_store(demo_store), load_bundle(out)
    clips = split(store, load_protocol("demo/cross_subject")).train
    inputs = [model.preprocess(torch.from_numpy(store.joints(int(clip)).copy())[None]) for clip in clips]
    rows = torch.cat(inputs).double().numpy().transpose(1, 3, 4, 0, 2).reshape(2 * 25 * 3, -1)
    np.testing.assert_allclose(after["data_bn.running_mean"], rows.mean(axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(after["data_bn.running_var"], rows.var(axis=1, ddof=1), rtol=1e-5, atol=1e-9)
    facts = json.loads((out / "config.json").read_text())["provenance"]
    assert facts["dataset"] == "elsewhere" and facts["protocol"] == "elsewhere/xsub"  # what a label map asks for
    (done,) = facts["changed"]
    assert (done["surgery"], done["protocol"], done["clips"]) == ("adapt", "demo/cross_subject", 24)
    assert "without labels" in (out / "README.md").read_text()
    again = tmp_path / "again"
    adapt([*words, "--out", str(again), "--batch-size", "7"])
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        adapt([*words, "--out", str(out)])


@pytest.mark.parametrize(
    ("clips", "size", "parts"), [(7, 2, [3, 2, 2]), (3, 2, [3]), (8, 2, [2] * 4), (7, 3, [3, 2, 2]), (1, 2, [1])]
)
def test_no_batch_is_of_one_clip(demo_store, source, clips, size, parts) -> None:
    store, model = open_store(demo_store), load_bundle(source).taking(open_store(demo_store).layout)
    rule = load_protocol("demo/cross_subject")
    sides = split(store, rule)
    data = Selection(store, "demo/cross_subject", rule, replace(sides, train=sides.train[:clips]), "train")
    assert [len(batch) for batch in inputs_of(model, data, size, 0)] == parts


def test_a_model_that_is_adapted_again_remembers_both_and_what_it_was_trained_on(demo_store, source, tmp_path) -> None:
    words = ["--data", str(demo_store), "--protocol", "demo/cross_subject", "--out"]
    adapt(["--checkpoint", str(source), *words, str(tmp_path / "once")])
    adapt(["--checkpoint", str(tmp_path / "once"), *words, str(tmp_path / "twice"), "--batch-size", "5"])
    description = find_model(tmp_path / "twice").description
    assert [operation.options["batch_size"] for operation in description.surgeries] == [64, 5]
    lineage = list(load_bundle(tmp_path / "twice").record.lineage())
    assert [one.protocol for one in lineage] == ["demo/cross_subject"] * 2 + ["elsewhere/xsub"]
    assert [None if one.trained is None else len(one.trained) for one in lineage] == [24, 24, None]


def test_sysu_s_twenty_joints_become_the_encoder_s_twenty_five(sysu, source, tmp_path) -> None:
    words = ["--checkpoint", str(source), "--data", sysu.location, "--protocol", "sysu/setting-2/7"]
    adapt([*words, "--out", str(tmp_path / "adapted")])
    model = load_bundle(tmp_path / "adapted")
    assert model.layout.name == "kinect_v1_20" and model.encoder.layout.name == "kinect_v2_25"
    assert model(torch.from_numpy(sysu.joints(0).copy())[None]).shape == (1, 3)


@pytest.mark.parametrize(("protocol", "shots"), [("sysu/setting-1/0", 1), ("sysu/setting-2/29", 0)])
def test_adapted_on_one_half_and_judged_on_the_other(sysu, source, tmp_path, capsys, protocol, shots) -> None:
    out = tmp_path / "run"
    config = configure(
        ["--config", "adapt", f"--start.checkpoint={source}", f"--data.path={sysu.location}", f"--out={out}",
         f"--data.protocol={protocol}", f"--data.shots={shots}", "--schedule.epochs=1", "--schedule.warmup_epochs=0",
         "--data.workers=0", "--engine.trackers=[]", "--start.train=head"]
    )  # fmt: skip
    assert train(config) == 0
    half = 12 * PEOPLE // 2
    assert f"{12 * shots or half} train" in capsys.readouterr().out
    assert evaluate(["--checkpoint", str(out)]) == 0
    report = json.loads((out / "report-test" / "report.json").read_text())
    assert (report["n"], report["protocol"], report.get("shots", 0)) == (half, protocol, shots)
    assert report["started_from"] == str(source) and report["trained_part"] == "head"
    sides = split(sysu, load_protocol(protocol))
    judged = set(np.load(out / "report-test" / "scores.npz")["ids"].tolist())
    assert judged == {sysu.ids[clip] for clip in sides.test} and not judged & {sysu.ids[clip] for clip in sides.train}
