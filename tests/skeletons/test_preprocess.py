"""Streams, windows, centring and the whole preprocessing, against per-clip loops and torch's own interpolation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmcl.common.draws import clip_keys, uniform
from mmcl.common.errors import UserError
from mmcl.models.description_file import current_preprocess
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.augmentations.crop import Crop
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.masks import Skeletons
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.skeletons.streams import ancestors, check_stream, to_stream
from mmcl.skeletons.window import Span, crop_span, evaluated_span, frame_times, look

LAYOUT = load_layout("kinect_v2_25")


def whole(x: torch.Tensor) -> Skeletons:
    """(N, M, T, V, C) of which all joints are there."""
    return Skeletons(x.movedim(4, 2), torch.ones(x.shape[:-1], dtype=torch.bool))


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
        torch.testing.assert_close(to_stream(whole(x), name, ancestors(LAYOUT, name)).movedim(2, 4), expected)


def test_k_bone_reaches_the_kth_ancestor() -> None:
    x = torch.randn(1, 1, 1, 25, 3)
    bones = to_stream(whole(x), "3_bone", ancestors(LAYOUT, "3_bone"))[0, 0, :, 0].T
    x = x[0, 0, 0]
    hand, shoulder = LAYOUT.joints.index("left_hand"), LAYOUT.joints.index("left_shoulder")
    torch.testing.assert_close(bones[hand], x[hand] - x[shoulder])
    assert bones[LAYOUT.joints.index("spine_shoulder")].abs().sum() == 0  # the root has no ancestors
    with pytest.raises(UserError, match="unknown stream"):
        check_stream("bones")


@pytest.mark.parametrize("window", [16, 64])
def test_crop_resize_equals_torch_interpolation_clip_by_clip(window: int) -> None:
    x = torch.randn(4, 2, 50, 25, 3)
    start, frames = torch.tensor([0.0, 3.0, 10.0, 49.0]), torch.tensor([50.0, 40.0, 7.0, 1.0])
    result, _ = look(*whole(x)[:2], start, frame_times(frames, window, "resize")[0])
    result = result.movedim(2, 4)
    for clip, s, f, out in zip(x, start.int().tolist(), frames.int().tolist(), result, strict=True):
        flat = clip[:, s : s + f].permute(0, 2, 3, 1).reshape(1, -1, f)
        expected = F.interpolate(flat, size=window, mode="linear", align_corners=False)
        torch.testing.assert_close(out, expected.reshape(2, 25, 3, window).permute(0, 3, 1, 2))


def test_spans_stay_inside_their_clips_and_reach_both_ends() -> None:
    lengths = torch.tensor([1, 2, 10, 63, 64, 65, 300])
    for position in (0.0, 0.5, 0.999):
        start, frames, _ = crop_span(lengths, 0.5, position, floor=64)
        assert (frames >= torch.minimum(lengths, torch.tensor(64))).all() and (start >= 0).all()
        assert (start + frames <= lengths).all()
    start, frames, _ = crop_span(lengths, 0.5, 0.9999, floor=1)
    assert ((start + frames)[1:] == lengths[1:]).all()


def test_a_crop_is_as_long_as_in_the_released_feeder() -> None:
    """floor(T * p) frames in float64, p = u * (1 - 0.5) + 0.5, where u may put the product on a whole number."""
    lengths = torch.arange(1, 401)
    for share in np.arange(0.0, 1.0, 0.05):
        ratio = share * (1 - 0.5) + 0.5
        frames = crop_span(lengths, float(ratio), 0.5, floor=64).frames
        expected = [min(max(int(np.floor(length * ratio)), 64), length) for length in lengths.tolist()]
        assert frames.tolist() == expected, share


def test_the_drawn_share_of_a_crop_is_rounded_nowhere() -> None:
    """Draws are multiples of 2**-24, whose products with a length float32 does not hold."""
    keys, lengths = torch.arange(50_000), torch.arange(50_000) % 301 + 10_000
    share = uniform(keys, "augmentation.crop", (2,))[:, 0].double().numpy()
    expected = np.floor(lengths.numpy() * (0.3 + share * (1.0 - 0.3)))
    start = torch.zeros(len(keys))
    span = Crop(crop_min=0.3, crop_floor=1).when(keys, Span(start, lengths.float()), 64)
    assert span.frames.tolist() == expected.tolist()


def test_evaluation_cuts_the_ends_as_the_released_feeder_does() -> None:
    """int((1 - p) * T / 2) frames from either end, for every length up to the longest of the field."""
    lengths = torch.arange(1, 1001)
    for ratio in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99):
        start, frames, _ = evaluated_span(lengths, ratio)
        bias = [int((1 - ratio) * length / 2) for length in range(1, 1001)]
        assert start.tolist() == bias
        assert frames.tolist() == [length - 2 * cut for length, cut in zip(range(1, 1001), bias, strict=True)]
    assert evaluated_span(lengths, 1.0).frames.tolist() == lengths.tolist()


def test_padding_and_batching_do_not_change_a_clip() -> None:
    preprocess = Preprocess(LAYOUT, LAYOUT, 2, PreprocessOptions(streams=("bone_motion",), window=32))
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


def numbered(frames: int, bodies: int = 1) -> torch.Tensor:
    """A clip whose joints lie at the number of their frame, from 1."""
    return torch.arange(1.0, frames + 1)[None, None, :, None, None].expand(1, bodies, frames, 25, 3).clone()


def seen_frames(clip: torch.Tensor, **options) -> list[float]:
    """Numbers of the frames that the encoder sees, 0 where it sees nothing."""
    made = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(centring="none", crop=1.0, **options))
    x, mask = made.masked(clip)
    assert torch.equal(mask[..., None].expand_as(x), x != 0)
    return x[0, 0, :, 7, 2].tolist()


def test_padding_takes_the_frames_one_by_one_and_resizes_what_is_longer() -> None:
    assert seen_frames(numbered(5), window=8, timing="pad") == [1, 2, 3, 4, 5, 0, 0, 0]
    assert seen_frames(numbered(8), window=8, timing="pad") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert seen_frames(numbered(16), window=8, timing="pad") == [1.5 + 2 * k for k in range(8)]


def test_segments_are_looked_at_in_their_middle_or_anywhere_in_training() -> None:
    assert seen_frames(numbered(12), window=4, timing="segments") == [2, 5, 8, 11]
    assert seen_frames(numbered(2), window=4, timing="segments") == [1, 1, 2, 2]
    options = PreprocessOptions(window=6, timing="segments", centring="none")
    made = Preprocess(LAYOUT, LAYOUT, 1, options)
    still = Augmentation(crop_min=1.0, rotation=0.0)
    keys = torch.from_numpy(clip_keys(0, 0, range(400)))
    frames = made(numbered(60).expand(400, -1, -1, -1, -1), keys=keys, augmentation=still)[:, 0, :, 0, 0]
    assert torch.equal(frames, frames.round())
    for part, column in enumerate(frames.unbind(1)):
        assert set(column.tolist()) == set(range(10 * part + 1, 10 * part + 11)), part


def test_views_are_other_crops_or_other_frames() -> None:
    segments = PreprocessOptions(window=4, timing="segments", views=3, crop=1.0, centring="none")
    made = Preprocess(LAYOUT, LAYOUT, 1, segments)
    found = [made(numbered(24), view=view)[0, 0, :, 0, 0].tolist() for view in range(3)]
    assert found == [[2 + 6 * k for k in range(4)], [4 + 6 * k for k in range(4)], [6 + 6 * k for k in range(4)]]
    said = made.averaged(lambda x: x[:, 0, :, 0, 0] ** 2, numbered(24))[0].tolist()
    assert said == pytest.approx([sum(view[k] ** 2 for view in found) / 3 for k in range(4)])
    with pytest.raises(ValueError, match="view 3 of 3"):
        made(numbered(24), view=3)
    lengths = torch.arange(1, 300)
    for views in (1, 2, 5, 10):
        spans = [evaluated_span(lengths, 0.8, view, views) for view in range(views)]
        middle = evaluated_span(lengths, 0.8)
        for a, b in zip(spans, spans[1:], strict=False):
            assert (a.start <= b.start).all() and torch.equal(a.frames, middle.frames)
        assert (spans[0].start >= 0).all() and (spans[-1].start + spans[-1].frames <= lengths).all()
        mirrored = lengths - spans[-1].start - spans[-1].frames
        assert (spans[0].start - mirrored).abs().max() <= 1  # as far from the start as the last is from the end
    made = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(window=20, crop=0.5, views=2, centring="none"))
    early, late = (made(numbered(40), view=view)[0, 0, :, 0, 0].tolist() for view in (0, 1))
    assert early == list(range(6, 26)) and late == list(range(16, 36))


def test_clips_in_a_plane_have_two_coordinates_whether_or_not_they_come_with_a_third() -> None:
    flat = torch.randn(2, 2, 20, 25, 2)
    flat[0, 0, 3, 4] = 0
    flat[1, 1] = torch.nan
    options = PreprocessOptions(("joint", "bone"), window=8, dimensions=2, scaling="box")
    made = Preprocess(LAYOUT, LAYOUT, 2, options)
    x, mask = made.masked(flat)
    assert x.shape == (2, 2, 8, 25, 4) and made.channels == 4 and not x[1, 1].any()
    with_third = torch.cat([flat, torch.zeros(2, 2, 20, 25, 1)], dim=-1)
    torch.testing.assert_close(made(with_third), x, rtol=0, atol=0)
    space = Preprocess(LAYOUT, LAYOUT, 2, PreprocessOptions(("joint", "bone"), window=8, scaling="box"))
    found = space(flat)  # an encoder of three coordinates sees a flat body
    torch.testing.assert_close(found[..., [0, 1, 3, 4]], x)
    assert not found[..., [2, 5]].any() and mask[0].all()
    keys = torch.from_numpy(clip_keys(0, 0, range(2)))
    varied = made.masked(flat, keys=keys, augmentation=Augmentation(rotation=0.5, shear=0.1, flip=0.5, noise=0.1))
    assert torch.isfinite(varied[0]).all() and not varied[0][~varied[1]].any()


def test_confidence_is_a_stream_where_it_is_asked_for_and_none_of_it_means_missing() -> None:
    x, sure = torch.randn(1, 1, 16, 25, 3) + 3, torch.rand(1, 1, 16, 25) * 0.9 + 0.1
    sure[0, 0, 5, 7], sure[0, 0, 9, 8] = 0, torch.nan
    options = {"window": 16, "crop": 1.0, "centring": "none"}
    made = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(("joint", "confidence"), gaps="zero", **options))
    assert made.channels == made.columns == 4
    found, mask = made.masked(torch.cat([x, sure[..., None]], dim=-1))
    expected = torch.where(sure > 0, sure, 0)
    torch.testing.assert_close(found[..., 3], expected)
    assert torch.equal(mask, sure > 0) and not found[0, 0, 5, 7].any() and not found[0, 0, 9, 8].any()
    torch.testing.assert_close(found[..., :3], torch.where(mask[..., None], x, 0))
    filled = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(("joint", "confidence"), **options))(
        torch.cat([x, sure[..., None]], dim=-1)
    )
    line = np.interp(5, [4, 6], [float(sure[0, 0, 4, 7]), float(sure[0, 0, 6, 7])])
    assert float(filled[0, 0, 5, 7, 3]) == pytest.approx(line, abs=1e-6)
    assert torch.equal(made(x)[..., 3], torch.ones(1, 1, 16, 25))  # nobody says it: all are sure
    flat = Preprocess(
        LAYOUT, LAYOUT, 1, PreprocessOptions(("confidence", "joint"), gaps="zero", dimensions=2, **options)
    )
    found = flat(torch.cat([x[..., :2], 0 * x[..., :1], sure[..., None]], dim=-1))
    torch.testing.assert_close(found[..., 0], expected)
    torch.testing.assert_close(found[..., 1:], torch.where(mask[..., None], x[..., :2], 0))
    turned = made(
        torch.cat([x, sure[..., None]], dim=-1),
        keys=torch.tensor([5]),
        augmentation=Augmentation(crop_min=1.0, flip=1.0),
    )
    left, right = LAYOUT.left_right[0]
    torch.testing.assert_close(turned[..., left, 3], expected[..., right])
    with pytest.raises(UserError, match="unknown stream 'sure'"):
        PreprocessOptions(("joint", "sure"))


def test_options_of_older_models_are_read_and_what_is_none_is_refused() -> None:
    old = {"stream": "bone", "window": 24, "centring": "every_frame", "crop": 0.9, "scaling": "box"}
    found = PreprocessOptions.from_dict(current_preprocess(old))
    assert (found.streams, found.window, found.gaps, found.timing) == (("bone",), 24, "zero", "resize")
    for key, value in {
        "streams": (), "window": "16", "crop": 0, "views": 0, "centring": "zzz", "scaling": "zzz", "gaps": None,
        "timing": "cut", "dimensions": 4,
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=rf"preprocess\.{key} (is .*: it )?must be"):
            PreprocessOptions.from_dict({key: value})
    for facts in ({"window": 16.5}, {"window": 10**9}, {"window": True}, {"crop": "1"}, {"streams": "joint"},
                  {"streams": ["joint", "joint"]}, {"views": 2, "crop": 1.0}, {"crop": float("nan")}):  # fmt: skip
        with pytest.raises(UserError, match="must be"):
            PreprocessOptions.from_dict(facts)
    with pytest.raises(UserError, match="B preprocess has no option strems"):
        PreprocessOptions.from_dict({"strems": ["joint"]}, "B preprocess")
