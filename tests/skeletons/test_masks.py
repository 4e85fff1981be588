"""Which joints are there: made once, carried through all that preprocessing does; against loops over single frames."""

from __future__ import annotations

import io
import itertools
import json
import tarfile

import numpy as np
import pytest
import torch
from naive import fill, preprocess, raw
from scipy.io import loadmat

from mmcl.common.draws import clip_keys
from mmcl.skeletons import AUGMENTATIONS
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.convert import conversion_matrix, convert
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.masks import Skeletons, fill_gaps, present
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

UTD, KINECT = load_layout("utd_mhad_20"), load_layout("kinect_v2_25")
UCLA = load_layout("ctrgcn_ucla_20")


def holey(seed: int, frames: int = 30, bodies: int = 2, joints: int = 20, share: float = 0.15) -> np.ndarray:
    """Two people before a sensor, joints missing here and there, and one of them now and then as a whole."""
    rng = np.random.default_rng(seed)
    clip = rng.normal(0, 0.3, (bodies, frames, joints, 3)) + [0.4, 0.2, 2.5]
    clip[rng.random(clip.shape[:3]) < share] = 0
    clip[:, rng.integers(0, frames, 3)] = 0
    clip[bodies - 1, :4] = 0
    clip[0, :, 5] = 0  # never seen
    return clip.astype(np.float32)


OPTIONS = [
    {"gaps": gaps, "centring": centring, "scaling": scaling}
    for gaps, centring, scaling in itertools.product(
        ("interpolate", "zero"), ("first_frame", "every_frame", "none"), ("none", "box")
    )
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: "-".join(each.values()))
def test_preprocessing_equals_loops_over_frames_joints_and_axes(options) -> None:
    for seed, persons, streams in ((0, 2, ("joint", "bone_motion")), (1, 1, ("bone",)), (2, 3, ("joint_motion",))):
        clip = holey(seed)
        expected, there = preprocess(clip, UTD, persons, streams, window=24, **options)
        made = Preprocess(UTD, UTD, persons, PreprocessOptions(streams, window=24, **options))
        x, mask = made.masked(torch.from_numpy(clip)[None])
        np.testing.assert_array_equal(mask[0], there)
        np.testing.assert_allclose(x[0], expected, atol=2e-5)
        assert made.channels == x.shape[-1] == 3 * len(streams)
        assert torch.equal(made(torch.from_numpy(clip)[None]), x)


@pytest.mark.parametrize("centring", ["first_frame", "every_frame", "none"])
def test_the_centre_joint_of_a_real_clip_is_scaled_like_all_others(test_data, centring) -> None:
    clip = loadmat(test_data / "utd_mhad/Skeleton/a1_s1_t1_skeleton.mat")["d_skel"].transpose(2, 0, 1)[None]
    expected, there = preprocess(clip, UTD, 1, window=32, centring=centring, scaling="box", gaps="zero")
    options = PreprocessOptions(window=32, centring=centring, scaling="box")
    x = Preprocess(UTD, UTD, 1, options)(torch.from_numpy(clip)[None])
    assert there.all()
    np.testing.assert_allclose(x[0], expected, atol=1e-4)


def test_box_scaling_of_real_clips_does_not_depend_on_where_they_are_centred(test_data) -> None:
    made = [
        Preprocess(UCLA, UCLA, 1, PreprocessOptions(window=32, crop=1.0, scaling="box", centring=mode))
        for mode in ("first_frame", "none")
    ]
    count = 0
    with tarfile.open(test_data / "nw_ucla/all_sqe.tar.gz") as archive:
        for member in archive:
            if not member.name.endswith(".json"):
                continue
            facts = json.load(io.TextIOWrapper(archive.extractfile(member), "utf-8"))
            clip = np.array(facts["skeletons"], dtype=np.float32)[None, None]
            if len(clip[0, 0]) < 2 or not clip.any(axis=-1).all():
                continue
            one, other = (each(torch.from_numpy(clip)) for each in made)
            np.testing.assert_allclose(one, other, atol=1e-4, err_msg=member.name)
            assert float(one.amax()) == pytest.approx(1) and float(one.amin()) == pytest.approx(-1)
            count += 1
            if count == 150:
                break
    assert count == 150


@pytest.mark.parametrize("gaps", ["interpolate", "zero"])
def test_not_a_number_infinite_and_zero_are_all_missing(gaps) -> None:
    clip = torch.from_numpy(holey(3))[None]
    made = Preprocess(UTD, KINECT, 2, PreprocessOptions(("joint", "bone", "joint_motion"), window=16, gaps=gaps))
    expected = made.masked(clip)
    missing = (clip == 0).all(dim=-1, keepdim=True)
    for value in (torch.nan, torch.inf, -torch.inf):
        found = made.masked(torch.where(missing, value, clip))
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    partly = clip.clone()
    partly[..., 1] = torch.where(missing[..., 0], torch.nan, clip[..., 1])
    partly[..., 0] = torch.where(missing[..., 0], 7.0, clip[..., 0])
    assert torch.equal(made(partly), expected[0])
    padded = torch.cat([clip, torch.full_like(clip, torch.nan)], dim=2)
    assert torch.equal(made(padded, torch.tensor([clip.shape[2]])), expected[0])
    assert torch.equal(made(padded), expected[0])  # empty frames behind are no part of the clip


