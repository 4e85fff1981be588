"""Frames, boxes and crops against loops written out by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mmcl.data import crops


@pytest.mark.parametrize(("frames", "count"), [(1, 5), (3, 5), (5, 5), (67, 5), (125, 8), (300, 1)])
def test_sampled_frames_are_the_middles_of_equal_segments(frames: int, count: int) -> None:
    expected = [int(frames * (2 * i + 1) / (2 * count)) for i in range(count)]
    assert crops.sample_frames(frames, count).tolist() == expected
    assert min(expected) >= 0 and max(expected) < frames


def test_video_frames_follow_time_not_index() -> None:
    indices = crops.sample_frames(60, 5)
    assert crops.video_frames(indices, 60, 60) is indices
    for total in (15, 30, 59, 61, 120, 240):
        mapped = crops.video_frames(indices, 60, total)
        assert (mapped >= 0).all() and (mapped < total).all()
        assert np.abs((mapped + 0.5) / total - (indices + 0.5) / 60).max() <= 1 / total


def test_box_is_square_and_holds_all_bodies_with_a_margin() -> None:
    points = np.array([[[100, 50], [120, 130]], [[150, 60], [140, 110]]], dtype=np.float32)
    x0, y0, x1, y1 = crops.person_box(points, 320, 240)
    assert x1 - x0 == y1 - y0 == 100  # 80 pixels tall, a quarter more
    assert (x0 + x1) / 2 == pytest.approx(125, abs=1) and (y0 + y1) / 2 == pytest.approx(90, abs=1)


def test_box_stays_in_the_picture_where_it_fits() -> None:
    points = np.array([[[2, 10], [60, 200]]], dtype=np.float32)
    x0, y0, x1, y1 = crops.person_box(points, 320, 240)
    assert x0 == 0 and y0 == 0 and x1 == y1 == 238
    x0, y0, x1, y1 = crops.person_box(np.array([[[150.0, 0], [170, 239]]]), 320, 240)
    assert x1 - x0 == y1 - y0 == 299 and y0 < 0 and y1 > 240  # taller than the picture: black above and below


@pytest.mark.parametrize(
    "points",
    [
        None,
        np.full((2, 20, 2), np.nan),
        np.full((1, 20, 2), 77.0),
        np.full((1, 20, 2), -1e6),
        np.full((1, 20, 2), np.inf),
    ],
    ids=["unknown", "NaN", "one point", "far outside", "infinite"],
)
def test_without_usable_joints_the_box_is_the_whole_picture(points: np.ndarray | None) -> None:
    assert crops.person_box(points, 320, 240).tolist() == [0, -40, 320, 280]


def test_one_wild_joint_does_not_blow_up_the_box() -> None:
    points = np.array([[[100, 50], [120, 130], [1e7, 90]]])
    x0, y0, x1, y1 = crops.person_box(points, 320, 240)
    assert x1 - x0 <= 320


def test_a_crop_is_the_pixels_of_its_box_and_black_outside() -> None:
    frame = np.random.default_rng(0).integers(60, 200, (24, 32, 3)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    box = np.array([-20, 60, 204, 284], dtype=np.float32)
    picture = np.asarray(Image.open(io.BytesIO(crops.crop(frame, box, 224)))).astype(int)
    expected = np.zeros((224, 224, 3), dtype=int)
    for y in range(224):
        for x in range(224):
            if 0 <= x - 20 < 320 and 0 <= y + 60 < 240:
                expected[y, x] = frame[y + 60, x - 20]
    assert np.abs(picture - expected).mean() < 6  # JPEG
    assert picture[:, :10].max() < 20


def test_points_go_where_the_crop_goes() -> None:
    frame = np.zeros((240, 320, 3), dtype=np.uint8)
    frame[98:103, 148:153] = 255
    box = np.array([50, 20, 250, 220], dtype=np.float32)
    picture = np.asarray(crops.decode(crops.crop(frame, box, 100))).max(axis=-1).astype(float)
    y, x = np.indices(picture.shape)
    centre = np.array([(x * picture).sum(), (y * picture).sum()]) / picture.sum() + 0.5
    assert crops.to_crop(np.array([150.5, 100.5]), box, 100) == pytest.approx(centre, abs=0.3)
