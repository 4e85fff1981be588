"""Streams that were trained apart are fused as models: what each found is found again, used, saved and trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.fuse import main as fuse
from mmcl.models.bundle import describe, load_bundle, write_bundle
from mmcl.models.folder import open_model
from mmcl.models.model import Model
from mmcl.models.record import Record
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.surgery.base import build_surgery

LAYOUT, NAMES = load_layout("kinect_v1_20"), ["wave", "kick", "jump"]
STREAMS = ("joint", "temporal")
SMALL = {"frames": 8, "step": 4, "lstm_width": 6, "relation_widths": [8, 6], "dense_widths": [6, 5], "persons": 1,
         "dropout": 0.0}  # fmt: skip


def saved(folder: Path, seed: int = 0, names: list[str] = NAMES, window: int = 16, **options: object) -> Path:
    """A bundle of a small network with random weights."""
    torch.manual_seed(seed)
    encoder = build_encoder("arn_lstm", LAYOUT, len(names), {**SMALL, **options}).eval()
    preprocess = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(window=window, timing="pad"))
    description = describe("arn_lstm", encoder, preprocess, names)
    folder.mkdir()
    record = Record(protocol=f"rule of {folder.name}")
    write_bundle(folder, Model(description.changed(record=record.to_json()), encoder, preprocess))
    return folder


@pytest.fixture
def joints() -> torch.Tensor:
    return torch.randn(4, 1, 12, 20, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("lstms", [0, 1])
def test_probabilities_of_the_parts_are_averaged(tmp_path, joints, lstms) -> None:
    parts = [saved(tmp_path / name, place, streams=[name], lstms=lstms) for place, name in enumerate(STREAMS)]
    assert fuse([*map(str, parts), "--fusion", "average", "--out", str(tmp_path / "fused")]) == 0
    fused, models = load_bundle(tmp_path / "fused"), [load_bundle(part) for part in parts]
    if lstms:
        expected = torch.stack([model.features(joints) for model in models]).mean(dim=0)
        torch.testing.assert_close(fused.features(joints), expected)
    else:
        chances = torch.stack([model(joints).softmax(dim=1) for model in models]).mean(dim=0)
        torch.testing.assert_close(fused(joints).softmax(dim=1), chances)
    assert {one.protocol for one in fused.record.lineage()} >= {"rule of joint", "rule of temporal"}


@pytest.mark.parametrize("fusion", ["pooled", "dense"])
def test_streams_are_those_that_were_trained_and_what_follows_is_new(tmp_path, joints, fusion) -> None:
    parts = [saved(tmp_path / name, place, streams=[name]) for place, name in enumerate(STREAMS)]
    models = [open_model(part) for part in parts]
    fused = build_surgery("fuse", {"others": [str(parts[1])], "fusion": fusion}).run(models[0])
    x = models[0].preprocess(joints)
    found, expected = fused.encoder.outputs(x), [model.encoder.outputs(x) for model in models]
    for key in ("pooled",) if fusion == "pooled" else ("pooled", "dense"):
        torch.testing.assert_close(found[key], torch.cat([outputs[key] for outputs in expected], dim=-1))
    assert fused.description.provenance["untrained_classifier"]
    trained = {name.partition(".")[0] for name, one in fused.encoder.named_parameters() if one.requires_grad}
    assert trained == {"tails", "classifier"}


def test_models_that_do_not_fit_are_refused(tmp_path) -> None:
    joint = saved(tmp_path / "joint", streams=["joint"])
    model = open_model(joint)
    others = {
        "they know different classes": saved(tmp_path / "a", names=["wave", "kick", "run"], streams=["temporal"]),
        "they prepare clips differently": saved(tmp_path / "b", window=24, streams=["temporal"]),
        "their encoders have other options": saved(tmp_path / "c", streams=["temporal"], lstm_width=7),
        "each stream once": joint,
        "with one stream": saved(tmp_path / "d", streams=["temporal", "joint"]),
    }
    for reason, other in others.items():
        with pytest.raises(UserError, match=reason):
            build_surgery("fuse", {"others": [str(other)]}).run(model)
    with pytest.raises(UserError, match="at least one other model: give two models or more"):
        build_surgery("fuse").run(model)
    reshape = type(build_surgery("fuse")).reshape
    for structure in ({}, {"streams": "joint", "fusion": "pooled", "freeze": True},
                      {"streams": ["joint", "no"], "fusion": "pooled", "freeze": True},
                      {"streams": ["joint"], "fusion": ["pooled"], "freeze": True}):  # fmt: skip
        with pytest.raises((UserError, TypeError)):  # build_network says either in one line
            reshape(model.encoder, structure)
