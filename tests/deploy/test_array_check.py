"""Arrays that a loaded model is shown are mended and looked at as files are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from making import write_small
from test_stream import somebody

import mmcl
from mmcl.common.errors import UserError
from mmcl.deploy.arrays import ArrayCheck
from mmcl.deploy.predictor import Predictor


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arrays") / "bundle"
    write_small(folder)
    return folder


def damaged() -> dict[str, np.ndarray]:
    """(M, T, 20, 3) clips of one and the same action; what is wrong with each can be mended."""
    rng, clip = np.random.default_rng(0), somebody(40)
    clip = clip + 0.1 * np.sin(np.arange(40) / 5)[:, None, None].astype(np.float32)
    holes = rng.random(clip.shape[:2]) < 0.03
    one = clip[None]
    far, absent, two = one.copy(), one.copy(), np.stack([clip, clip + np.float32([0.8, 0, 0])])
    far[0, holes], absent[0, holes] = -9999, np.nan
    swapped = two.copy()
    swapped[:, 20:] = two[::-1, 20:]
    padded = np.concatenate([np.zeros((1, 9, 20, 3)), one, np.zeros((1, 30, 20, 3))], axis=1).astype(np.float32)
    return {"clean": one, "far": far, "absent": absent, "two": two, "swapped": swapped, "padded": padded}


def test_an_array_is_classified_as_the_file_that_holds_it(bundle: Path, tmp_path: Path) -> None:
    predictor, model = Predictor(bundle), mmcl.load(str(bundle))
    for name, clip in damaged().items():
        np.save(tmp_path / f"{name}.npy", clip)
        asked = predictor.classify_file(tmp_path / f"{name}.npy")
        assert predictor.classify(clip) == asked
        found = model(torch.from_numpy(clip)[None]).softmax(-1)[0]
        assert [float(found[label]) for label, _, _ in asked] == pytest.approx([p for *_, p in asked], abs=1e-6), name


def test_a_batch_of_clips_of_different_lengths_is_mended_clip_by_clip(bundle: Path) -> None:
    clips = {name: clip for name, clip in damaged().items() if len(clip) == 1}
    model, longest = mmcl.load(str(bundle)), max(clip.shape[1] for clip in clips.values())
    batch = torch.full((len(clips), 2, longest, 20, 3), 7.0)  # what is behind the end of a clip, nobody looks at
    for row, clip in zip(batch, clips.values(), strict=True):
        row[1], row[:1, : clip.shape[1]] = 0, torch.from_numpy(clip)
    lengths = torch.tensor([clip.shape[1] for clip in clips.values()])
    alone = torch.cat([model(torch.from_numpy(clip)[None]) for clip in clips.values()])
    torch.testing.assert_close(model(batch, lengths), alone, rtol=1e-4, atol=1e-5)
    same = torch.from_numpy(np.stack([clips["clean"]] * 2))
    check = ArrayCheck(model.description, model.layout)
    assert check(same, None)[0] is same


def test_what_is_hard_to_believe_is_said_once_or_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upside_down = torch.from_numpy(somebody() * np.float32([-1, -1, 1]))[None, None]
    model = mmcl.load(str(bundle))
    model(torch.cat([torch.from_numpy(somebody())[None, None], upside_down]))
    said = capsys.readouterr().err
    assert said.startswith("warning: clip 1 of 2: the body stands on its head") and "--axes=-x-yz" in said
    model(upside_down)
    assert not capsys.readouterr().err
    strict = mmcl.load(str(bundle), strict=True)
    for _ in range(2):
        with pytest.raises(UserError, match="the clip: the body stands on its head"):
            strict(upside_down)
    strict(torch.from_numpy(somebody())[None, None])
    mmcl.load(str(bundle), check=False)(upside_down)
    assert not capsys.readouterr().err
    Predictor(bundle).classify(upside_down[0].numpy())
    assert capsys.readouterr().err.startswith("warning: the clip: the body stands on its head")


def test_on_a_gpu_some_clips_speak_for_a_batch(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mmcl.load(str(bundle))
    check, seen = ArrayCheck(model.description, model.layout), []
    monkeypatch.setattr("mmcl.deploy.arrays.quick", lambda joints: False)
    looked = check.looker
    monkeypatch.setattr(check, "looker", lambda *given: seen.append(given[2]) or looked(*given))
    clean = torch.from_numpy(somebody())[None, None].repeat(20, 1, 1, 1, 1)
    assert check(clean, None)[0] is clean and len(seen) == 8 and seen[-1] == "clip 19 of 20"
    clean[19, :, :4] = 0
    check(clean, None)
    assert len(seen) == 8 + 20
