"""Geometry of bodies against closed forms: a person who stands, turned and mirrored, in several layouts."""

from __future__ import annotations

import numpy as np
import pytest
import recordings
import torch

from mmcl.skeletons.believable.posture import Posture, posture
from mmcl.skeletons.convert import conversion_matrix
from mmcl.skeletons.layout import load_layout

UTD = load_layout("utd_mhad_20")
TALL = 0.6  # metres from hips to head of the person that recordings.STANDING is


def measured(joints: np.ndarray, layout: str = "utd_mhad_20") -> Posture:
    return posture(np.asarray(joints, dtype=np.float64), load_layout(layout))


def in_layout(joints: np.ndarray, layout: str) -> np.ndarray:
    matrix = conversion_matrix(UTD, load_layout(layout)).double()
    return (matrix @ torch.from_numpy(joints).double()).numpy()


STANDING = np.repeat(recordings.STANDING[None], 3, axis=0)


@pytest.mark.parametrize("frames", [1, 3])
def test_a_standing_person(frames: int) -> None:
    found = measured(STANDING[:frames])  # a single frame is enough
    assert not found.planar and found.height == pytest.approx(TALL)
    assert found.up == pytest.approx((0, 1, 0)) and found.place == pytest.approx((0, 0, 2.5))
    assert found.agreement == pytest.approx(1)
    foot, ankle = STANDING[0, [15, 19]].mean(axis=0), STANDING[0, [14, 18]].mean(axis=0)
    forward = (foot - ankle) / np.linalg.norm(foot - ankle)
    assert found.handedness == pytest.approx(-forward[2])  # cos of how far the toes point down


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0), (2, 1, 0), (0, 2, 1)])
def test_reordered_axes_move_the_vertical_and_the_depth(order: tuple[int, int, int]) -> None:
    found = measured(STANDING[..., list(order)])
    assert found.up == pytest.approx(np.array([0, 1, 0])[list(order)])
    assert found.place == pytest.approx(np.array([0, 0, 2.5])[list(order)], abs=1e-9)


def test_mirrored_and_swapped_sides() -> None:
    upright = measured(STANDING)
    assert measured(STANDING * [-1, 1, 1]).handedness == pytest.approx(-upright.handedness)
    assert measured(STANDING * [1, -1, 1]).up == pytest.approx((0, -1, 0))
    legs = STANDING.copy()
    legs[:, recordings.LEFT[4:] + recordings.RIGHT[4:]] = legs[:, recordings.RIGHT[4:] + recordings.LEFT[4:]]
    assert measured(legs).agreement == pytest.approx(-1)


@pytest.mark.parametrize("layout", ["kinect_v1_20", "kinect_v2_25", "coco_17"])
def test_other_layouts_say_the_same_as_far_as_they_go(layout: str) -> None:
    found = measured(in_layout(STANDING, layout), layout)
    hips = STANDING[0, [12, 16]].mean(axis=0) if layout == "coco_17" else STANDING[0, 3]
    assert found.height == pytest.approx(STANDING[0, 0, 1] - hips[1])
    assert found.up == pytest.approx((0, 1, 0)) and found.agreement == pytest.approx(1)
    assert found.sure == (layout != "coco_17") and found.handedness > 0  # it has no feet: its hands must do


def test_feet_made_up_from_ankles_point_nowhere() -> None:
    coco = in_layout(STANDING, "coco_17")
    matrix = conversion_matrix(load_layout("coco_17"), load_layout("kinect_v2_25")).double()
    made_up = (matrix @ torch.from_numpy(coco)).numpy()
    assert not measured(made_up, "kinect_v2_25").sure


def test_missing_joints_are_left_out_not_taken_for_the_sensor() -> None:
    gaps = STANDING.copy()
    gaps[0, 0] = gaps[1, 3] = 0  # a head, and the hips' centre: its sides stand in for it
    found = measured(gaps)
    assert found.height == pytest.approx(TALL, abs=0.06) and found.up == pytest.approx((0, 1, 0), abs=0.1)
    gaps[:, 0] = 0
    assert np.isnan(measured(gaps).height) and np.isnan(measured(gaps).up).all()
    assert measured(gaps).agreement == pytest.approx(1)


def test_planar_keypoints_have_no_metres_and_no_depth() -> None:
    flat = STANDING * [1, 1, 0]
    found = measured(flat)
    assert found.planar and np.isnan(found.height) and np.isnan(found.handedness)
    assert found.up == pytest.approx((0, 1, 0)) and found.agreement == pytest.approx(1)
    assert np.isnan(measured(flat * [0.05, 1, 1]).agreement)  # seen from the side: which hip is left is chance
    assert np.isfinite(measured(STANDING * [0.05, 1, 1]).agreement)


def test_nobody_there() -> None:
    found = measured(np.zeros((0, 20, 3)))
    assert np.isnan(found.height) and np.isnan(found.up).all() and np.isnan(found.agreement)
