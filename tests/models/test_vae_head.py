"""The text head of SA-DVAE: what it fits, what it keeps, and that a bundle and its graph carry it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mmcl
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.models.bundle import describe, write_bundle
from mmcl.models.model import Model
from mmcl.models.text_head import build_text_head
from mmcl.models.vae_head import VAEHead, VAEOptions
from mmcl.models.vocabulary import Vocabulary
from mmcl.predict import main as predict
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

LAYOUT = load_layout("utd_mhad_20")
TABLE = ["wave", "sit down", "jump", "juggle"]  # the last one was never trained
TEXT = {"source": "sentence", "model": "nowhere", "clip_model": None, "clip_pretrained": None}
D = 10


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return F.normalize(torch.randn(4, D, generator=torch.Generator().manual_seed(1)), dim=1)


def made(features: int = 12, **more) -> VAEHead:
    torch.manual_seed(0)
    head = VAEHead(features, D, VAEOptions(**{"meaning": 6, "manner": 3, "repeats": 20, "steps": 900, **more}))
    with torch.no_grad():
        head.text_encoder.log_variance.bias.sub_(3.0)  # texts that can be told apart
        head.text_encoder.mean.weight.mul_(12.0)
        head.scale.fill_(2.0)
    return head.eval()


def test_scores_are_those_of_a_linear_classifier_on_the_mean_meaning(rows) -> None:
    head, features = made(), torch.randn(5, 12)
    fitted = head.fit(rows).numpy().astype(np.float64)
    layer = head.skeleton_encoder.mean
    weight, bias = layer.weight.detach().numpy().astype(np.float64), layer.bias.detach().numpy()
    with torch.no_grad():
        found = head.scores(features, torch.from_numpy(fitted)).numpy()
    for row, feature in zip(found, features.numpy(), strict=True):
        meaning = (weight @ (feature / 2.0) + bias)[:6]  # the last three numbers are the manner
        expected = [sum(fitted[k, z] * meaning[z] for z in range(6)) + fitted[k, 6] for k in range(4)]
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_a_fitted_classifier_tells_the_texts_apart_and_comes_out_the_same_again(rows) -> None:
    head = made()
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    with torch.no_grad():
        first = head.fit(rows)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(4)
    with torch.inference_mode():
        assert torch.equal(head.fit(rows), first)
    means = head.text_encoder.mean(rows)
    answers = (means @ first[:, :-1].T + first[:, -1]).argmax(dim=1)
    assert answers.tolist() == [0, 1, 2, 3]
    assert not torch.allclose(head.fit(rows[:2]), first[:2])  # among others, another classifier


def test_what_is_kept_answers_for_its_own_classes_alone(rows) -> None:
    head = made(kept=2)
    head.keep(rows[2:])
    assert torch.equal(head.fit(rows[2:]), head.fitted(rows[2:]))
    with torch.no_grad():
        head.text_encoder.mean.weight.zero_()
    assert torch.equal(head.fit(rows[2:] + 1e-7), head.kept_classifier)
    assert not torch.equal(head.fit(rows[:2]), head.kept_classifier)


def test_options_out_of_range_are_refused_as_a_stranger_s_bundle_may_have_them() -> None:
    for options, word in (({"meaning": 0}, "meaning"), ({"kept": 10**9}, "kept"), ({"steps": -1}, "steps")):
        with pytest.raises(UserError, match=word):
            build_text_head("vae", 4, 4, options)


@pytest.fixture(scope="module")
def model(rows) -> Model:
    torch.manual_seed(0)
    encoder = build_encoder("tcn", LAYOUT, 3, {"width": 8, "members": 1, "persons": 1}).eval()
    head = made(encoder.feature_width, kept=4)
    head.keep(rows)
    head.text = TEXT
    vocabulary = Vocabulary(head, ["{name}"], TABLE, rows)
    preprocess = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(window=16))
    description = describe("tcn", encoder, preprocess, TABLE[:3], vocabulary=vocabulary)
    return Model(description, encoder, preprocess, vocabulary)


def test_a_bundle_carries_it_and_predict_asks_it_for_classes_by_name(model, rows, tmp_path, capsys) -> None:
    (tmp_path / "bundle").mkdir()
    write_bundle(tmp_path / "bundle", model)
    loaded = mmcl.load(tmp_path / "bundle")
    assert isinstance(loaded.text_head, VAEHead) and loaded.vocabulary.facts["head"]["name"] == "vae"
    clip = np.random.default_rng(0).normal(size=(30, 20, 3)).astype(np.float32)
    np.save(tmp_path / "clip.npy", clip)
    files = [str(tmp_path / "bundle"), str(tmp_path / "clip.npy")]
    assert predict([*files, "--classes", "wave,juggle", "--json", "--top", "2"]) == 0
    answer = {one["name"]: one["probability"] for one in json.loads(capsys.readouterr().out)["predictions"]}
    joints = torch.from_numpy(clip)[None, None]
    with torch.no_grad():
        scores = model.text_head.scores(model.features(joints), model.text_head.fitted(rows[[0, 3]]))
    assert [answer["wave"], answer["juggle"]] == pytest.approx(scores.softmax(1)[0].tolist(), abs=1e-5)


def test_a_graph_gives_the_meaning_from_which_scores_are_made(model) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from mmcl.deploy.onnx import export_graph

    session = runtime.InferenceSession(export_graph(model).SerializeToString())
    joints = torch.randn(2, 1, 21, 20, 3)
    meaning = session.run(None, {session.get_inputs()[0].name: joints.numpy()})[2]
    with torch.no_grad():
        fitted, features = model.vocabulary.fit(TABLE), model.features(joints)
        expected = model.text_head.scores(features, fitted)
    np.testing.assert_allclose(meaning @ fitted[:, :-1].numpy().T + fitted[:, -1].numpy(), expected, atol=1e-3)
