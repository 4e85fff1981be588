"""Streams, windows, centring and the whole preprocessing, against per-clip loops and torch's own interpolation."""

import pytest
import torch
import torch.nn.functional as F

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess, PreprocessOptions
from mmcl.skeletons.streams import bone_matrix, check_stream, stream_bones, to_stream
from mmcl.skeletons.window import central_span, centre, crop_resize, even_positions, fill_box, span

LAYOUT = load_layout("kinect_v2_25")


def test_bone_and_motion_streams_equal_loops() -> None:
    x = torch.randn(2, 2, 5, 25, 3)
    bone = torch.zeros_like(x)
    for child, parent in LAYOUT.edges:
        bone[:, :, :, child] = x[:, :, :, child] - x[:, :, :, parent]
    motion = torch.zeros_like(x)
    for t in range(4):
        motion[:, :, t] = x[:, :, t + 1] - x[:, :, t]
    bone_motion = torch.zeros_like(x)
    for t in range(4):
        bone_motion[:, :, t] = bone[:, :, t + 1] - bone[:, :, t]
    for name, expected in {
        "joint": x, "bone": bone, "joint_motion": motion, "bone_motion": bone_motion
    }.items():  # fmt: skip
        torch.testing.assert_close(to_stream(x, name, stream_bones(LAYOUT, name)), expected)


def test_k_bone_reaches_the_kth_ancestor() -> None:
    matrix = bone_matrix(LAYOUT, 3)
    x = torch.randn(25, 3)
    bones = matrix @ x
    hand, shoulder = LAYOUT.joints.index("left_hand"), LAYOUT.joints.index("left_shoulder")
    torch.testing.assert_close(bones[hand], x[hand] - x[shoulder])
    assert bones[LAYOUT.joints.index("spine_shoulder")].abs().sum() == 0  # the root has no ancestors
    with pytest.raises(UserError, match="unknown stream"):
        check_stream("bones")


@pytest.mark.parametrize("window", [16, 64])
def test_crop_resize_equals_torch_interpolation_clip_by_clip(window: int) -> None:
    x = torch.randn(4, 2, 50, 25, 3)
    start, frames = torch.tensor([0.0, 3.0, 10.0, 49.0]), torch.tensor([50.0, 40.0, 7.0, 1.0])
    result = crop_resize(x, start, frames, even_positions(window, x))
    for clip, s, f, out in zip(x, start.int().tolist(), frames.int().tolist(), result, strict=True):
        flat = clip[:, s : s + f].permute(0, 2, 3, 1).reshape(1, -1, f)
        expected = F.interpolate(flat, size=window, mode="linear", align_corners=False)
        torch.testing.assert_close(out, expected.reshape(2, 25, 3, window).permute(0, 3, 1, 2))


def test_spans_stay_inside_their_clips_and_reach_both_ends() -> None:
    lengths = torch.tensor([1, 2, 10, 63, 64, 65, 300])
    for position in (0.0, 0.5, 0.999):
        start, frames = span(lengths, 0.5, position, floor=64)
        assert (frames >= torch.minimum(lengths, torch.tensor(64))).all() and (start >= 0).all()
        assert (start + frames <= lengths).all()
    start, frames = span(lengths, 0.5, 0.9999, floor=1)
    assert ((start + frames)[1:] == lengths[1:]).all()


def test_evaluation_cuts_the_ends_as_the_released_feeder_does() -> None:
    """int((1 - p) * T / 2) frames from either end, for every length up to the longest of the field."""
    lengths = torch.arange(1, 1001)
    start, frames = central_span(lengths, 0.95)
    bias = [int((1 - 0.95) * length / 2) for length in range(1, 1001)]
    assert start.tolist() == bias
    assert frames.tolist() == [length - 2 * cut for length, cut in zip(range(1, 1001), bias, strict=True)]
    assert central_span(lengths, 1.0)[1].tolist() == lengths.tolist()


def test_centring_leaves_absent_bodies_and_missing_joints_at_zero() -> None:
    x = torch.randn(1, 2, 3, 25, 3)
    x[:, 1] = 0
    x[0, 0, 2, 5] = 0
    by_clip = centre(x, LAYOUT.centre)
    torch.testing.assert_close(by_clip[0, 0, 1, 7], x[0, 0, 1, 7] - x[0, 0, 0, 1])
    assert by_clip[:, 1].abs().sum() == 0 and by_clip[0, 0, 2, 5].abs().sum() == 0
    by_frame = centre(x, LAYOUT.centre, "every_frame")
    torch.testing.assert_close(by_frame[0, 0, 1, 7], x[0, 0, 1, 7] - x[0, 0, 1, 1])


