"""ONNX files of strangers: no loops, no branches, no functions; joints in and scores of the bundle's classes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mmcl.common.errors import UserError  # noqa: E402
from mmcl.deploy.onnx_predictor import OnnxPredictor  # noqa: E402
from mmcl.encoders.building import build_encoder  # noqa: E402
from mmcl.models.bundle import describe, write_bundle  # noqa: E402
from mmcl.models.graph_file import check_graph_file  # noqa: E402
from mmcl.models.model import Model  # noqa: E402
from mmcl.skeletons.layout import load_layout  # noqa: E402
from mmcl.skeletons.preprocess import Preprocess  # noqa: E402
from mmcl.skeletons.preprocess_options import PreprocessOptions  # noqa: E402

LAYOUT = load_layout("kinect_v1_20")
JOINTS = np.random.default_rng(0).normal(size=(1, 6, 20, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A bundle, and the metadata that its graph must have."""
    folder = tmp_path_factory.mktemp("graphs") / "bundle"
    folder.mkdir()
    encoder = build_encoder("ctrgcn", LAYOUT, 3, {"width": 8, "depth": 3, "persons": 1}).eval()
    preprocess = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(window=8))
    description = describe("ctrgcn", encoder, preprocess, ["a", "b", "c"], count=False)
    write_bundle(folder, Model(description, encoder, preprocess))
    facts = {"class_names": description.class_names, "layout": description.layout.to_dict(),
             "preprocess": description.preprocess}  # fmt: skip
    return folder, {key: json.dumps(value) for key, value in facts.items()}


def graph(facts: dict[str, str], classes: int = 3, nodes: Any = (), outputs: int = 2, shape: int = 0) -> bytes:
    """Joints in, the same few numbers for whatever comes as scores and probabilities out."""
    h, kind = onnx.helper, onnx.TensorProto.FLOAT
    scores = h.make_tensor("s", kind, [1, classes], [1.0, *[0.0] * (classes - 1)])
    body = [h.make_node("Constant", [], [name], value=scores) for name in ("scores", "probabilities")[:outputs]]
    ends = [h.make_tensor_value_info(name, kind, [1, classes]) for name in ("scores", "probabilities")[:outputs]]
    joints = h.make_tensor_value_info("joints", kind, ["N", "M", "T", shape or 20, 3])
    model = h.make_model(h.make_graph([*nodes, *body], "g", [joints], ends), opset_imports=[h.make_opsetid("", 17)])
    model.ir_version = 8
    h.set_model_props(model, facts)
    data: bytes = model.SerializeToString()
    return data


def loop() -> Any:
    h, kind = onnx.helper, onnx.TensorProto
    ends = [h.make_tensor_value_info("go", kind.BOOL, [])]
    inner = h.make_graph(
        [h.make_node("Identity", ["on"], ["go"])], "body",
        [h.make_tensor_value_info("i", kind.INT64, []), h.make_tensor_value_info("on", kind.BOOL, [])], ends,
    )  # fmt: skip
    return h.make_node("Loop", ["", "true"], [], body=inner)


def test_a_straight_graph_is_used(bundle: tuple[Path, dict[str, str]]) -> None:
    folder, facts = bundle
    (folder / "model.onnx").write_bytes(graph(facts))
    assert OnnxPredictor(folder, folder / "model.onnx").classify(JOINTS)[0] == (0, "a", 1.0)


def test_exported_graphs_have_no_loops(graphs: Path) -> None:
    files = sorted((graphs / "bundle").glob("*.onnx"))
    assert len(files) == 3  # of all precisions
    for file in files:
        check_graph_file(file)


