"""The released aggregation of SHAP tensors against what the released code made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import load_arrays
from made import small_model
from torch import Tensor

from mmcl.attributions.base import build_attribution
from mmcl.attributions.released import joint_sets, part_scores, released_shares
from mmcl.common.errors import UserError
from mmcl.skeletons.layout import load_layout

# The five parts of the 29 joints of the recordings "cp".
PARTS = ((9, 10, 11, 21, 22), (5, 6, 7, 19, 20), (16, 17, 18, 26, 27, 28), (13, 14, 15, 23, 24, 25),
         (0, 1, 2, 3, 4, 8, 12))  # fmt: skip


def shares(tensor: np.ndarray, target: int) -> Tensor:
    """Released tensors (N, inputs, C, T, V, K) as shares (N, 1, T, V, channels) of one class's score."""
    of_class = torch.from_numpy(tensor[..., target]).flatten(1, 2)
    return of_class.permute(0, 2, 3, 1)[:, None]


def groups(kind: str) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of each prefix that has some of a kind, by their names behind it."""
    arrays, found = load_arrays("shapgcn", "shap_scores"), {}
    for prefix in sorted({key.partition("/")[0] for key in arrays}):
        own = {key.removeprefix(f"{prefix}/"): each for key, each in arrays.items() if key.startswith(f"{prefix}/")}
        if any(key.startswith(kind) for key in own):
            found[prefix] = own
    return found


def test_scores_of_joints_and_the_sets_that_are_perturbed() -> None:
    cases = groups("shap_seed")
    assert cases
    for arrays in cases.values():
        seeds = [shares(arrays[key], int(arrays["target_class"])) for key in arrays if key.startswith("shap_seed")]
        mean = torch.stack(seeds).mean(dim=0)  # over background seeds, as over their clips
        torch.testing.assert_close(mean, shares(arrays["shap_mean"], int(arrays["target_class"])), rtol=0, atol=1e-6)
        scores = released_shares(mean)[:, 0]
        torch.testing.assert_close(scores.double(), torch.from_numpy(arrays["joint_score"]), rtol=1e-5, atol=1e-7)
        order = (-torch.from_numpy(arrays["joint_score"])).argsort(dim=1, stable=True)
        assert torch.equal(order, torch.from_numpy(arrays["order_desc"]))
        counts = {int(key.split("_k")[1].split("/")[0]) for key in arrays if key.startswith("important")}
        assert counts
        for count in counts:
            for name in ("important", "unimportant"):
                found = joint_sets(torch.from_numpy(arrays["joint_score"]), count, name == "important")
                expected = [arrays[f"{name}_k{count}/{clip}"].tolist() for clip in range(len(found))]
                assert [sorted(each) for each in found] == [sorted(each) for each in expected]


def test_scores_for_each_class_and_part() -> None:
    cases, compared = groups("class"), 0
    assert cases
    for arrays in cases.values():
        targets = {int(key.partition("/")[0].removeprefix("class")) for key in arrays if key.startswith("class")}
        assert targets
        for target in targets:
            expected = torch.from_numpy(arrays[f"class{target}/joint_score"])
            found = released_shares(shares(arrays["shap"], target))[:, 0]
            torch.testing.assert_close(found, expected.to(found), rtol=1e-4, atol=1e-6)
            order = (-expected).argsort(dim=1, stable=True)
            assert torch.equal(order, torch.from_numpy(arrays[f"class{target}/order_desc"]))
            if f"class{target}/part_score" in arrays:
                parts = part_scores(expected, PARTS)
                torch.testing.assert_close(parts, torch.from_numpy(arrays[f"class{target}/part_score"]))
                compared += 1
    assert compared


def test_backgrounds_of_several_seeds_are_one_background() -> None:
    """DeepLIFT of all their clips together is the released mean over seeds, whose backgrounds are of one size."""
    layout = load_layout("utd_mhad_20")
    model = small_model(layout, ["a", "b", "c"])
    clips, background = torch.randn(2, 1, 16, 20, 3), torch.randn(6, 1, 16, 20, 3)

    def values(background: Tensor) -> Tensor:
        return build_attribution("deep_lift").run(model, clips, None, torch.tensor([0, 2]), background).over_time

    apart = torch.stack([values(part) for part in background.split(2)])
    torch.testing.assert_close(values(background), apart.mean(dim=0), rtol=1e-4, atol=1e-5)
    assert apart.std(dim=0).max() > 0.01


def test_the_switch_keeps_the_first_body_and_averages_over_its_first_frames() -> None:
    values = torch.randn(2, 3, 200, 5, 4)
    naive = torch.stack([sum(values[:, 0, frame].sum(dim=-1) for frame in range(150)) / 150])[0]
    found = build_attribution("gradient", {"released": True})._gathered(values)
    torch.testing.assert_close(found, naive, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"gradient.over is frames: the released aggregation has one number a joint"):
        build_attribution("gradient", {"released": True, "over": "frames"})._gathered(values)
    with pytest.raises(UserError, match="tells no bodies and frames apart"):
        build_attribution("shapley", {"released": True})._gathered(values[:, 0, 0, :, 0])


@pytest.mark.parametrize("name", ["deep_lift", "shapley", "random"])
def test_clips_that_cannot_be_explained_are_named(name: str) -> None:
    model, attribution = small_model(load_layout("utd_mhad_20"), ["a", "b"]), build_attribution(name)
    clips, target = torch.randn(2, 1, 16, 20, 3), torch.tensor([0, 1])
    with pytest.raises(UserError, match="there are no clips to explain"):
        attribution.run(model, clips[:0], None, target[:0], clips)
    with pytest.raises(UserError, match=r"clips must be \(N, persons, frames, joints, 3\), not \(2, 16, 20, 3\)"):
        attribution.run(model, clips[:, 0], None, target, clips)
    with pytest.raises(UserError, match=r"whole numbers \(2,\), not torch.bool"):
        attribution.run(model, clips, None, target > 0, clips)