def test_a_clip_that_begins_before_its_person_comes_is_centred_where_the_person_comes() -> None:
    x = torch.randn(3, 2, 6, 25, 3) + 3.0
    x[1, :, :2] = 0  # two empty frames first
    x[2] -= x[2, 0, 0].mean(dim=0)
    x[2, 0, 0, LAYOUT.centre] = 0  # already centred: the origin is the origin
    found = centre(x, LAYOUT.centre)
    assert found[1, :, :2].abs().sum() == 0 and found[1, 0, 2, LAYOUT.centre].abs().sum() == 0
    torch.testing.assert_close(found[1, :, 2:], centre(x[1:2, :, 2:], LAYOUT.centre)[0])
    torch.testing.assert_close(found[0], x[0] - x[0, 0, 0, LAYOUT.centre])
    assert torch.equal(found[2], x[2]) and not centre(torch.zeros(1, 1, 4, 25, 3), LAYOUT.centre).any()


@pytest.mark.parametrize("mode", ["first_frame", "every_frame"])
def test_a_centre_joint_that_is_missing_is_looked_for_and_not_taken_to_lie_at_the_sensor(mode) -> None:
    whole = torch.randn(1, 2, 6, 25, 3) * 0.3 + torch.tensor([0.5, 1.0, 3.0])
    missing = whole.clone()
    missing[0, 0, :2, LAYOUT.centre] = 0
    found, expected = centre(missing, LAYOUT.centre, mode), centre(whole[:, :, 2:], LAYOUT.centre, mode)
    torch.testing.assert_close(found[:, :, 2:], expected)
    there = (missing != 0).any(dim=-1, keepdim=True)
    torch.testing.assert_close(found[:, :, :2], ((missing - whole[:, :1, 2:3, LAYOUT.centre, None]) * there)[:, :, :2])
    missing[0, 0, :, LAYOUT.centre] = 0  # never seen: the mean of the first person stands for it
    points = missing[0, 0][(missing[0, 0] != 0).any(dim=-1)]
    expected = torch.where((missing != 0).any(dim=-1, keepdim=True), missing - points.mean(dim=0), 0)
    torch.testing.assert_close(centre(missing, LAYOUT.centre, mode), expected)


def test_padding_and_batching_do_not_change_a_clip() -> None:
    preprocess = Preprocess(LAYOUT, LAYOUT, 2, PreprocessOptions(stream="bone_motion", window=32))
    clips = [torch.randn(1, frames, 25, 3) for frames in (20, 45, 61)]
    padded = torch.zeros(3, 1, 61, 25, 3)
    for row, clip in zip(padded, clips, strict=True):
        row[:, : clip.shape[1]] = clip
    together = preprocess(padded, torch.tensor([20, 45, 61]))
    for alone, row in zip(clips, together, strict=True):
        torch.testing.assert_close(preprocess(alone[None])[0], row)


def test_persons_are_cut_or_filled() -> None:
    one = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(window=8))
    three = Preprocess(LAYOUT, LAYOUT, 3, PreprocessOptions(window=8))
    x = torch.randn(2, 2, 20, 25, 3)
    assert one(x).shape == (2, 1, 8, 25, 3) and three(x).shape == (2, 3, 8, 25, 3)
    torch.testing.assert_close(three(x)[:, :1], one(x))
    assert three(x)[:, 2].abs().sum() == 0
    x[0, 0] = 0  # a slot of somebody who has gone
    torch.testing.assert_close(one(x)[0], one(x[:1, 1:])[0])
    torch.testing.assert_close(three(x)[0, 0], one(x[:1, 1:])[0, 0])
    torch.testing.assert_close(one(x)[1], one(x[1:])[0])


def test_box_scaling_equals_a_loop_and_leaves_what_is_missing() -> None:
    x = torch.randn(3, 2, 7, 25, 3) * 4 + 1
    x[1, 1] = 0
    x[2, 0, 3, 5] = 0
    x[0, ..., 2] = 1.5  # a flat person
    boxed = fill_box(x)
    for clip, result in zip(x, boxed, strict=True):
        there = (clip != 0).any(dim=-1)
        points = clip[there]
        for axis in range(3):
            low, high = float(points[:, axis].min()), float(points[:, axis].max())
            expected = (points[:, axis] - low) / (high - low) * 2 - 1 if high > low else torch.zeros(len(points))
            torch.testing.assert_close(result[there][:, axis], expected)
        assert not result[~there].any()
    same = Preprocess(LAYOUT, LAYOUT, 2, PreprocessOptions(window=8, scaling="box"))
    torch.testing.assert_close(same(3 * x[1:] - 1 * (x[1:] != 0)), same(x[1:]), atol=1e-4, rtol=0)
