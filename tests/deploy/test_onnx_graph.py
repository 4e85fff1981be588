"""The ONNX graph is the bundle for any clips, persons, frames; reduced precision is measured, bounded, refused."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from making import NAMES, SOURCE, TARGET, known_clips, people, write_small

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mmcl.common.errors import UserError  # noqa: E402
from mmcl.deploy.graph_writing import checked_agreement, evenly, write_graph_files  # noqa: E402
from mmcl.deploy.onnx import agree, dynamic_shapes  # noqa: E402
from mmcl.deploy.options import ExportOptions, parse_precisions  # noqa: E402
from mmcl.deploy.verify import relative_difference  # noqa: E402
from mmcl.export import main as export  # noqa: E402
from mmcl.models.bundle import load_bundle  # noqa: E402
from mmcl.models.description import read_bundle  # noqa: E402
from mmcl.models.session import open_session  # noqa: E402
from mmcl.skeletons.preprocess import Preprocess  # noqa: E402
from mmcl.skeletons.preprocess_options import PreprocessOptions  # noqa: E402


@pytest.fixture(scope="module")
def made(graphs):
    """A folder with a bundle that has all graphs, the bundle, and what writing the graphs said of them."""
    return graphs, load_bundle(graphs / "bundle"), json.loads((graphs / "facts.json").read_text())


@pytest.mark.parametrize(
    ("clips", "persons", "frames", "empty"),
    [
        (1, 1, 40, ()), (1, 2, 17, ((0, 1),)), (1, 2, 90, ()), (4, 2, 33, ((0, 1), (2, 0), (3, 1))), (2, 3, 24, ()),
        (2, 3, 24, ((0, 0), (1, 0), (1, 1))),
        (3, 1, 1, ()),
    ],
)  # fmt: skip
def test_graph_equals_the_bundle_for_one_and_two_bodies_mixed_and_none(made, clips, persons, frames, empty) -> None:
    base, bundle, _ = made
    x = people(clips, persons, frames, empty)
    with torch.no_grad():
        scores, familiarity = bundle.judge(x)
    for precision, tolerance in (("fp32", 1e-4), ("fp16", 2e-2)):
        session = open_session(base / "bundle" / f"model{'' if precision == 'fp32' else '.fp16'}.onnx", 1)
        found, raw, sure = session.run(["probabilities", "scores", "familiarity"], {"joints": x.numpy()})
        np.testing.assert_allclose(sure, familiarity.numpy(), atol=tolerance)
        torch.testing.assert_close(torch.from_numpy(raw), scores, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(found, scores.softmax(-1).numpy(), atol=tolerance)


def test_of_a_clip_with_nobody_a_graph_says_nothing(made) -> None:
    """The model refuses it in words; a graph cannot, so that all its classes are equally probable."""
    base, bundle, _ = made
    x = people(2, 2, 30, ((0, 0), (0, 1)))
    x[1, 0, 3, 7, 1] = torch.nan  # a joint that is missing
    session = open_session(base / "bundle" / "model.onnx", 1)
    (nobody, somebody), sure = session.run(["probabilities", "familiarity"], {"joints": x.numpy()})
    assert sure[0] == -1 < sure[1]
    np.testing.assert_allclose(nobody, 1 / len(NAMES), atol=1e-7)
    x[1, 0, 3, 7] = 0.0
    np.testing.assert_allclose(somebody, bundle(x[1:]).softmax(-1).numpy()[0], atol=1e-4)
    with pytest.raises(UserError, match="clip 0 of 2 has nobody in it"):
        bundle(x)


@pytest.mark.parametrize(
    "changed",
    [
        {"streams": ("bone_motion",), "scaling": "box"},
        {"streams": ("joint", "confidence"), "dimensions": 2, "timing": "pad", "gaps": "zero"},
        {"timing": "segments", "centring": "every_frame"},
    ],
    ids=["resize", "pad", "segments"],
)
def test_preprocessing_in_a_graph_fills_gaps_and_takes_what_is_no_number_for_missing(changed) -> None:
    """Alone, without a network, which would take most of the time; for other clips, bodies and frames than exported."""
    preprocess = Preprocess(SOURCE, TARGET, 2, PreprocessOptions(window=16, **changed)).eval()
    example = (torch.randn(3, 2, 32, 20, preprocess.columns),)
    program = torch.onnx.export(
        preprocess, example, dynamo=True, verbose=False, input_names=["joints"], dynamic_shapes=dynamic_shapes()
    )
    session = open_session(program.model_proto.SerializeToString(), 1)
    for clips, persons, frames in ((1, 2, 40), (3, 3, 11), (2, 2, 1)):
        x = people(clips, persons, frames) + 2
        x = torch.cat([x, x[..., :1].sigmoid()], dim=-1)[..., : preprocess.columns]
        x[torch.rand(x.shape[:4], generator=torch.Generator().manual_seed(frames)) < 0.2] = 0
        x[0, :, frames // 2, 3:6] = torch.nan
        if frames > 1:
            x[0, 0, frames // 3] = torch.inf
            x[-1, :, :5] = torch.nan  # nobody is there yet
        truth = preprocess(x)
        assert torch.isfinite(truth).all() and truth.any()
        (found,) = session.run(None, {"joints": x.numpy()})
        np.testing.assert_allclose(found, truth.numpy(), rtol=1e-4, atol=1e-5)


def test_a_body_that_is_not_there_is_not_computed(made) -> None:
    """Counted on the first convolution of the trunk: its batch is the number of bodies that move."""
    base, *_ = made
    model = onnx.load(base / "bundle" / "model.onnx")
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.output.append(onnx.helper.make_tensor_value_info(first.output[0], onnx.TensorProto.FLOAT, None))
    session = open_session(model.SerializeToString(), 1)
    for empty, bodies in (((), 6), (((0, 1), (1, 1), (2, 1)), 3), (((0, 0), (0, 1), (1, 0)), 3)):
        (rows,) = session.run([first.output[0]], {"joints": people(3, 2, 30, empty).numpy()})
        assert len(rows) == bodies, empty


def test_constants_are_folded(made) -> None:
    """Four units: convolutions for values, four branches, the scale of a maximum, shortcuts; no batch norm, no tanh."""
    base, *_ = made
    kinds = Counter(node.op_type for node in onnx.load(base / "bundle" / "model.onnx").graph.node)
    units, shortcuts, residuals = 4, 3, 2  # units that change their width project inside; all but the first outside
    assert kinds["Conv"] == 6 * units + shortcuts + residuals
    assert not kinds["BatchNormalization"] and not kinds["Tanh"] and kinds["Sigmoid"] == units == kinds["MaxPool"]
    assert kinds["NonZero"] == 1 and kinds["Softmax"] == 1


def test_metadata_say_what_goes_in_and_out(made) -> None:
    base, bundle, facts = made
    for name in ("model.onnx", "model.fp16.onnx", "model.int8.onnx"):
        session = open_session(base / "bundle" / name, 1)
        meta = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
        assert meta["class_names"] == NAMES and meta["layout"]["joints"] == list(SOURCE.joints)
        assert meta["preprocess"]["streams"] == ["bone"] and "(clips, persons, frames, 20, 3)" in meta["input"]
        outputs = {each.name for each in session.get_outputs()}
        assert set(meta["outputs"]) == {"probabilities", "scores", "familiarity"} == outputs
        assert [each.name for each in session.get_inputs()] == ["joints"]
        assert facts[meta["variant"]["precision"]]["agreement"] == meta["variant"]["agreement"]
    assert read_bundle(base / "bundle").onnx == facts
    assert "model.int8.onnx" in (base / "bundle" / "README.md").read_text()


def test_no_constant_is_kept_twice(made) -> None:
    for name in ("model.onnx", "model.fp16.onnx", "model.int8.onnx"):
        constants = list(onnx.load(made[0] / "bundle" / name).graph.initializer)
        contents = {(one.data_type, tuple(one.dims), onnx.numpy_helper.to_array(one).tobytes()) for one in constants}
        assert len(contents) == len(constants) > 50


def test_a_graph_that_gives_no_numbers_does_not_agree(made) -> None:
    assert relative_difference(torch.tensor([1.0, torch.nan]), torch.ones(2)) == float("inf")
    folder, model, _ = made
    graph, probe = onnx.load(folder / "bundle" / "model.onnx"), folder / "probe.safetensors"
    assert agree(graph, model, probe) < 1e-4
    for node in graph.graph.node:
        node.output[:] = ["lost" if name == "probabilities" else name for name in node.output]
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.float32("nan"), "nan"))
    graph.graph.node.append(onnx.helper.make_node("Mul", ["lost", "nan"], ["probabilities"]))
    with pytest.raises(UserError, match="differ from the model's by inf"):
        agree(graph, model, probe)


def test_reduced_precision_is_compared_with_the_network(made) -> None:
    base, bundle, facts = made
    clips = known_clips(bundle)
    for precision, name in (("fp32", "model.onnx"), ("int8", "model.int8.onnx")):
        session = open_session(base / "bundle" / name, 1)
        outputs = [session.run(["probabilities", "familiarity"], {"joints": clips.read(i)}) for i in range(12)]
        found, sure = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
        assert clips.rule is not None and clips.familiarity is not None
        rejected = [each < clips.rule.threshold for each in (sure, clips.familiarity)]  # is an answer, too
        same = ((found.argmax(1) == clips.reference.argmax(1)) & (rejected[0] == rejected[1])).mean()
        assert facts[precision]["n"] == 12 and "top1" not in facts[precision]  # no label takes part
        assert facts[precision]["agreement"] == pytest.approx(same, abs=1e-6)
        far = np.abs(found - clips.reference).max()
        assert facts[precision]["max_probability_difference"] == pytest.approx(far, abs=1e-5)
    assert facts["fp32"]["max_probability_difference"] < 1e-4 < facts["int8"]["max_probability_difference"] < 0.3
    kinds = Counter(node.op_type for node in onnx.load(base / "bundle" / "model.int8.onnx").graph.node)
    assert kinds["DequantizeLinear"] > 50
    stored = {one.data_type for one in onnx.load(base / "bundle" / "model.fp16.onnx").graph.initializer if one.dims}
    assert onnx.TensorProto.FLOAT16 in stored


def test_a_graph_beyond_its_bounds_is_refused_and_not_written(made, tmp_path, monkeypatch) -> None:
    base, bundle, _ = made
    clips, graph = known_clips(bundle), onnx.load(base / "bundle" / "model.onnx")
    assert checked_agreement(graph, "fp32", clips, ExportOptions()).agreement == 1.0
    softmax = next(node for node in graph.graph.node if node.op_type == "Softmax")
    place = list(graph.graph.node).index(softmax)
    graph.graph.node.insert(place, onnx.helper.make_node("Neg", [softmax.input[0]], ["backwards"]))
    softmax = graph.graph.node[place + 1]
    softmax.input[0] = "backwards"  # names the least likely class of every clip
    with pytest.raises(UserError, match=r"int8 graph names the network's class for 0\.00% of 12 clips of own train"):
        checked_agreement(graph, "int8", clips, ExportOptions(min_agreement=0.5, max_difference=1.0))
    exported = onnx.load(base / "bundle" / "model.onnx")  # of the same weights
    monkeypatch.setattr("mmcl.deploy.graph_writing.export_graph", lambda model: exported)
    write_small(tmp_path / "bundle")
    strict = ExportOptions(onnx=("int8",), min_agreement=0.0, max_difference=1e-6)  # int8 never is that near
    with pytest.raises(UserError, match=r"a probability differs by 0\.\d+ \(--max-difference 1e-06\): nothing was"):
        write_graph_files(tmp_path / "bundle", tmp_path / "probe.safetensors", bundle.description, clips, strict)
    assert not (tmp_path / "bundle" / "model.int8.onnx").exists() and not read_bundle(tmp_path / "bundle").onnx


def test_a_bundle_of_graphs_alone_says_what_it_lacks(made, tmp_path) -> None:
    import shutil

    base, *_ = made
    slim = tmp_path / "slim"
    shutil.copytree(base / "bundle", slim)
    write_graph_files(slim, base / "probe.safetensors", read_bundle(slim), None, ExportOptions(drop_weights=True))
    assert read_bundle(slim).class_names == NAMES and not (slim / "model.safetensors").exists()
    with pytest.raises(UserError, match=r"no model\.safetensors, only model\.onnx.*--backend onnx"):
        load_bundle(slim)


def test_words_of_the_command_line() -> None:
    assert parse_precisions("int8, fp32") == ("fp32", "int8")
    for words in ("", "fp8", "fp32,int4"):
        with pytest.raises(UserError, match="choose from fp32, fp16, int8"):
            parse_precisions(words)
    words = ["--run", "nowhere", "--out", "never"]
    for flag, value, wanted in (
        ("--min-agreement", "0.9", "--onnx"), ("--max-difference", "0.1", "--onnx"),
        ("--reject-by", "probability", "--reject"), ("--data", "data/utd", "--onnx or --reject"),
        ("--protocol", "own", "--onnx or --reject"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"^{flag} does nothing without {wanted}: add that"):
            export([*words, flag, value])
        with pytest.raises(UserError, match="nowhere is neither"):
            export([*words, flag, value, *(["--reject"] if flag == "--reject-by" else ["--onnx"])])
    assert evenly(range(5), 9).tolist() == [0, 1, 2, 3, 4] and evenly(range(100), 3).tolist() == [0, 50, 99]
