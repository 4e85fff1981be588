"""A causal model in a stream: frame by frame it says what the clip up to there would get, in torch and as a graph."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
import torch
from making import NAMES, SOURCE, TARGET, people, with_familiarity
from safetensors.torch import save_file

from mmcl.common.errors import UserError
from mmcl.deploy.continual import ContinualStream
from mmcl.deploy.predictor import Predictor
from mmcl.deploy.step_onnx import agree_step_by_step, export_steps
from mmcl.deploy.step_runner import OnnxStepper
from mmcl.deploy.stepping import StepGraph, macs_a_frame
from mmcl.deploy.stream import Stream
from mmcl.deploy.streams import open_streams
from mmcl.encoders.building import build_encoder
from mmcl.models.bundle import describe, load_bundle, write_bundle
from mmcl.models.description import read_bundle
from mmcl.models.model import Model
from mmcl.models.session import open_session
from mmcl.predict import main as predict
from mmcl.skeletons.frames import FramePreprocess, not_of_a_stream
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

STREAMED = {"timing": "pad", "crop": 1.0, "centring": "every_frame", "gaps": "zero"}
CAUSAL = {"width": 8, "depth": 3, "persons": 2, "causal": True, "memory": 16}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """20 joints in, 25 inside, bones; the window is longer than the memory."""
    folder = tmp_path_factory.mktemp("continual") / "bundle"
    torch.manual_seed(0)
    encoder = build_encoder("ctrgcn", TARGET, len(NAMES), CAUSAL)
    preprocess = Preprocess(SOURCE, TARGET, 2, PreprocessOptions(streams=("joint", "bone"), window=48, **STREAMED))
    encoder = build_encoder("ctrgcn", TARGET, len(NAMES), {**CAUSAL, "channels": preprocess.channels})
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        encoder.train()
        for _ in range(2):
            encoder(preprocess(torch.randn(8, 2, 40, 20, 3)))
    folder.mkdir()
    model = Model(describe("ctrgcn", encoder.eval(), preprocess, NAMES), encoder, preprocess)
    write_bundle(folder, with_familiarity(model))
    return folder


def test_a_stream_says_at_any_time_what_the_clip_up_to_there_gets(bundle) -> None:
    predictor = Predictor(bundle)
    frames = people(1, 2, 45)[0].numpy()
    frames[1, :9] = frames[1, 30:] = 0  # the second person comes later and leaves
    frames[0, 12:14, SOURCE.centre] = 0  # then the place of the first frame counts
    frames[0, 20, 4, 2] = np.nan
    stream = open_streams(predictor, read_bundle(bundle), hop=1)()
    assert isinstance(stream, ContinualStream)
    for number in range(45):
        said = stream.push(frames[:, number])
        whole = (number + 1) // 4 * 4
        assert (said is None) == (whole == 0)
        if said is not None:
            expected = predictor.rank(frames[:, :whole])
            assert {n: p for _, n, p in said.ranking} == pytest.approx({n: p for _, n, p in expected}, abs=1e-6)
            assert said.ranking.familiarity == pytest.approx(expected.familiarity, abs=1e-5)
    ended = open_streams(predictor, read_bundle(bundle), hop=100)()
    assert all(ended.push(frames[:, number]) is None for number in range(45))
    last = ended.finish()  # with the frame that fills no step
    assert last is not None and last.frame == 45
    assert last.ranking[0][2] == pytest.approx(predictor.rank(frames)[0][2], abs=1e-6)


def test_people_keep_their_slot_and_a_stream_begins_anew_when_all_are_gone(bundle) -> None:
    predictor, frames = Predictor(bundle), people(1, 1, 24)[0].numpy()
    nobody, fourth = np.zeros((1, 20, 3), np.float32), np.zeros((3, 20, 3), np.float32)
    stream = open_streams(predictor, read_bundle(bundle), hop=4)()
    for _ in range(6):  # nobody yet: nothing is said, and no step is begun
        said = stream.push(nobody)
    for number in range(2 + 16):  # whoever is fourth in a frame is first in the model
        said = stream.push(np.concatenate([fourth, frames[:, number]]))
    assert said is not None and said.frame == 24
    assert said.ranking[0][2] == pytest.approx(predictor.rank(frames[:, :16])[0][2], abs=1e-6)
    for _ in range(40):  # memory and one topology
        said = stream.push(nobody)
    assert said is not None and said.ranking == []
    for number in range(24):
        said = stream.push(frames[:, number])
    assert said is not None and said.ranking[0][2] == pytest.approx(predictor.rank(frames)[0][2], abs=1e-6)
    with pytest.raises(UserError, match="a frame must be"):
        stream.push(np.zeros((1, 19, 3), np.float32))
    with pytest.raises(UserError, match="--hop"):
        open_streams(predictor, read_bundle(bundle), hop=0)()
    asked_for_windows = open_streams(predictor, read_bundle(bundle), span=30)()
    assert isinstance(asked_for_windows, Stream)


@pytest.mark.slow
def test_the_graph_for_streams_is_the_same_function(bundle, tmp_path) -> None:
    model, probe = load_bundle(bundle), tmp_path / "probe.safetensors"
    joints = people(3, 2, 47)
    joints[1, 1, :20] = 0.0
    joints[2, 0, 11:13, SOURCE.centre] = 0.0
    save_file({"joints": joints, "lengths": torch.tensor([47, 31, 42])}, probe)
    graph = export_steps(model)
    assert agree_step_by_step(graph, model, probe) < 1e-5
    stepper = OnnxStepper(open_session(graph.SerializeToString()), model.class_names, 2)
    streams = [ContinualStream(each, hop=1) for each in (stepper, Predictor(bundle).stepper())]
    frames = people(1, 2, 40)[0].numpy()
    frames[1, :9] = 0  # a row more from there on
    for number in range(40):
        graphs, torches = (stream.push(frames[:, number]) for stream in streams)
        assert (graphs is None) == (torches is None)
        if graphs is not None:
            assert graphs.ranking[0][1] == torches.ranking[0][1]
            assert graphs.ranking[0][2] == pytest.approx(torches.ranking[0][2], abs=1e-5)
            assert graphs.ranking.familiarity == pytest.approx(torches.ranking.familiarity, abs=1e-5)
    weight = next(each for each in graph.graph.initializer if sorted(each.dims) == [len(NAMES), 32])  # the classifier
    weight.raw_data = np.ones(tuple(weight.dims), np.float32).tobytes()
    with pytest.raises(UserError, match="differs from the model"):
        agree_step_by_step(graph, model, probe)


@pytest.mark.parametrize(("frames", "hop"), [(3, 1), (3, 3), (7, 1), (8, 4), (9, 3)])
def test_the_end_of_a_stream_is_said_whatever_the_hop(bundle, frames, hop) -> None:
    clip, predictor = people(1, 1, 40)[0, :, :frames].numpy(), Predictor(bundle)
    stream = ContinualStream(predictor.stepper(), hop=hop)
    said = [each for each in (*(stream.push(frame) for frame in clip.swapaxes(0, 1)), stream.finish()) if each]
    expected = predictor.rank(clip)
    assert said[-1].frame == frames and said[-1].ranking[0][1] == expected[0][1]
    assert said[-1].ranking[0][2] == pytest.approx(expected[0][2], abs=1e-5)


def test_a_graph_for_streams_that_announces_a_huge_step_is_refused(bundle) -> None:
    graph, huge = export_steps(load_bundle(bundle)), 2**61
    joints = next(each for each in graph.graph.input if each.name == "joints")
    joints.type.tensor_type.shape.dim[1].dim_value = huge
    said = next(each for each in graph.metadata_props if each.key == "variant")
    facts = json.loads(said.value)
    facts["continual"]["step"] = huge
    said.value = json.dumps(facts)
    with pytest.raises(UserError, match="export it again"):
        OnnxStepper(open_session(graph.SerializeToString()), NAMES, 2)


def test_predict_follows_a_causal_model_step_by_step(bundle, monkeypatch, capsys) -> None:
    frames = people(1, 1, 21)[0].numpy()
    lines = [json.dumps(frames[0, number].tolist()) for number in range(21)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    assert predict([str(bundle), "--follow", "-", "--hop", "8", "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["frame"] for each in said] == [8, 16, 21]
    for each in said:
        expected = Predictor(bundle).rank(frames[:, : each["frame"]])
        assert each["predictions"][0]["name"] == expected[0][1]
        assert each["predictions"][0]["probability"] == pytest.approx(expected[0][2], abs=1e-5)
        assert each["familiarity"] == pytest.approx(expected.familiarity, abs=1e-5)


def test_what_a_stream_cannot_have_is_said_in_a_line(bundle) -> None:
    assert not_of_a_stream(PreprocessOptions(**STREAMED)) == []
    wrong = PreprocessOptions(streams=("joint", "bone_motion"), smoothing=1.0, scaling="box")
    with pytest.raises(UserError) as refused:
        FramePreprocess(Preprocess(SOURCE, SOURCE, 1, wrong))
    wanted = "timing=pad crop=1 centring=every_frame gaps=zero scaling=none smoothing=0 bone_motion"
    for word in wanted.split():
        assert word in str(refused.value)
    model = load_bundle(bundle)
    assert 0 < macs_a_frame(model) < 0.05 * model.description.counts["macs"]
    model.encoder.altered = True
    with pytest.raises(UserError, match="sees whole windows"):
        StepGraph(model)


def test_without_a_centre_joint_the_origin_stays_where_the_first_frames_were() -> None:
    middle, width = SOURCE.centre, 3
    options = PreprocessOptions(window=16, timing="pad", crop=1.0, centring="every_frame", gaps="zero")
    preprocess = FramePreprocess(Preprocess(SOURCE, SOURCE, 1, options))
    walk = people(1, 1, 20)[0].clone()  # (1, 20, V, 3)
    walk[..., 2] += torch.linspace(9, 12, 20)[:, None]  # away from the sensor, around which nobody stands
    place = walk[:, :, middle].clone()
    walk[:, :, middle] = 0
    walk[:, 9, middle] = place[:, 9]  # seen once, in the third step
    mean = walk[0, :4].reshape(-1, 3).sum(dim=0) / walk[0, :4].any(dim=-1).sum()
    origins = [mean] * 8 + [place[0, 9]] * 12
    kept = preprocess.begin()
    for begin in range(0, 20, 4):
        found, kept = preprocess(walk[:, begin : begin + 4], kept)
        for frame in range(begin, begin + 4):
            there = walk[0, frame].any(dim=-1)
            expected = torch.where(there[:, None], walk[0, frame] - origins[frame], 0)
            torch.testing.assert_close(found[0, frame - begin, :, :width], expected, atol=1e-5, rtol=1e-5)
