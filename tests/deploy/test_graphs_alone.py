"""A bundle of ONNX graphs alone: used and judged through onnxruntime, and refused where weights are needed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mmcl.adapt import main as adapt  # noqa: E402
from mmcl.common.errors import UserError  # noqa: E402
from mmcl.data.store import open_store  # noqa: E402
from mmcl.deploy.export import export_run  # noqa: E402
from mmcl.deploy.options import ExportOptions  # noqa: E402
from mmcl.encoders.building import build_encoder  # noqa: E402
from mmcl.engine.configuring import configure  # noqa: E402
from mmcl.evaluate import main as evaluate  # noqa: E402
from mmcl.models.bundle import describe, load_bundle, write_bundle  # noqa: E402
from mmcl.models.description import read_bundle  # noqa: E402
from mmcl.models.folder import open_model  # noqa: E402
from mmcl.models.model import Model  # noqa: E402
from mmcl.models.session import open_session  # noqa: E402
from mmcl.skeletons.layout import load_layout  # noqa: E402
from mmcl.skeletons.preprocess import Preprocess  # noqa: E402
from mmcl.skeletons.preprocess_options import PreprocessOptions  # noqa: E402


@pytest.fixture(scope="module")
def bundles(demo_store, tmp_path_factory) -> tuple[Path, Path]:
    """A bundle with weights, and the same with its graphs alone, for the joints of another sensor."""
    folder, store = tmp_path_factory.mktemp("graphs_alone"), open_store(demo_store)
    torch.manual_seed(0)
    encoder = build_encoder("tcn", store.layout, len(store.class_names), {"width": 16, "persons": 1})
    preprocess = Preprocess(store.layout, store.layout, 1, PreprocessOptions(window=16))
    model = Model(describe("tcn", encoder.eval(), preprocess, store.class_names), encoder, preprocess)
    (folder / "whole").mkdir()
    write_bundle(folder / "whole", model)
    options = ExportOptions(("fp32",), drop_weights=True)
    export_run(
        folder / "whole", folder / "graphs", options=options, data=str(demo_store), protocol="demo/cross_subject"
    )
    return folder / "whole", folder / "graphs"


def test_the_name_of_a_graph_is_answered_with_its_folder(bundles) -> None:
    with pytest.raises(UserError, match=r"is a file of a bundle: name its folder, .*--backend fp32"):
        read_bundle(bundles[1] / "model.onnx")


def test_it_is_judged_as_the_bundle_with_its_weights_is(bundles, demo_store, tmp_path) -> None:
    found = []
    for bundle in bundles:
        words = ["--data", str(demo_store), "--protocol", "demo/cross_subject", "--out", str(tmp_path / bundle.name)]
        assert evaluate(["--checkpoint", str(bundle), *words]) == 0
        found.append(json.loads((tmp_path / bundle.name / "report.json").read_text()))
    assert found[0]["correct"] == found[1]["correct"] and found[0]["nll"] == pytest.approx(found[1]["nll"], abs=1e-4)


def test_clips_of_different_lengths_and_other_joints(bundles) -> None:
    whole, graphs = load_bundle(bundles[0]), open_model(bundles[1])
    joints, lengths = torch.randn(3, 1, 30, 25, 3), torch.tensor([30, 11, 24])
    joints[1, 0, 3, 2] = torch.nan
    torch.testing.assert_close(graphs(joints, lengths), whole(joints, lengths), rtol=1e-4, atol=1e-4)
    other = load_layout("kinect_v1_20")
    joints = torch.randn(2, 1, 30, 20, 3)
    found = open_model(bundles[1], layout=other)(joints)
    torch.testing.assert_close(found, load_bundle(bundles[0], other)(joints), rtol=1e-4, atol=1e-4)


def test_no_number_is_frozen_into_the_graph_of_one_person_with_the_usual_preparation(bundles) -> None:
    model, session = load_bundle(bundles[0]), open_session(bundles[1] / "model.onnx", 1)
    for clips, persons, frames in ((1, 1, 40), (3, 1, 7), (2, 2, 32)):
        x = torch.randn(clips, persons, frames, 25, 3)
        x[0, :, :3] = 0  # nobody is there yet
        with torch.no_grad():
            truth = model(x).numpy()
        np.testing.assert_allclose(session.run(["scores"], {"joints": x.numpy()})[0], truth, rtol=1e-4, atol=1e-4)


def test_a_graph_that_does_not_say_the_numbers_of_a_joint_is_refused(bundles, tmp_path) -> None:
    folder = Path(shutil.copytree(bundles[1], tmp_path / "graphs"))
    graph = onnx.load(folder / "model.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[4].dim_param = "c"
    onnx.save(graph, folder / "model.onnx")
    with pytest.raises(UserError, match="export it again"):
        open_model(folder)


def test_the_graph_of_a_network_before_it_was_trained_anew_is_refused(bundles, tmp_path) -> None:
    folder = Path(shutil.copytree(bundles[1], tmp_path / "graphs"))
    config = json.loads((folder / "config.json").read_text())
    config["record"]["weights"] = config["record"]["weights"][::-1]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="not the graph of .*config.json: its weights differ; export it again"):
        open_model(folder)


def test_what_needs_weights_is_refused_with_a_true_sentence(bundles, demo_store, tmp_path) -> None:
    graphs, joints = open_model(bundles[1]), torch.randn(1, 1, 30, 25, 3)
    with pytest.raises(UserError, match="ONNX graphs alone, which have scores and no features"):
        graphs.features(joints)
    with pytest.raises(UserError, match="no gradients"):
        graphs(joints, grad=True)
    with pytest.raises(UserError, match="nobody in it"):
        graphs(0 * joints)
    wanted = "holds ONNX graphs and no model.safetensors: it can be used and judged, and neither trained on nor changed"
    data = [f"--data.path={demo_store}", "--data.protocol=demo/cross_subject"]
    with pytest.raises(UserError, match=wanted):
        configure([f"--start.checkpoint={bundles[1]}", *data])
    words = ["--data", str(demo_store), "--protocol", "demo/cross_subject", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=wanted):
        adapt(["--checkpoint", str(bundles[1]), *words])
    with pytest.raises(UserError, match=wanted):
        export_run(bundles[1], tmp_path / "again")