def hostile(facts: dict[str, str], kind: str) -> bytes:
    h, wide = onnx.helper, onnx.TensorProto.INT64
    if kind == "nan":
        return graph(facts).replace(np.float32(1).tobytes(), np.float32("nan").tobytes())
    if kind == "huge":
        shape = h.make_tensor("n", wide, [1], [60_000_000_000])
        made = (h.make_node("Constant", [], ["n"], value=shape), h.make_node("ConstantOfShape", ["n"], ["zeros"]))
        return graph(facts, nodes=made)
    true = h.make_node("Constant", [], ["true"], value=h.make_tensor("t", onnx.TensorProto.BOOL, [], [True]))
    return {
        "loop": lambda: graph(facts, nodes=(true, loop())),
        "classes": lambda: graph(facts, classes=2),
        "one output": lambda: graph(facts, outputs=1),
        "joints": lambda: graph(facts, shape=25),
        "cut": lambda: graph(facts)[:-40],
        "noise": lambda: bytes(range(256)) * 4,
        "empty": lambda: b"",
        "deep": lambda: graph({**facts, "layout": "[" * 100_000}),
        "other": lambda: graph({**facts, "class_names": '["a", "b", "d"]'}),
        "bytes": lambda: graph(facts).replace(b'["a", "b"', b'["\xff", "b"'),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("loop", "'Loop' holds a graph of its own"), ("classes", "scores of 3 classes"), ("one output", "scores of 3"),
        ("joints", "does not take joints"), ("cut", "damaged"), ("noise", "damaged"), ("empty", "damaged"),
        ("deep", "layout differ"), ("other", "class names differ"), ("bytes", "a text that is not UTF-8"),
        ("nan", "not finite"), ("huge", "damaged|fails"),
    ],
)  # fmt: skip
def test_any_other_graph_is_refused(bundle: tuple[Path, dict[str, str]], kind: str, complaint: str) -> None:
    folder, facts = bundle
    (folder / "model.onnx").write_bytes(hostile(facts, kind))
    torch.manual_seed(0)
    if kind == "huge":  # computed and thrown away, or not computed at all: either is no harm
        try:
            OnnxPredictor(folder, folder / "model.onnx").classify(JOINTS)
        except UserError as error:
            assert "\n" not in str(error)
        return
    with pytest.raises(UserError, match=complaint):
        OnnxPredictor(folder, folder / "model.onnx").classify(JOINTS)


def with_work(plain: bytes, nodes: list[onnx.NodeProto]) -> bytes:
    """A graph that does more work, and adds its result, called ``most``, to what it says."""
    model = onnx.load_from_string(plain)
    for node in model.graph.node:
        node.output[0] += "_"
    ends = [onnx.helper.make_node("Add", [f"{name}_", "most"], [name]) for name in ("scores", "probabilities")]
    model.graph.node.extend([*nodes, *ends])
    return bytes(model.SerializeToString())


def test_a_graph_that_takes_too_long_is_ended(bundle: tuple[Path, dict[str, str]], monkeypatch, capfd) -> None:
    """Thousands of products of large matrices, which depend on the joints: none is computed beforehand."""
    h, kind, size, count = onnx.helper, onnx.TensorProto.FLOAT, 300, 4000
    folder, facts = bundle
    square = h.make_tensor("m", kind, [size, size], np.eye(size, dtype=np.float32).ravel())
    nodes = [
        h.make_node("Constant", [], ["eye"], value=square),
        h.make_node("ReduceMean", ["joints"], ["mean"], keepdims=0),
    ]
    nodes += [h.make_node("Mul", ["eye", "mean"], ["x0"])]
    nodes += [h.make_node("MatMul", [f"x{n}", "x0"], [f"x{n + 1}"]) for n in range(count)]
    nodes += [h.make_node("ReduceMax", [f"x{count}"], ["most"], keepdims=0)]
    (folder / "model.onnx").write_bytes(with_work(graph(facts), nodes))
    monkeypatch.setattr("mmcl.models.session.LONGEST", 0.2)
    with pytest.raises(UserError, match=r"model\.onnx was ended after 0\.2 s with 1 clips: it takes too long"):
        OnnxPredictor(folder, folder / "model.onnx").classify(JOINTS)
    assert "onnxruntime" not in capfd.readouterr().err


def test_a_graph_that_fails_leaves_no_log(bundle: tuple[Path, dict[str, str]], capfd) -> None:
    """onnxruntime prints what it raises, and the first line of that is in the message."""
    h, kind = onnx.helper, onnx.TensorProto
    folder, facts = bundle
    shape = h.make_tensor("shape", kind.INT64, [1], [7])
    nodes = [h.make_node("Constant", [], ["to"], value=shape), h.make_node("Reshape", ["joints", "to"], ["bent"])]
    nodes += [h.make_node("ReduceMax", ["bent"], ["most"], keepdims=0)]
    (folder / "model.onnx").write_bytes(with_work(graph(facts), nodes))
    with pytest.raises(UserError, match=r"model\.onnx fails: .*Reshape"):
        OnnxPredictor(folder, folder / "model.onnx").classify(JOINTS)
    assert "onnxruntime" not in capfd.readouterr().err
