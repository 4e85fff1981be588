"""``mmcl import-checkpoint``: an official state dict becomes a bundle with the official network's logits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from plain_network import randomise

import mmcl
from mmcl.benchmarks.plain.ctrgcn import PlainCTRGCN
from mmcl.benchmarks.plain.form import PLAIN_FORMS
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.import_checkpoint import main
from mmcl.skeletons.layout import load_layout


@pytest.mark.parametrize("decorated", [False, True])
def test_bundle_gives_the_official_logits_on_the_official_input(tmp_path, capsys, decorated) -> None:
    torch.manual_seed(0)
    official = randomise(PlainCTRGCN(classes=120, joints=25, persons=2, width=16), 0).eval()
    state = dict(official.state_dict())
    if decorated:  # as DataParallel and MMCL-Action save it
        state |= {
            "PosMatrix": torch.ones(120),
            "mlp.0.weight": torch.ones(64, 3),
            "FAM_Aligh.mlp.0.bias": torch.ones(4),
        }
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(state, tmp_path / "official.pt")
    out = tmp_path / "bundle"
    assert main([str(tmp_path / "official.pt"), "--out", str(out), "--stream", "bone"]) == 0
    printed = capsys.readouterr().out
    assert "120 classes, 25 joints (kinect_v2_25), 2 person(s)" in printed
    assert ("left behind: 3 tensors" in printed) == decorated
    x = torch.randn(3, 3, 64, 25, 2)  # N, C, T, V, M, the official order
    bundle = mmcl.load(out)
    with torch.no_grad():
        expected, found = official(x), bundle.encoder(x.permute(0, 4, 2, 3, 1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert json.loads((out / "config.json").read_text())["preprocess"]["streams"] == ["bone"]
    assert bundle(torch.randn(1, 1, 90, 25, 3)).shape == (1, 120)
    with pytest.raises(UserError, match="add --overwrite"):
        main([str(tmp_path / "official.pt"), "--out", str(out)])


@pytest.mark.parametrize("stream", ["joint", "bone"])
def test_nw_ucla_input_is_that_of_the_official_feeder(tmp_path, stream) -> None:
    torch.save(PlainCTRGCN(classes=10, joints=20, persons=1, width=16).state_dict(), tmp_path / "ucla.pt")
    words = ["--stream", stream, "--window", "52", "--centring", "none", "--scaling", "box", "--crop", "1.0"]
    assert main([str(tmp_path / "ucla.pt"), "--out", str(tmp_path / "bundle"), *words]) == 0
    clip = np.random.default_rng(0).normal(size=(52, 20, 3)) + 3.0  # as many frames as are taken: all are
    values = clip - clip[0, 1]
    low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
    expected = (values - low) / (high - low) * 2 - 1
    if stream == "bone":
        parents = [2, 3, 3, 3, 3, 5, 6, 7, 3, 9, 10, 11, 1, 13, 14, 15, 1, 17, 18, 19]  # from 1, of joints 1 to 20
        expected = np.stack([expected[:, j] - expected[:, parent - 1] for j, parent in enumerate(parents)], axis=1)
    found = mmcl.load(tmp_path / "bundle").preprocess(torch.from_numpy(clip[None, None]))
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-5)


def test_other_networks_and_the_bone_model(tmp_path, capsys) -> None:
    options = {"width": 8, "depth": 3, "text_width": 4, "persons": 1, "released": True, "bone_power": 1}
    encoder = build_encoder("step_catformer", load_layout("ctrgcn_ucla_20"), 10, options)
    official = randomise(PLAIN_FORMS["step_catformer"](encoder)[0], 0).eval()
    torch.save(official.state_dict(), tmp_path / "step.pt")
    out = tmp_path / "bundle"
    assert main([str(tmp_path / "step.pt"), "--out", str(out), "--window", "16", "--bone-model"]) == 0
    assert "STEP-CATFormer, 10 classes, 20 joints (ctrgcn_ucla_20), 1 person(s)" in capsys.readouterr().out
    x = torch.randn(2, 3, 16, 20, 1)
    with torch.no_grad():
        expected, found = official(x), mmcl.load(out).encoder(x.permute(0, 4, 2, 3, 1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.save(PlainCTRGCN(classes=3, joints=25, persons=1, width=8).state_dict(), tmp_path / "other.pt")
    with pytest.raises(UserError, match="--bone-model is for STEP-CATFormer, .* is CTR-GCN: say --stream bone"):
        main([str(tmp_path / "other.pt"), "--out", str(tmp_path / "no"), "--bone-model"])


def test_names_must_fit_and_nothing_stays_behind(tmp_path) -> None:
    torch.save(PlainCTRGCN(classes=7, joints=25, persons=2, width=16).state_dict(), tmp_path / "official.pt")
    with pytest.raises(UserError, match="names 27 classes, the checkpoint has 7"):
        main([str(tmp_path / "official.pt"), "--out", str(tmp_path / "bundle"), "--prompts", "utd_mhad"])
    assert [path.name for path in tmp_path.iterdir()] == ["official.pt"]


def test_a_file_of_something_else_is_named(tmp_path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="other.pt: not an official CTR-GCN checkpoint"):
        main([str(tmp_path / "other.pt"), "--out", str(tmp_path / "out")])
