"""Augmentation: what each transform keeps, and that draws repeat exactly when they should and never otherwise."""

from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from mmcl.common.draws import clip_keys
from mmcl.common.errors import UserError
from mmcl.skeletons import AUGMENTATIONS
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.augmentations.coordinates import rotation_matrices
from mmcl.skeletons.augmentations.crop import Crop
from mmcl.skeletons.augmentations.exchanges import mirror, one_sided
from mmcl.skeletons.layout import Layout, layout_names, load_layout
from mmcl.skeletons.masks import Skeletons
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

LAYOUT = load_layout("kinect_v2_25")


def keys_of(seed: int, epoch: int, clips: range) -> torch.Tensor:
    return torch.from_numpy(clip_keys(seed, epoch, clips))


def varied(x: torch.Tensor, keys: torch.Tensor, options: Augmentation) -> torch.Tensor:
    """Of joints that are all there where they are not zero."""
    return options.apply(keys, Skeletons(x.movedim(4, 2), (x != 0).any(dim=-1)), LAYOUT).joints.movedim(2, 4)


def mirrored(x: torch.Tensor) -> torch.Tensor:
    return mirror(Skeletons(x.movedim(4, 2), x[..., 0] != 0), LAYOUT).joints.movedim(2, 4)


def test_rotation_equals_scipy_and_keeps_lengths() -> None:
    angles = torch.rand(6, 3) * 2 - 1
    expected = Rotation.from_euler("xyz", angles.double().numpy()).as_matrix()  # extrinsic: Rz @ Ry @ Rx
    torch.testing.assert_close(rotation_matrices(angles), torch.from_numpy(expected).float())
    x = torch.randn(6, 2, 4, 25, 3)
    turned = varied(x, keys_of(0, 0, range(6)), Augmentation(rotation=0.3))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(turned, x, atol=1e-2)


def test_scale_changes_bodies_by_at_most_its_amount() -> None:
    x = torch.randn(64, 1, 2, 25, 3)
    scaled = varied(x, keys_of(1, 0, range(64)), Augmentation(rotation=0, scale=0.2))
    ratio = scaled.norm(dim=-1) / x.norm(dim=-1)
    assert (ratio.amax((1, 2, 3)) - ratio.amin((1, 2, 3))).max() < 1e-5  # one scale a clip
    assert 0.8 <= ratio.min() < 0.85 and 1.15 < ratio.max() <= 1.2


def test_shear_is_linear_and_moves_each_axis_by_the_others() -> None:
    x = torch.randn(8, 1, 3, 25, 3)
    options = Augmentation(rotation=0, shear=0.4)
    keys = keys_of(2, 0, range(8))
    sheared = varied(x, keys, options)
    for axis in range(3):
        unit = torch.zeros(8, 1, 1, 25, 3)
        unit[..., axis] = 1.0
        image = varied(unit, keys, options)[..., 0, :]
        assert torch.allclose(image[..., axis], torch.ones(()))
        assert (image.abs() <= 1).all() and (image.abs() > 1e-4).any()
    torch.testing.assert_close(varied(2 * x, keys, options), 2 * sheared)


def test_mirror_swaps_sides_and_undoes_itself() -> None:
    x = torch.randn(2, 1, 3, 25, 3)
    image = mirrored(x)
    left, right = LAYOUT.joints.index("left_knee"), LAYOUT.joints.index("right_knee")
    torch.testing.assert_close(image[..., left, 1:], x[..., right, 1:])
    torch.testing.assert_close(image[..., left, 0], -x[..., right, 0])
    torch.testing.assert_close(mirrored(image), x)
    flipped = varied(x.repeat(200, 1, 1, 1, 1), keys_of(3, 0, range(400)), Augmentation(rotation=0, flip=0.5))
    same = (flipped == x.repeat(200, 1, 1, 1, 1)).all(-1).all(-1).all(-1).flatten()
    assert 150 < int(same.sum()) < 250


def test_noise_has_its_size_spares_missing_joints_and_does_not_depend_on_the_batch() -> None:
    x = torch.randn(8, 2, 10, 25, 3)
    x[:, 1] = 0
    keys, options = keys_of(4, 0, range(8)), Augmentation(rotation=0, noise=0.02)
    noisy = varied(x, keys, options)
    assert abs(float((noisy - x)[:, 0].std()) - 0.02) < 0.001
    assert noisy[:, 1].abs().sum() == 0
    torch.testing.assert_close(varied(x[3:5], keys[3:5], options), noisy[3:5], rtol=0, atol=0)


def test_noise_goes_to_the_joints_that_are_there_after_a_mirror_image() -> None:
    x = torch.randn(6, 1, 10, 25, 3)
    left, right = LAYOUT.left_right[0]
    x[:, :, :, left] = 0
    noisy = varied(x, keys_of(4, 0, range(6)), Augmentation(rotation=0, flip=1, noise=0.02))
    assert noisy[:, :, :, right].abs().sum() == 0
    assert abs(float((noisy - mirrored(x))[:, :, :, left].std()) - 0.02) < 0.003


def test_temporal_crop_stays_in_its_range() -> None:
    lengths = torch.full((500,), 1000.0)
    span = Augmentation(crop_min=0.5, crop_max=0.9).when(keys_of(5, 0, range(500)), lengths, 16)
    assert 500 <= span.frames.min() < 520 and 880 < span.frames.max() <= 900
    assert (span.start + span.frames <= 1000).all() and span.start.min() == 0
    place = span.start / (1000 - span.frames)
    assert place.min() < 0.02 and place.max() > 0.98 and abs(float(place.mean()) - 0.5) < 0.05
    assert Augmentation(crop_floor=64).when(keys_of(5, 0, range(500)), lengths / 10, 16).frames.min() == 64


