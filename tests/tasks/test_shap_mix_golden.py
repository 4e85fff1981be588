"""What Shap-Mix takes over from others, against arrays of its release: the feeder, the backbone, groups of classes."""

from __future__ import annotations

import re

import numpy as np
import torch
from golden import load_arrays, load_case

from mmcl.encoders.building import build_encoder
from mmcl.encoders.ctrgcn.official import convert_official
from mmcl.evaluation.base import Verdict
from mmcl.evaluation.groups import GroupsOptions, by_groups
from mmcl.skeletons.augmentations.coordinates import rotation_matrices
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.window import Span, crop_span, evaluated_span, frame_times, look

SHORTEST = 64  # frames of a crop of the released feeder, whatever the window


def fed(clip: np.ndarray, span: Span, window: int) -> np.ndarray:
    """A clip (C, T, V, M) as the feeder gives it: the span of it at so many times, (C, window, V, M)."""
    x = torch.from_numpy(clip).double().permute(3, 0, 1, 2)[None]
    times, inside = frame_times(span.frames, window, "resize")
    assert inside is None
    seen, _ = look(x, torch.ones_like(x[:, :, 0], dtype=torch.bool), span.start, times)
    return seen[0].permute(1, 2, 3, 0).numpy()


def test_crops_of_the_feeder():
    arrays, compared = load_arrays("shap_mix", "feeder"), 0
    for key in (key for key in arrays if re.fullmatch(r"len\d+/x", key)):
        clip, name = arrays[key], key.partition("/")[0]
        frames = torch.tensor([clip.shape[1]])
        for found, expected in arrays.items():
            centre = re.fullmatch(rf"{name}/centre_([\d.]+)", found)
            drawn = re.fullmatch(rf"{name}/random_([\d.]+)_([\d.]+)_npseed(\d+)", found)
            if centre:
                span = evaluated_span(frames, float(centre[1]))
            elif drawn:
                rng = np.random.RandomState(int(drawn[3]))
                low, high = float(drawn[1]), float(drawn[2])
                share = rng.rand() * (high - low) + low
                places = clip.shape[1] - min(max(int(clip.shape[1] * share), SHORTEST), clip.shape[1]) + 1
                span = crop_span(frames, share, (rng.randint(0, places) + 0.5) / places, floor=SHORTEST)
            else:
                continue
            compared += 1
            np.testing.assert_allclose(fed(clip, span, expected.shape[1]), expected, rtol=1e-5, atol=1e-6)
    assert compared


def test_rotation_of_the_feeder_turns_the_other_way():
    """Angles are drawn evenly about zero, so that their sign changes nothing."""
    arrays = load_arrays("shap_mix", "feeder")
    (key,) = [key for key in arrays if key.startswith("rot/y_torchseed")]
    torch.manual_seed(int(key.removeprefix("rot/y_torchseed")))
    angles = torch.zeros(3).uniform_(-0.3, 0.3)
    turned = torch.einsum("ij,jtvm->itvm", rotation_matrices(-angles[None])[0], torch.from_numpy(arrays["rot/x"]))
    np.testing.assert_allclose(turned, arrays[key], rtol=1e-5, atol=1e-6)


def test_the_backbone_is_ours():
    case = load_case("shap_mix", "ctrgcn_full")
    x, expected = case.tensor("in").permute(0, 4, 2, 3, 1).contiguous(), case.tensor("logits")
    encoder = build_encoder("ctrgcn", load_layout("kinect_v2_25"), expected.shape[1], {"persons": x.shape[1]}).eval()
    encoder.load_state_dict(convert_official(case.weights()).state)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), expected, rtol=1e-4, atol=1e-5)


def test_groups_of_classes_by_their_training_clips():
    arrays = load_arrays("shap_mix", "loss")
    train, test, predicted = (arrays[f"shot/{name}"] for name in ("train_labels", "test_labels", "predictions"))
    ids, counts = [str(row) for row in range(len(test))], np.bincount(train, minlength=int(test.max()) + 1)
    verdict = Verdict({"top1": 0.0}, "top1", ids, predicted == test, {"labels": test})
    groups = by_groups(verdict, counts, GroupsOptions()).metrics["groups"]
    # The released accuracy of a group that has no class is 0, ours is None.
    found = [groups[name]["accuracy"] or 0.0 for name in ("many", "medium", "few")]
    np.testing.assert_allclose(found, arrays["shot/many_medium_few"], rtol=1e-12)
