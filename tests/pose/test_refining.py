"""One-Euro against its formulas, gaps and times against numpy's interpolation, the path against a pinhole camera."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_people import FIGURE, HEIGHT, LAYOUT, WIDTH, seen_from

from mmcl.common.errors import BadClip, UserError
from mmcl.pose.base import Poses, check_poses, nobody
from mmcl.pose.gathering import gather
from mmcl.pose.path import focal_length, places, smooth_path
from mmcl.pose.quality import judge
from mmcl.pose.recording import Refinement, exchanged
from mmcl.pose.smoothing import OneEuro, parse_smoothing
from mmcl.pose.timing import at_times, fill_gaps, runs, steady_times
from mmcl.pose.worker import Glance

PICTURE = (WIDTH, HEIGHT)


def one_euro(values, seconds, cutoff, beta, derivative):
    """The published algorithm for one signal, step by step."""
    smooth, last, rate = [values[0]], values[0], 0.0
    for frame in range(1, len(values)):
        step = seconds[frame] - seconds[frame - 1]
        alpha = 1 / (1 + (1 / (2 * math.pi * derivative)) / step)
        rate = alpha * (values[frame] - last) / step + (1 - alpha) * rate
        alpha = 1 / (1 + (1 / (2 * math.pi * (cutoff + beta * abs(rate)))) / step)
        last = alpha * values[frame] + (1 - alpha) * last
        smooth.append(last)
    return smooth


def test_one_euro_is_the_published_filter() -> None:
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.uniform(0.02, 0.05, 60))
    values = np.cumsum(rng.normal(0, 0.05, (60, 3, 2)), axis=0)
    found = OneEuro(1.3, 0.7, 0.9)(values, seconds)
    for joint in range(3):
        for axis in range(2):
            expected = one_euro(values[:, joint, axis], seconds, 1.3, 0.7, 0.9)
            np.testing.assert_allclose(found[:, joint, axis], expected, rtol=1e-12)


def test_one_euro_starts_anew_after_a_gap_and_holds_still_what_trembles() -> None:
    rng, seconds = np.random.default_rng(1), np.arange(90) / 30
    values = rng.normal(0, 0.01, (90, 1, 3))
    values[40:50] = np.nan
    values[50:] += 5
    found = OneEuro()(values, seconds)
    assert np.isnan(found[40:50]).all() and np.isfinite(found[50:]).all()
    np.testing.assert_array_equal(found[50], values[50])
    assert found[60:].std() < 0.6 * values[60:].std()


@pytest.mark.parametrize("words", ["1", "a,b", "0,1", "1,-1"])
def test_smoothing_that_cannot_be(words) -> None:
    with pytest.raises(UserError):
        parse_smoothing(words)


def test_short_gaps_are_filled_in_a_line_and_long_ones_stay() -> None:
    seconds = np.cumsum(np.random.default_rng(2).uniform(0.02, 0.05, 80))
    truth = np.stack([np.sin(seconds), np.cos(seconds)], axis=-1)[:, None].repeat(2, axis=1)
    values, sure = truth.copy(), np.full((80, 2), 0.8)
    values[10:15, 0], sure[10:15, 0] = np.nan, 0
    values[30:70, 1], sure[30:70, 1] = np.nan, 0
    fill_gaps(values, sure, seconds, longest=0.5)
    known = np.r_[0:10, 15:80]
    for axis in range(2):
        expected = np.interp(seconds[10:15], seconds[known], truth[known, 0, axis])
        np.testing.assert_allclose(values[10:15, 0, axis], expected)
    assert (sure[10:15, 0] == 0.4).all() and np.isnan(values[30:70, 1]).all() and not sure[30:70, 1].any()


def test_other_frame_rates_become_the_wanted_one() -> None:
    assert steady_times(np.arange(90) / 30, 30) is None and steady_times(np.arange(900) / 29.97, 30) is None
    seconds = np.arange(50) / 25
    wanted = steady_times(seconds, 30)
    assert wanted is not None and len(wanted) == 59 and np.allclose(np.diff(wanted), 1 / 30)
    values = np.random.default_rng(3).normal(size=(50, 2, 3))
    found = at_times(values, seconds, wanted)
    np.testing.assert_allclose(found[:, 1, 2], np.interp(wanted, seconds, values[:, 1, 2]))
    values[20] = np.nan
    gone = np.isnan(at_times(values, seconds, wanted)).all(axis=(1, 2))
    np.testing.assert_array_equal(gone, (wanted > seconds[19] + 1e-6) & (wanted < seconds[21] - 1e-6))
    uneven = np.cumsum(np.where(np.arange(60) % 2, 0.01, 0.05666))
    assert steady_times(uneven, 30) is not None or np.abs(np.diff(uneven) - 1 / 30).max() < 0.5 / 30


def test_runs() -> None:
    assert runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [slice(0, 2), slice(3, 4), slice(6, 7)]
    assert runs(np.zeros(3, bool)) == []


def test_the_place_of_a_body_is_found_from_its_picture() -> None:
    truth = np.array([(-1.0, 0.2, 3.0), (0.5, 0.0, 4.5), (0.0, -0.3, 2.0)])
    seen = [seen_from(tuple(place)) for place in truth]
    pixels, space = np.stack([row[0] for row in seen]), np.stack([row[1] for row in seen])
    sure = np.full(pixels.shape[:2], 0.9)
    np.testing.assert_allclose(places(space, pixels, sure, PICTURE), truth, atol=1e-9)
    sure[:, 5], pixels[:, 5] = 0.01, 0.0  # one that nobody is sure of hardly counts
    np.testing.assert_allclose(places(space, pixels, sure, PICTURE), truth, atol=0.02)
    assert np.isnan(places(space, np.full_like(pixels, np.nan), sure, PICTURE)).all()
    assert focal_length((1920, 1080), 90) == pytest.approx(960)


def test_a_path_is_smoothed_where_it_trembles_and_filled_where_it_is_unknown() -> None:
    seconds = np.arange(90) / 30
    truth = np.stack([np.linspace(-1, 1, 90), np.zeros(90), np.full(90, 4.0)], axis=1)
    path = truth + np.random.default_rng(4).normal(0, (0.01, 0.01, 0.3), (90, 3))
    path[40:45] = np.nan
    found = smooth_path(path, seconds)
    assert np.isfinite(found).all() and np.abs(found[15:75, 2] - 4).mean() < 0.12
    assert np.isnan(smooth_path(np.full((4, 3), np.nan), seconds[:4])).all()


def film(paths: list[list[tuple[float, float, float] | None]], fps: float = 30) -> list[Glance]:
    glances = []
    for frame, people in enumerate(zip(*paths, strict=True)):
        seen = [seen_from(place) for place in people if place is not None]
        if seen:
            pixels, space = (np.stack(part).astype(np.float32) for part in zip(*seen, strict=True))
            found = Poses(pixels, np.full(pixels.shape[:2], 0.9, np.float32), space)
        else:
            found = nobody(33, depth=True)
        glances.append(Glance(frame, frame / fps, found))
    return glances


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_film_becomes_people_in_a_room(mirrored) -> None:
    """Somebody walks to the right of the picture; a mirrored film shows somebody who walks to the other side."""
    way = [(x, 0.0, 4.0) for x in np.linspace(-1, 1, 60)]
    recording = gather(film([way]), PICTURE, LAYOUT, Refinement(mirrored=mirrored))
    joints = recording.columns()[0, ..., :3]
    sign = 1 if mirrored else -1
    truth = (FIGURE - FIGURE.mean(axis=0) + way[30]) * (sign, -1, 1)
    order = exchanged(LAYOUT) if mirrored else list(range(33))
    np.testing.assert_allclose(joints[30], truth[order], atol=0.02)
    nose, left, right = (LAYOUT.joints.index(name) for name in ("nose", "left_shoulder", "right_shoulder"))
    hip = LAYOUT.joints.index("left_hip")
    assert joints[30, nose, 1] > joints[30, hip, 1]  # y up
    assert joints[30, left, 0] < joints[30, right, 0]  # as Kinect has people who face it, however the film shows them
    assert recording.columns().shape == (1, 60, 33, 4)


def test_left_and_right_of_a_mirrored_flat_film() -> None:
    glances = [
        Glance(g.frame, g.seconds, Poses(g.poses.pixels, g.poses.confidence)) for g in film([[(0.5, 0, 4.0)] * 20])
    ]
    plain = gather(glances, PICTURE, LAYOUT, Refinement()).columns()
    mirrored = gather(glances, PICTURE, LAYOUT, Refinement(mirrored=True)).columns()
    assert plain.shape == mirrored.shape == (1, 20, 33, 3)
    np.testing.assert_allclose(mirrored[..., 0], (WIDTH - plain[..., 0])[:, :, exchanged(LAYOUT)], rtol=1e-5)
    np.testing.assert_allclose(mirrored[..., 1], plain[:, :, exchanged(LAYOUT), 1])


def test_gaps_ghosts_and_parts() -> None:
    way: list = [(x, 0.0, 4.0) for x in np.linspace(-1, 0, 120)]
    way[20:30] = [None] * 10  # filled
    way[60:100] = [None] * 40  # longer than a second: somebody new
    ghost: list = [None] * 120
    ghost[50:54] = [(1.6, 0.0, 4.0)] * 4
    recording = gather(film([way, ghost]), PICTURE, LAYOUT, Refinement())
    assert recording.there.shape == (2, 120)
    assert recording.there[0, :60].all() and not recording.there[0, 60:].any() and recording.there[1, 100:].all()
    np.testing.assert_allclose(recording.confidence[0, 25], 0.45)
    shown = runs(recording.there.any(axis=0))
    assert [(part.start, part.stop) for part in shown] == [(0, 60), (100, 120)]
    assert recording.part(shown[1]).pixels.shape == (1, 20, 33, 2)
    with pytest.raises(BadClip, match="nobody"):
        gather(film([[None] * 5]), PICTURE, LAYOUT, Refinement())


def test_quality_is_not_the_share_of_frames_with_somebody() -> None:
    rng, way = np.random.default_rng(5), [(x, 0.0, 4.0) for x in np.linspace(-1, 1, 60)]
    good = judge(gather(film([way]), PICTURE, LAYOUT, Refinement()))
    assert good.verdict == "good" and good.detected == 1 and good.bones < 1e-3 and good.jumps == 0
    glances = film([way])
    for glance in glances:
        glance.poses.space[:] += rng.normal(0, 0.1, glance.poses.space.shape)
    bad = judge(gather(glances, PICTURE, LAYOUT, Refinement()))
    assert bad.detected == 1 and bad.verdict == "bad" and any("bones" in reason for reason in bad.reasons)
    unsure = film([way])
    for glance in unsure:
        glance.poses.confidence[:] = 0.6
    assert judge(gather(unsure, PICTURE, LAYOUT, Refinement())).verdict == "doubtful"


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"angle": 180}, {"longest_gap": -1}])
def test_refinement_refuses(wrong) -> None:
    with pytest.raises(UserError):
        Refinement(**wrong)


def test_bodies_of_other_joints_are_refused() -> None:
    good = Poses(np.zeros((2, 33, 2)), np.zeros((2, 33)), np.zeros((2, 33, 3)))
    check_poses(good, 33)
    for other in ({"pixels": np.zeros((2, 5, 2))}, {"confidence": np.zeros(2)}, {"space": np.zeros((1, 33, 3))}):
        with pytest.raises(ValueError, match="its layout has 33 joints"):
            check_poses(replace(good, **other), 33)
