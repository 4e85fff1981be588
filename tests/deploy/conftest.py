"""A small bundle with its graphs, whose export takes most of a test's time: made once for everybody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def graphs(make_once) -> Path:
    """Folder of ``bundle`` with ONNX graphs of all precisions, ``facts.json`` of them, and ``probe.safetensors``."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")

    def make(folder: Path) -> None:
        from making import ALL, known_clips, write_small

        from mmcl.deploy.graphs import write_graph_files

        bundle = write_small(folder / "bundle")
        probe, clips = folder / "probe.safetensors", known_clips(bundle)
        written = write_graph_files(folder / "bundle", probe, bundle.description, clips, ALL)
        (folder / "facts.json").write_text(json.dumps(written.onnx))

    return make_once("graphs", make)
