"""Encoders other than CTR-GCN leave as ONNX graphs, in single precision and reduced, and equal their bundle."""

from __future__ import annotations

import pytest
import torch
from making import people, write_small

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mmcl.deploy.onnx import export_graph  # noqa: E402
from mmcl.deploy.variants import half, integer  # noqa: E402
from mmcl.models.session import open_session  # noqa: E402

NETWORKS = {
    "arn_lstm": {
        "streams": ["inter"], "frames": 8, "step": 8, "relation_widths": [32, 24], "dense_widths": [24],
        "lstm_width": 24,
    },
    "edge_gcn": {"inputs": ["acceleration"], "width": 8, "input_depth": 1, "main_blocks": 1},
    "hyperformer": {"heads": 3, "head_width": 4, "groups": 3, "depth": 3, "persons": 2},
    "step_catformer": {"width": 8, "depth": 3, "persons": 2, "bone_power": 1},
    "tcn": {"width": 16, "members": 2, "persons": 2},
}  # fmt: skip


LARGE = pytest.mark.slow  # a graph of more than a thousand nodes takes the exporter more than a minute


@pytest.mark.parametrize("name", [pytest.param(name, marks=[LARGE] * (name == "step_catformer")) for name in NETWORKS])
def test_graphs_equal_the_bundle_whoever_is_there(tmp_path, name):
    bundle = write_small(tmp_path / "bundle", (name, NETWORKS[name]))
    clips = [people(2, 2, frames, empty) for frames, empty in ((40, ((0, 1),)), (17, ()), (30, ((0, 0), (1, 1))))]
    graph = export_graph(bundle).SerializeToString()
    calibration = [clip.numpy() for clip in clips[:2]]
    for precision, tolerance, make in (
        ("fp32", 1e-4, lambda model: model), ("fp16", 2e-2, half),
        ("int8", 0.15, lambda model: integer(model, calibration)),
    ):  # fmt: skip
        session = open_session(make(onnx.load_from_string(graph)).SerializeToString())
        for clip in clips:
            with torch.no_grad():
                expected = bundle(clip)
            found = torch.from_numpy(session.run(["scores"], {"joints": clip.numpy()})[0])
            assert (found - expected).abs().max() <= tolerance * expected.abs().max(), precision
