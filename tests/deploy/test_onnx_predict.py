"""`mmcl predict` on a graph: without torch, with the same answers; torch.export; full-width sizes and cost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making import SOURCE, people

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import mmcl.deploy.predictor as predictor_module  # noqa: E402
from mmcl.common.errors import BadClip, UserError  # noqa: E402
from mmcl.deploy.graph_writing import write_graph_files  # noqa: E402
from mmcl.deploy.onnx_predictor import OnnxPredictor, choose_graph, same_joints  # noqa: E402
from mmcl.deploy.options import ExportOptions  # noqa: E402
from mmcl.deploy.predictor import Predictor  # noqa: E402
from mmcl.models.description import read_bundle  # noqa: E402
from mmcl.predict import main as predict  # noqa: E402

BLOCKED = ("torch", "torchvision", "safetensors", "scipy", "yaml", "onnx", "onnxscript", "transformers", "datasets")


@pytest.fixture(scope="module")
def folder(graphs, tmp_path_factory):
    """A bundle with model.onnx, and a clip beside it."""
    base = tmp_path_factory.mktemp("predict")
    lacks = shutil.ignore_patterns("model.fp16.onnx", "model.int8.onnx", "complete")
    shutil.copytree(graphs, base, ignore=lacks, dirs_exist_ok=True)
    np.save(base / "clip.npy", people(1, 1, 45)[0].numpy())
    return base


def test_prediction_needs_numpy_and_onnxruntime_alone(folder, capsys) -> None:
    for name, write in (("clip.csv", np.savetxt), ("clip.json", None)):
        joints = np.load(folder / "clip.npy")[0]
        if write is None:
            (folder / name).write_text(json.dumps(joints.tolist()))
        else:
            write(folder / name, joints.reshape(45, 60), delimiter=",")
    files = [str(folder / f"clip.{suffix}") for suffix in ("npy", "csv", "json")]
    words = [str(folder / "bundle"), *files, "--json", "--top", "3"]
    code = (
        f"import sys\nfor name in {BLOCKED!r}: sys.modules[name] = None\n"
        f"from mmcl.predict import main\nsys.exit(main({words!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert predict([*words, "--backend", "torch"]) == 0
    for found, expected in zip(done.stdout.splitlines(), capsys.readouterr().out.splitlines(), strict=True):
        found, expected = json.loads(found), json.loads(expected)
        assert found["file"] == expected["file"]
        assert [one["name"] for one in found["predictions"]] == [one["name"] for one in expected["predictions"]]
        for one, other in zip(found["predictions"], expected["predictions"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=2e-5)


def test_which_one_computes(folder, tmp_path) -> None:
    bundle, clip = folder / "bundle", folder / "clip.npy"
    graph = bundle / "model.onnx"
    assert choose_graph(bundle, "auto", [clip]) == choose_graph(bundle, "onnx", []) == graph
    assert choose_graph(bundle, "torch", [clip]) is None
    assert choose_graph(bundle, "auto", [clip, tmp_path / "a.skeleton"]) is None  # of a layout that it does not take
    own = tmp_path / "my_sensor.yaml"  # the same joints under another name
    own.write_text(json.dumps({**SOURCE.to_dict(), "name": "my sensor"}))
    assert choose_graph(bundle, "auto", [clip], str(own)) == graph
    assert OnnxPredictor(bundle, graph, str(own)).classify_file(clip) == OnnxPredictor(bundle, graph).classify_file(
        clip
    )
    assert choose_graph(bundle, "auto", [], "kinect_v1_20") is None  # frames that will come, of another layout
    assert choose_graph(bundle, "auto", [clip], "kinect_v1_20") is None
    with pytest.raises(UserError, match=r"no model\.int8\.onnx: `mmcl export --onnx int8`"):
        choose_graph(bundle, "int8", [clip])
    with pytest.raises(UserError, match="'kinect_v1_20', and model.onnx takes 'utd_mhad_20' alone"):
        OnnxPredictor(bundle, graph, "kinect_v1_20")
    with pytest.raises(UserError, match="leave out --backend onnx"):
        predict([str(bundle), str(clip), "--classes", "a,b", "--backend", "onnx"])
    (tmp_path / "model.onnx").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"model\.onnx is damaged"):
        OnnxPredictor(bundle, tmp_path / "model.onnx")
    clip = people(1, 2, 20)[0].numpy()
    theirs, ours = Predictor(bundle).classify(clip), OnnxPredictor(bundle, graph).classify(clip)
    assert [name for _, name, _ in ours] == [name for _, name, _ in theirs]
    clip[0, 3, 7, 1], gone = np.nan, clip.copy()
    gone[0, 3, 7] = 0
    for predictor in (Predictor(bundle), OnnxPredictor(bundle, graph)):
        assert predictor.classify(clip) == predictor.classify(gone)
        with pytest.raises(BadClip, match="infinite"):
            predictor.classify(np.full_like(clip, np.inf))
        for shape in ((30, 20, 3), (2, 3, 4, 20, 3), (1, 30, 15, 3)):
            with pytest.raises(UserError, match=r"one clip is \(persons, frames, 20, 2 to 4\)"):
                predictor.classify(np.ones(shape, np.float32))


def test_a_graph_that_is_not_the_bundle_s_is_refused(folder, tmp_path) -> None:
    bundle = Path(shutil.copytree(folder / "bundle", tmp_path / "bundle"))
    whole = (bundle / "config.json").read_text()
    names = read_bundle(bundle).class_names
    for key, value in (("class_names", names[::-1]), ("class_names", names[1:]), ("preprocess", {"window": 7})):
        (bundle / "config.json").write_text(json.dumps({**json.loads(whole), key: value}))
        with pytest.raises(UserError, match=rf"its {key.replace('_', ' ')} differ"):
            OnnxPredictor(bundle, bundle / "model.onnx")
    (bundle / "config.json").write_text(json.dumps({**json.loads(whole), "encoder": []}))
    with pytest.raises(UserError, match="encoder must be"):
        read_bundle(bundle)


def test_formats_that_say_which_joints_they_hold_are_believed(folder, monkeypatch) -> None:
    """`--layout` is for the others: a .mat beside them is not read as that."""
    bundle, seen, clip = folder / "bundle", [], np.ones((1, 4, 20, 3), np.float32)
    monkeypatch.setattr(predictor_module, "read_joints", lambda path, layout, unit: seen.append(layout.name) or clip)
    for name in ("take.mat", "mine.npy"):
        Predictor(bundle, "kinect_v1_20").classify_file(Path(name))
    assert seen == ["utd_mhad_20", "kinect_v1_20"]
    # Joints in another order that are called like a built-in are no reason to read a .mat in that order.
    own = replace(SOURCE, joints=SOURCE.joints[::-1])
    assert not same_joints(SOURCE.name, own) and same_joints(None, own) and same_joints(SOURCE.name, SOURCE)
    assert same_joints("mine", replace(own, name="mine"))
    predictor = Predictor(bundle)
    predictor.own = own
    assert predictor.model(SOURCE.name).layout.joints == SOURCE.joints and list(predictor._models) == [SOURCE.name]


def test_a_program_of_torch_export_is_the_bundle_without_mmcl(folder) -> None:
    bundle = folder / "bundle"
    description = write_graph_files(
        bundle, folder / "probe.safetensors", read_bundle(bundle), None, ExportOptions(torch_export=True)
    )  # compared in a fresh process, in which mmcl cannot be imported
    assert description == read_bundle(bundle)
    program = torch.export.load(bundle / "model.pt2").module()
    model = Predictor(bundle).model()
    for x in (people(1, 1, 40), people(4, 2, 33, ((0, 1), (2, 0), (3, 1))), people(2, 3, 24)):
        with torch.no_grad():
            probabilities, scores, familiarity = program(x)
            expected = model.judge(x)
        torch.testing.assert_close((scores, familiarity), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(len(x)))


@pytest.mark.slow
def test_a_bundle_of_full_width_is_small_and_measured(tmp_path) -> None:
    from mmcl.benchmarks.deploy import measure, random_bundle
    from mmcl.benchmarks.tables import deploy_table

    facts = measure(random_bundle(tmp_path), [1], seconds=1.0, starts=1)
    assert facts["parameters"] == 1_462_092
    assert facts["sizes"]["fp32"] <= 6e6 and facts["sizes"]["weights"] <= 6e6 and facts["sizes"]["int8"] <= 1.7e6
    bounds = {"published": 0.0, "lean": 1e-4, "fp32": 1e-4, "fp16": 1e-2, "int8": 0.2}
    assert all(line["difference"] <= bounds[line["variant"]] for line in facts["lines"])
    assert len(facts["lines"]) == 2 * len(bounds) and set(facts["cold_start"]) == {
        "torch",
        "fp32",
        "fp16",
        "int8",
    }
    assert 0.01 < facts["stream"]["share"] < 0.03
    assert {line["variant"] for line in facts["throughput"]} == {"lean", "fp32", "fp16", "int8"}
    table = deploy_table(facts | {"weights": "random"})
    assert "int8" in table and "in a stream" in table
