"""Attacks on every encoder of the house: each has gradients to the raw joints, and takes posterior heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmcl.attacks.base import build_attack
from mmcl.encoders import ENCODERS
from mmcl.encoders.building import build_encoder
from mmcl.evaluation.attack_models import defended
from mmcl.models.bundle import build_network, describe, load_bundle, write_bundle
from mmcl.models.description_file import Operation
from mmcl.models.model import Model
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.surgery.posterior import posterior_of
from mmcl.surgery.posterior_heads import PosteriorHeadsSurgery

K, STRUCTURE = 5, {"heads": 2, "classes": 5, "released": False}


def made_model(name: str, options: dict) -> Model:
    """A model of random weights with posterior heads, as the surgery leaves it."""
    torch.manual_seed(0)
    layout = load_layout("kinect_v2_25")
    encoder = build_encoder(name, layout, K, {**ENCODERS[name].tiny, **options})
    preprocess = Preprocess(layout, layout, encoder.options.persons, PreprocessOptions(window=16))
    description = describe(name, encoder.eval(), preprocess, [str(k) for k in range(K)], count=False)
    operation = Operation("posterior_heads", {}, STRUCTURE)
    encoder = PosteriorHeadsSurgery.rebuild(encoder, STRUCTURE).eval()
    return Model(description.changed(surgeries=(operation,)), encoder, preprocess)


@pytest.fixture(scope="module")
def joints() -> Tensor:
    """Two clips with one and two people."""
    x = torch.randn(2, 2, 20, 25, 3, generator=torch.Generator().manual_seed(1)) + torch.tensor([0.0, 0.0, 3.0])
    x[0, 1] = 0.0
    return x


AVERAGED = {"streams": ["inter", "temporal"], "fusion": "average"}  # several classifiers, whose answers are averaged
CASES = [*((name, {}) for name in ENCODERS), ("arn_lstm", AVERAGED)]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_tasar_moves_the_joints_of_every_encoder_against_its_answer(
    name: str, options: dict, joints: Tensor, tmp_path: Path
) -> None:
    model = made_model(name, options)
    assert posterior_of(model) is not None and model.encoder.altered
    lengths, labels = torch.tensor([20, 20]), model(joints).argmax(dim=1)
    attack = build_attack("tasar", {"epsilon": 0.02, "steps": 3, "samples": 2, "bandwidth": 0.5})
    found = attack.run(model, joints, labels)
    moved = (found - joints).abs()
    assert 0 < moved.max() <= 0.02 * 1.001 and not moved[0, 1].any()

    def loss(x: Tensor) -> float:
        return float(torch.nn.functional.cross_entropy(model(x, lengths), labels))

    assert loss(found) > loss(joints)
    write_bundle(tmp_path, model)
    loaded = load_bundle(tmp_path)
    torch.testing.assert_close(loaded(joints), model(joints), rtol=1e-5, atol=1e-5)
    built, _ = build_network(loaded.description, "again")
    assert posterior_of(built) is not None


def test_heads_and_smoothing_leave_as_a_graph(joints: Tensor) -> None:
    """The scores of onnxruntime are those of the model, with clips of another length and number of people."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from mmcl.deploy.onnx import export_graph
    from mmcl.models.session import open_session

    model = defended(made_model("tcn", {}), 1.5)
    session = open_session(export_graph(model).SerializeToString())
    for clips in (joints, joints[:1, :1, :13]):
        with torch.no_grad():
            expected = model(clips)
        found = torch.from_numpy(session.run(["scores"], {"joints": clips.numpy()})[0])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
