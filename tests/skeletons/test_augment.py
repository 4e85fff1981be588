"""Augmentation: what each transform keeps, and that draws repeat exactly when they should and never otherwise."""

from dataclasses import replace

import torch
from scipy.spatial.transform import Rotation

from mmcl.common.draws import clip_keys
from mmcl.skeletons.augment import (
    Augmentation,
    augment,
    crop_span,
    mirror,
    rotation_matrices,
    time_positions,
)
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess, PreprocessOptions

LAYOUT = load_layout("kinect_v2_25")


def keys_of(seed: int, epoch: int, clips: range) -> torch.Tensor:
    return torch.from_numpy(clip_keys(seed, epoch, clips))


def test_rotation_equals_scipy_and_keeps_lengths() -> None:
    angles = torch.rand(6, 3) * 2 - 1
    expected = Rotation.from_euler("xyz", angles.double().numpy()).as_matrix()  # extrinsic: Rz @ Ry @ Rx
    torch.testing.assert_close(rotation_matrices(angles), torch.from_numpy(expected).float())
    x = torch.randn(6, 2, 4, 25, 3)
    turned = augment(x, keys_of(0, 0, range(6)), Augmentation(rotation=0.3), LAYOUT)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(turned, x, atol=1e-2)


def test_scale_changes_bodies_by_at_most_its_amount() -> None:
    x = torch.randn(64, 1, 2, 25, 3)
    scaled = augment(x, keys_of(1, 0, range(64)), Augmentation(rotation=0, scale=0.2), LAYOUT)
    ratio = scaled.norm(dim=-1) / x.norm(dim=-1)
    assert (ratio.amax((1, 2, 3)) - ratio.amin((1, 2, 3))).max() < 1e-5  # one scale a clip
    assert 0.8 <= ratio.min() < 0.85 and 1.15 < ratio.max() <= 1.2


def test_shear_is_linear_and_moves_each_axis_by_the_others() -> None:
    x = torch.randn(8, 1, 3, 25, 3)
    options = Augmentation(rotation=0, shear=0.4)
    keys = keys_of(2, 0, range(8))
    sheared = augment(x, keys, options, LAYOUT)
    for axis in range(3):
        unit = torch.zeros(8, 1, 1, 25, 3)
        unit[..., axis] = 1.0
        image = augment(unit, keys, options, LAYOUT)[..., 0, :]
        assert torch.allclose(image[..., axis], torch.ones(()))
        assert (image.abs() <= 1).all() and (image.abs() > 1e-4).any()
    torch.testing.assert_close(augment(2 * x, keys, options, LAYOUT), 2 * sheared)


def test_mirror_swaps_sides_and_undoes_itself() -> None:
    x = torch.randn(2, 1, 3, 25, 3)
    mirrored = mirror(x, LAYOUT)
    left, right = LAYOUT.joints.index("left_knee"), LAYOUT.joints.index("right_knee")
    torch.testing.assert_close(mirrored[..., left, 1:], x[..., right, 1:])
    torch.testing.assert_close(mirrored[..., left, 0], -x[..., right, 0])
    torch.testing.assert_close(mirror(mirrored, LAYOUT), x)
    flipped = augment(x.repeat(200, 1, 1, 1, 1), keys_of(3, 0, range(400)), Augmentation(rotation=0, flip=0.5), LAYOUT)
    same = (flipped == x.repeat(200, 1, 1, 1, 1)).all(-1).all(-1).all(-1).flatten()
    assert 150 < int(same.sum()) < 250


def test_noise_has_its_size_spares_missing_joints_and_does_not_depend_on_the_batch() -> None:
    x = torch.randn(8, 2, 10, 25, 3)
    x[:, 1] = 0
    keys, options = keys_of(4, 0, range(8)), Augmentation(rotation=0, noise=0.02)
    noisy = augment(x, keys, options, LAYOUT)
    assert abs(float((noisy - x)[:, 0].std()) - 0.02) < 0.001
    assert noisy[:, 1].abs().sum() == 0
    torch.testing.assert_close(augment(x[3:5], keys[3:5], options, LAYOUT), noisy[3:5], rtol=0, atol=0)


def test_noise_goes_to_the_joints_that_are_there_after_a_mirror_image() -> None:
    x = torch.randn(6, 1, 10, 25, 3)
    left, right = LAYOUT.left_right[0]
    x[:, :, :, left] = 0
    noisy = augment(x, keys_of(4, 0, range(6)), Augmentation(rotation=0, flip=1, noise=0.02), LAYOUT)
    assert noisy[:, :, :, right].abs().sum() == 0
    assert abs(float((noisy - mirror(x, LAYOUT))[:, :, :, left].std()) - 0.02) < 0.003


def test_temporal_crop_stays_in_its_range() -> None:
    share, position = crop_span(keys_of(5, 0, range(500)), Augmentation(crop_min=0.5, crop_max=0.9))
    assert 0.5 <= share.min() < 0.52 and 0.88 < share.max() <= 0.9
    assert position.min() < 0.02 and position.max() > 0.98


def test_rotation_about_one_axis_keeps_that_coordinate() -> None:
    x = torch.randn(20, 1, 4, 25, 3)
    turned = augment(x, keys_of(6, 0, range(20)), Augmentation(rotation=(0.0, 1.0, 0.0)), LAYOUT)
    torch.testing.assert_close(turned[..., 1], x[..., 1])
    assert not torch.allclose(turned[..., 0], x[..., 0], atol=0.1)


def test_uneven_sampling_looks_at_sorted_random_times_that_the_batch_does_not_change() -> None:
    keys = keys_of(7, 0, range(300))
    times = time_positions(keys, 16)
    assert times.shape == (300, 16) and (times.diff(dim=1) >= 0).all() and times.min() >= 0 and times.max() < 1
    # the k-th of n sorted uniform numbers has mean k / (n + 1)
    expected = torch.arange(1, 17) / 17
    assert (times.mean(dim=0) - expected).abs().max() < 0.03
    torch.testing.assert_close(time_positions(keys[5:9], 16), times[5:9], rtol=0, atol=0)
    layout_clip = torch.randn(1, 1, 40, 25, 3)
    preprocess = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(window=16, centring="none"))
    still = Augmentation(crop_min=1.0, rotation=0.0)
    even, uneven = (
        preprocess(layout_clip, keys=keys[:1], augmentation=replace(still, uneven=uneven)) for uneven in (False, True)
    )
    torch.testing.assert_close(even, preprocess(layout_clip, keys=keys[1:2], augmentation=still))
    assert not torch.allclose(even, uneven, atol=0.1)