def test_gaps_are_filled_as_by_interpolation_of_each_joint_alone() -> None:
    batch = [holey(seed, frames) for seed, frames in ((4, 30), (5, 12), (6, 21))]
    padded = torch.zeros(3, 2, 30, 20, 3)
    for row, clip in zip(padded, batch, strict=True):
        row[:, : clip.shape[1]] = torch.from_numpy(clip)
    x, mask = fill_gaps(*present(padded, torch.arange(20) == UTD.centre, 2))
    x = x.movedim(2, 4)
    for clip, row, there in zip(batch, x, mask, strict=True):
        expected = fill(raw(clip))
        frames = clip.shape[1]
        np.testing.assert_array_equal(there[:, :frames], ~np.isnan(expected).any(axis=-1))
        np.testing.assert_allclose(row[:, :frames], np.nan_to_num(expected), atol=1e-5)
        assert not row[:, frames:].any() and not there[:, frames:].any()
    whole = torch.randn(1, 1, 3, 9, 20)
    assert fill_gaps(whole, torch.ones(1, 1, 9, 20, dtype=torch.bool))[0] is whole  # nothing to do


def test_one_lost_frame_changes_next_to_nothing_once_it_is_interpolated() -> None:
    time = torch.linspace(0, 3, 100)[None, None, :, None, None]
    clip = torch.sin(time + torch.randn(1, 1, 1, 20, 3)) + torch.tensor([0.0, 0.0, 4.0])
    lost = clip.clone()
    lost[:, :, 7::7] = 0
    made = Preprocess(UTD, UTD, 1, PreprocessOptions(("joint", "joint_motion"), window=50))
    assert (made(lost) - made(clip)).abs().max() < 2e-3
    zero = Preprocess(UTD, UTD, 1, PreprocessOptions(("joint", "joint_motion"), window=50, gaps="zero"))
    assert (zero(lost) - zero(clip)).abs().max() > 0.02


def test_resizing_takes_the_frame_that_shows_a_joint_and_blends_it_with_nothing() -> None:
    clip = torch.full((1, 1, 8, 20, 3), 2.0)
    clip[:, :, 3:5, 4] = 0
    made = Preprocess(UTD, UTD, 1, PreprocessOptions(window=21, crop=1.0, centring="none", gaps="zero"))
    x, mask = made.masked(clip)
    assert set(x.flatten().tolist()) == {0.0, 2.0} and torch.equal(x[..., 0] != 0, mask)
    assert not mask[0, 0, :, 4].all() and mask[0, 0, :, :4].all()


@pytest.mark.parametrize("names", ["utd_mhad_20 kinect_v2_25", "coco_17 h36m_17", "mediapipe_33 azure_kinect_32"])
def test_joints_made_of_others_are_there_where_one_that_they_start_from_is(names: str) -> None:
    source, target = map(load_layout, names.split())
    matrix, rng = conversion_matrix(source, target), np.random.default_rng(0)
    x = torch.randn(6, source.joint_count, 3) + 3
    mask = torch.from_numpy(rng.random(x.shape[:2]) < 0.5)
    mask[0] = False
    found, there = convert((x * mask[..., None]).movedim(2, 0)[None, None], mask[None, None], matrix)
    found, there = found[0, 0].movedim(0, 2), there[0, 0]
    for t, v in np.ndindex(*there.shape):
        seen = [u for u in range(source.joint_count) if mask[t, u]]
        start, away = [u for u in seen if matrix[v, u] > 0], [u for u in seen if matrix[v, u] < 0]
        assert bool(there[t, v]) == bool(start)
        expected = torch.zeros(3)
        if start:
            expected = sum(matrix[v, u] * x[t, u] for u in start) / sum(matrix[v, u] for u in start)
        if start and away:
            beyond = sum(matrix[v, u] * x[t, u] for u in away) / sum(matrix[v, u] for u in away)
            expected = expected + (expected - beyond) * -float(matrix[v].clamp(max=0).sum())
        torch.testing.assert_close(found[t, v], expected, rtol=1e-4, atol=1e-5)


