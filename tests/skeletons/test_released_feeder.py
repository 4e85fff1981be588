"""Crops, resizing and rotation equal those of the feeder that CTR-GCN, MAMP and STARS share."""

from __future__ import annotations

import torch
from golden import load_doubles

from mmcl.skeletons.augmentations.coordinates import rotation_matrices
from mmcl.skeletons.window import Span, crop_span, evaluated_span, frame_times, look


def span_of(arrays: dict[str, torch.Tensor], name: str) -> Span:
    """The stretch that the released code takes for one of its arrays."""
    lengths = arrays["in/valid_frames"][None]
    if name.startswith("centre"):
        return evaluated_span(lengths, float(name.rpartition("_")[2]))
    drawn = name.partition("/")[0]
    share = 0.5 + 0.5 * float(arrays[f"{drawn}/u"])
    place = (float(arrays[f"{drawn}/offset"]) + 0.5) / float(arrays[f"{drawn}/number_of_offsets"])
    return crop_span(lengths, share, place, floor=64)


def test_a_crop_resized_to_the_window_equals_the_released_one():
    arrays = load_doubles("stars", "crop_resize_rotate")
    x = arrays["in/x"].permute(3, 0, 1, 2)[None]
    centred = [name for name in arrays if name.startswith("centre_crop_")]
    drawn = [name for name in arrays if name.startswith("random_crop") and name.endswith("/out")]
    assert centred and drawn
    for name in (*centred, *drawn):
        span = span_of(arrays, name)
        times, inside = frame_times(span.frames, int(arrays["in/window"]), "resize")
        found, _ = look(x, torch.ones_like(x[:, :, 0], dtype=torch.bool), span.start, times)
        assert inside is None
        torch.testing.assert_close(found[0].permute(1, 2, 3, 0), arrays[name], rtol=0, atol=1e-5,
                                   msg=lambda text, name=name: f"{name}: {text}")  # fmt: skip


def test_charon_turns_by_the_opposite_angles_too():
    arrays = load_doubles("charon", "rotation")
    clips = arrays["in/x"]
    assert len(clips) == sum(name.endswith("/angles") for name in arrays) > 0
    for number, clip in enumerate(clips):
        matrix = rotation_matrices(-arrays[f"clip{number}/angles"][None])[0]
        turned = torch.einsum("ij,jtvm->itvm", matrix, clip)
        torch.testing.assert_close(turned, arrays[f"clip{number}/out"], rtol=0, atol=1e-6)


def test_a_rotation_is_the_released_one_by_the_opposite_angles():
    """Angles are drawn alike on both sides of 0, so that augmentation is the same."""
    arrays = load_doubles("stars", "crop_resize_rotate")
    matrix = rotation_matrices(-arrays["rotation/angles"][None])[0]
    torch.testing.assert_close(matrix, arrays["rotation/matrix"], rtol=0, atol=1e-6)
    turned = torch.einsum("ij,jtvm->itvm", matrix, arrays["in/x"])
    torch.testing.assert_close(turned, arrays["rotation/out"], rtol=0, atol=1e-5)
