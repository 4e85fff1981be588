"""Keypoints of OpenPose, AlphaPose and COCO, as these programs write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmcl.common.errors import BadClip, UserError
from mmcl.pose.base import build_estimator

PICTURE = np.zeros((4, 4, 3), np.uint8)


def people(joints: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(1, 100, (joints, 3))
    values[:, 2] /= 100
    return values.round(3)


def opened(weights: Path, video: str = "clip.mp4", **options):
    estimator = build_estimator("file", {"weights": str(weights), **options})
    estimator.open(Path(video))
    return estimator


def test_openpose_writes_a_file_a_frame(tmp_path) -> None:
    one, two = people(25, 0), people(25, 1)
    one[7] = 0
    folder = tmp_path / "clip"
    folder.mkdir()
    for frame, found in ((0, [one, two]), (1, []), (12, [two])):
        content = {"version": 1.3, "people": [{"pose_keypoints_2d": each.ravel().tolist()} for each in found]}
        (folder / f"clip_{frame:012d}_keypoints.json").write_text(json.dumps(content))
    for weights in (tmp_path, folder):
        estimator = opened(weights)
        assert estimator.layout == "openpose_25" and estimator.dimensions == 2
        poses = estimator.find(PICTURE, 0, 0.0)
        np.testing.assert_allclose(poses.pixels[1], two[:, :2], rtol=1e-6)
        np.testing.assert_allclose(poses.confidence[0], one[:, 2], rtol=1e-6)
        assert np.isnan(poses.pixels[0, 7]).all() and poses.confidence[0, 7] == 0 and poses.space is None
        assert len(estimator.find(PICTURE, 1, 0.1)) == len(estimator.find(PICTURE, 5, 0.2)) == 0
        assert len(estimator.find(PICTURE, 12, 0.4)) == 1


def test_alphapose_writes_a_list(tmp_path) -> None:
    one, two = people(26, 0), people(26, 1)
    rows = [
        {"image_id": "0.jpg", "category_id": 1, "keypoints": one.ravel().tolist(), "score": 2.9, "idx": 1},
        {"image_id": "frame_000003.png", "category_id": 1, "keypoints": two.ravel().tolist(), "score": 2.1},
    ]
    (tmp_path / "clip.json").write_text(json.dumps(rows))
    estimator = opened(tmp_path / "clip.json")
    assert estimator.layout == "halpe_26"
    np.testing.assert_allclose(estimator.find(PICTURE, 3, 0.1).pixels[0], two[:, :2], rtol=1e-6)
    assert len(estimator.find(PICTURE, 0, 0.0)) == 1


def test_coco_has_results_and_annotations(tmp_path) -> None:
    one = people(17, 0)
    results = [{"image_id": 1, "category_id": 1, "keypoints": one.ravel().tolist(), "score": 0.9}]
    (tmp_path / "results.json").write_text(json.dumps(results))
    estimator = opened(tmp_path / "results.json", first=1)
    np.testing.assert_allclose(estimator.find(PICTURE, 0, 0.0).confidence[0], one[:, 2], rtol=1e-6)
    flags = one.copy()
    flags[:, 2] = np.arange(17) % 3
    content = {
        "images": [{"id": 99, "file_name": "img_00007.jpg"}],
        "annotations": [{"image_id": 99, "keypoints": flags.ravel().tolist(), "num_keypoints": 12}],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    found = opened(tmp_path / "set.json").find(PICTURE, 7, 0.2)
    np.testing.assert_array_equal(found.confidence[0], np.arange(17) % 3 / 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"), ("[1]", "without image_id"), ('{"a": 1}', "neither a list"),
        ('[{"image_id": "x", "keypoints": []}]', "no number"), ('[{"image_id": 1}]', "without keypoints"),
        ('[{"image_id": 1, "keypoints": [1, 2]}]', "three numbers"), ("[]", "nobody is in the keypoints"),
        ('[{"image_id": 1, "keypoints": [1, 2, 3]}]', "people of 1 keypoints"),
        ('[{"image_id": [1], "keypoints": [1, 2, 3]}]', "neither a number nor a name"),
        ('{"images": [{"id": [1]}], "annotations": []}', "neither a number nor a name"),
        ('[{"image_id": "%s.jpg", "keypoints": [1, 2, 3]}]' % ("1" * 5000), "no number of a frame"),
        ('[{"image_id": 1, "keypoints": [1%s, 2, 3]}]' % ("0" * 400), "three numbers"),
    ],
)  # fmt: skip
def test_files_that_are_none(tmp_path, content, words) -> None:
    (tmp_path / "clip.json").write_text(content)
    with pytest.raises(UserError, match=words):
        build_estimator("file", {"weights": str(tmp_path / "clip.json")})


def test_a_frame_whose_people_are_no_list(tmp_path) -> None:
    (tmp_path / "clip_0_keypoints.json").write_text('{"people": 5}')
    with pytest.raises(UserError, match="clip_0_keypoints.json: 'people' is no list"):
        build_estimator("file", {"weights": str(tmp_path)})


def test_keypoints_that_are_missing(tmp_path) -> None:
    with pytest.raises(UserError, match="needs the keypoints"):
        build_estimator("file")
    with pytest.raises(UserError, match="no keypoint files"):
        build_estimator("file", {"weights": str(tmp_path)})
    row = {"image_id": 0, "keypoints": people(17, 0).ravel().tolist()}
    (tmp_path / "clip.json").write_text(json.dumps([row, {**row, "image_id": 1, "keypoints": [1.0] * 9}]))
    with pytest.raises(BadClip, match=r"neither other\.json"):
        opened(tmp_path, "other.mp4")
    with pytest.raises(BadClip, match="other than 17"):
        opened(tmp_path).find(PICTURE, 1, 0.0)