def test_rotation_about_one_axis_keeps_that_coordinate() -> None:
    x = torch.randn(20, 1, 4, 25, 3)
    turned = varied(x, keys_of(6, 0, range(20)), Augmentation(rotation=(0.0, 1.0, 0.0)))
    torch.testing.assert_close(turned[..., 1], x[..., 1])
    assert not torch.allclose(turned[..., 0], x[..., 0], atol=0.1)


def test_uneven_sampling_looks_at_sorted_random_times_that_the_batch_does_not_change() -> None:
    keys = keys_of(7, 0, range(300))
    times = Crop(uneven=True).times(keys, 16)
    assert times.shape == (300, 16) and (times.diff(dim=1) >= 0).all() and times.min() >= 0 and times.max() < 1
    # the k-th of n sorted uniform numbers has mean k / (n + 1)
    expected = torch.arange(1, 17) / 17
    assert (times.mean(dim=0) - expected).abs().max() < 0.03
    torch.testing.assert_close(Crop(uneven=True).times(keys[5:9], 16), times[5:9], rtol=0, atol=0)
    layout_clip = torch.randn(1, 1, 40, 25, 3)
    preprocess = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(window=16, centring="none"))
    still = Augmentation(crop_min=1.0, rotation=0.0)
    even, uneven = (
        preprocess(layout_clip, keys=keys[:1], augmentation=replace(still, uneven=uneven)) for uneven in (False, True)
    )
    torch.testing.assert_close(even, preprocess(layout_clip, keys=keys[1:2], augmentation=still))
    assert not torch.allclose(even, uneven, atol=0.1)


def test_one_augmentation_more_shifts_no_other() -> None:
    x, keys = torch.randn(50, 2, 3, 25, 3), keys_of(8, 0, range(50))
    turned = varied(x, keys, Augmentation(rotation=0.5))
    torch.testing.assert_close(varied(turned, keys, Augmentation(rotation=0, scale=0.3, noise=0.1)),
                               varied(x, keys, Augmentation(rotation=0.5, scale=0.3, noise=0.1)))  # fmt: skip
    both = varied(x, keys, Augmentation(rotation=0.5, swap=0.5))
    swapped = (both != turned).flatten(1).any(dim=1)
    assert 10 < int(swapped.sum()) < 40
    torch.testing.assert_close(both[swapped], turned[swapped].flip(1))
    one = torch.cat([x[:, :1], torch.zeros_like(x[:, :1])], dim=1)
    assert torch.equal(varied(one, keys, Augmentation(rotation=0, swap=1.0)), one)  # nobody to change places with


def test_in_a_plane_bodies_turn_within_it() -> None:
    x = torch.randn(8, 1, 3, 25, 2)
    turned = varied(x, keys_of(9, 0, range(8)), Augmentation(rotation=(9.0, 9.0, 1.0)))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    before, after = x[:, 0, 0], turned[:, 0, 0]
    corner = (after[..., 0] * before[..., 1] - after[..., 1] * before[..., 0]) / before.norm(dim=-1) ** 2
    torch.testing.assert_close(corner, corner[:, :1].expand_as(corner), rtol=1e-4, atol=1e-4)  # one angle a clip
    assert corner[:, 0].std() > 0.1
    everything = Augmentation(scale=0.2, shear=0.1, flip=0.5, noise=0.1)
    assert varied(x, keys_of(9, 0, range(8)), everything).shape == x.shape


def test_every_registered_augmentation_owns_its_keys_and_changes_clips() -> None:
    own = [set(AUGMENTATIONS[name].example) for name in AUGMENTATIONS]
    assert set().union(*own) >= {"crop_min", "rotation", "scale", "shear", "flip", "noise", "uneven"}
    assert sum(map(len, own)) == len(set().union(*own))
    made = Preprocess(LAYOUT, LAYOUT, 2, PreprocessOptions(window=16))
    clips, keys = torch.randn(4, 2, 40, 25, 3) + 3, keys_of(1, 0, range(4))
    still = Augmentation(crop_min=1.0, rotation=0.0)
    before = made(clips, keys=keys, augmentation=still)
    for name in AUGMENTATIONS:
        kind = AUGMENTATIONS[name]
        assert kind.name == name and kind(**kind.example).active
        after = made(clips, keys=keys, augmentation=replace(still, **kind.example))
        assert (after != before).flatten(1).any(dim=1).all(), name
        for value in (-1, 7):
            with pytest.raises(UserError, match=rf"augmentation\.{next(iter(kind.example))} is .*: it must be"):
                if value == 7 and name in ("rotation", "shear", "noise"):
                    raise UserError(f"augmentation.{name} is 7: it must be any number")
                replace(still, **{next(iter(kind.example)): value}).check()


def test_mirror_images_need_the_counterpart_of_every_sided_joint() -> None:
    for name in layout_names():
        layout = load_layout(name)
        if layout.left_right:
            assert one_sided(layout) == [], name
    facts = LAYOUT.to_dict() | {"derived": {}, "parts": {}, "pools": {}, "links": [], "bones": {}}
    for old, new, named in (("left_knee", "left_knie", "left_knie, right_knee"), ("left_thumb", "thumb", "thumb")):
        other = {
            "joints": [new if joint == old else joint for joint in facts["joints"]],
            "parents": {new if child == old else child: new if parent == old else parent
                        for child, parent in facts["parents"].items()},
        }  # fmt: skip
        layout = Layout.from_dict(facts | other)
        with pytest.raises(UserError, match=rf"flip is 0\.5, .* no counterpart of .*{named}"):
            Augmentation(flip=0.5).check(layout)
    with pytest.raises(UserError, match=r"uneven is true, which goes with preprocess\.timing resize, not pad"):
        Augmentation(uneven=True).check(LAYOUT, "pad")
