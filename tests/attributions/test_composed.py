"""The tools compose: a compressed model is explained, on real clips."""

from __future__ import annotations

from pathlib import Path

import torch
from made import small_model

from mmcl.attributions.explaining import explain
from mmcl.attributions.sources import gathered
from mmcl.deploy.files import read_joints
from mmcl.encoders.counting import count_parameters
from mmcl.evaluation.faithfulness.stability import randomised
from mmcl.skeletons.layout import load_layout
from mmcl.surgery.base import build_surgery


def test_a_compressed_model_is_explained_and_nothing_of_its_score_is_lost(test_data: Path) -> None:
    layout = load_layout("utd_mhad_20")
    files = [test_data / "utd_mhad" / "Skeleton" / f"a{action}_s1_t1_skeleton.mat" for action in (1, 9, 22)]
    joints, lengths = gathered([read_joints(file, layout) for file in files])
    whole = small_model(layout, list("abcde"), width=16)
    compressed = build_surgery("low_rank", {"policy": "ratio", "amount": 0.4}).run(whole)
    assert count_parameters(compressed.encoder) < count_parameters(whole.encoder)
    shares = {name: explain(model, joints, lengths, "deep_lift", {"over": "frames"}, torch.tensor([0, 1, 2]))
              for name, model in (("whole", whole), ("compressed", compressed))}  # fmt: skip
    for model, found in zip((whole, compressed), shares.values(), strict=True):
        torch.testing.assert_close(found.scores, model(joints, lengths)[range(3), range(3)], rtol=1e-4, atol=1e-5)
        assert found.residual.abs().max() < 1e-3 * (found.scores - found.baseline).abs().max()
    assert not torch.allclose(shares["whole"].values, shares["compressed"].values, atol=1e-3)
    played = explain(compressed, joints[:1], lengths[:1], "shapley", {"permutations": 4})
    assert played.values.shape == (1, 20) and played.residual.abs().max() < 1e-4 * played.values.abs().max() + 1e-4
    fresh = randomised(compressed, "all", 0)
    assert count_parameters(fresh.encoder) == count_parameters(compressed.encoder)
    assert not torch.allclose(fresh(joints, lengths), compressed(joints, lengths))