def test_a_crown_stays_where_it_is_when_one_ear_is_hidden() -> None:
    coco, target = load_layout("coco_17"), load_layout("h36m_17")
    x = torch.zeros(1, 1, 2, 3, 17)  # three frames: both ears, one, none
    for name, place in (
        ("left_ear", (5.08, 1.7)), ("right_ear", (4.92, 1.7)), ("left_shoulder", (5.2, 1.45)),
        ("right_shoulder", (4.8, 1.45)),
    ):  # fmt: skip
        x[0, 0, :, :, coco.joints.index(name)] = torch.tensor(place)[:, None]
    x[0, 0, :, 1, coco.joints.index("left_ear")] = 0
    x[0, 0, :, 2, [coco.joints.index(name) for name in ("left_ear", "right_ear")]] = 0
    found, there = convert(x, x.any(dim=2), conversion_matrix(coco, target))
    top = target.joints.index("head_top")
    assert there[0, 0, :, top].tolist() == [True, True, False]  # without ears, shoulders alone make no crown
    expected = torch.tensor([[5.0, 1.8], [1.4 * 4.92 - 0.4 * 5.0, 1.8]])
    torch.testing.assert_close(found[0, 0, :, :2, top].T, expected)


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_an_augmentation_leaves_missing_joints_missing_and_absent_bodies_absent(name) -> None:
    rng = np.random.default_rng(1)
    mask = torch.from_numpy(rng.random((5, 3, 12, 20)) < 0.7)
    mask[:, 2] = False
    mask[3, 1] = False
    x, sure = torch.randn(5, 3, 12, 20, 3) * mask[..., None], torch.rand(5, 3, 12, 20) * mask
    still = dict.fromkeys(("rotation", "scale", "shear", "flip", "noise", "swap"), 0)
    varied = Augmentation(**still | {"crop_min": 1.0} | dict(AUGMENTATIONS[name].example))
    keys = torch.from_numpy(clip_keys(0, 0, range(5)))
    found = varied.apply(keys, Skeletons(x.movedim(4, 2), mask, sure), UTD)
    assert not found.joints.movedim(2, 4)[~found.mask].any() and not found.confidence[~found.mask].any()
    assert torch.equal(found.mask.flatten(1).sum(dim=1), mask.flatten(1).sum(dim=1)) and not found.mask[:, 2].any()
    assert torch.equal(found.mask[3, 1:], mask[3, 1:])
    assert (name == "crop") == torch.equal(found.joints.movedim(2, 4), x)
    alone = varied.apply(keys[1:3], Skeletons(x[1:3].movedim(4, 2), mask[1:3], sure[1:3]), UTD)
    torch.testing.assert_close(alone.joints, found.joints[1:3], rtol=1e-5, atol=1e-6)  # whatever else is in the batch


def test_no_body_that_is_there_is_all_zeros_and_every_absent_one_is() -> None:
    still = torch.randn(1, 2, 1, 20, 3).repeat(1, 1, 30, 1, 1)
    still[:, 1] = 0
    for streams in (("joint_motion",), ("bone_motion", "joint_motion"), ("joint",)):
        x = Preprocess(UTD, UTD, 2, PreprocessOptions(streams, window=8))(still)
        assert x[0, 0].any() and x[0, 0].abs().max() < 20 and not x[0, 1].any()
    alone = torch.zeros(1, 1, 30, 20, 3)
    alone[0, 0, 4, UTD.centre] = 2.0  # a person of one joint in one frame, which centring moves to the origin
    x, mask = Preprocess(UTD, UTD, 1, PreprocessOptions(window=8, scaling="box")).masked(alone)
    assert x.any() and mask.any() and torch.equal(x[..., 0] != 0, mask)


def test_a_clip_that_comes_centred_keeps_its_centre_joint() -> None:
    clip = torch.randn(1, 2, 20, 20, 3)
    clip = clip - clip[:, :, :, UTD.centre, None]
    made = Preprocess(UTD, UTD, 2, PreprocessOptions(window=20, crop=1.0, centring="every_frame"))
    x, mask = made.masked(clip)
    assert mask.all()
    torch.testing.assert_close(x, clip)
    away = clip + 4.0
    away[:, :, 3, UTD.centre] = 0  # at the sensor, and nobody around it: missing
    assert not present(away, torch.arange(20) == UTD.centre, 2)[1][0, :, 3, UTD.centre].any()


def test_empty_frames_at_the_ends_are_no_part_of_the_action() -> None:
    clip = torch.randn(1, 2, 33, 20, 3) + 3
    empty = torch.zeros(1, 2, 40, 20, 3)
    for options in (PreprocessOptions(window=16), PreprocessOptions(window=16, timing="pad", gaps="zero")):
        made = Preprocess(UTD, UTD, 2, options)
        for parts in ([clip, empty], [empty, clip], [empty[:, :, :9] * torch.nan, clip, empty]):
            torch.testing.assert_close(made(torch.cat(parts, dim=2)), made(clip), rtol=0, atol=0)
    assert not Preprocess(UTD, UTD, 2, PreprocessOptions(window=16))(empty).any()


def test_bodies_that_are_there_come_first() -> None:
    x = torch.randn(2, 4, 5, 20, 3) + 3
    x[0, 0] = 0
    x[0, 2] = torch.nan
    found, mask = present(x, torch.zeros(20, dtype=torch.bool), 2)
    found = found.movedim(2, 4)
    assert torch.equal(found[0], x[0, [1, 3]]) and torch.equal(found[1], x[1, :2]) and mask.all()
