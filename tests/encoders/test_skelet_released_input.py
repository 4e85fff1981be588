"""SkeleT-GCN's input equals the released arrays: normalisation, streams, frames of tests and of training, clips."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from golden import load_arrays

from mmcl.encoders.skelet.released_input import as_clips, feature, frames_of, normalise
from mmcl.skeletons.layout import load_layout

GIVEN = ("keypoint", "score", "pipeline/clip_len")  # what the other arrays are made of
LAYOUT = load_layout("coco_wholebody_65")


def keys() -> list[str | None]:
    """All arrays of the file; None where there is none."""
    path = Path(os.environ.get("MMCL_TEST_GOLDEN") or os.devnull) / "skelet_gcn" / "features.npz"
    if not path.is_file():
        return [None]
    with np.load(path) as file:
        return list(file.files)


def numbers(text: str) -> list[int]:
    """ "len5_clips10" -> [5, 10]."""
    return [int("".join(filter(str.isdigit, part))) for part in text.split("_")]


def trained(arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    """Frames of training: draws of a seed go on from array to array, in the file's order."""
    group = key.partition("/")[0]
    draws = np.random.RandomState(int(group.rpartition("seed")[2]))
    for name in arrays:
        if name.startswith(f"{group}/"):
            length, *clips = numbers(name.partition("/")[2])
            count = clips[0] if clips else 1
            found = frames_of(length, len(arrays[name]) // count, count, draws)
            if name == key:
                return found
    raise AssertionError(key)


def made(arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    """What the package makes of the recording in the arrays for one of the others."""
    group, _, name = key.partition("/")
    if key.startswith("normalised"):
        return normalise(arrays["keypoint"], arrays["score"], "auto" if "auto" in key else "fix")
    if group == "sample":
        length, clips = numbers(name)
        return frames_of(length, len(arrays[key]) // clips, clips)
    if group.startswith("sample_train"):
        return trained(arrays, key)
    joints = normalise(arrays["keypoint"], arrays["score"])
    if group == "feat":
        return feature(joints, name, LAYOUT)
    window = int(arrays["pipeline/clip_len"].item())
    clips = len(arrays["pipeline/frame_inds"]) // window
    chosen = frames_of(joints.shape[1], window, clips)
    if name.startswith("format_"):
        persons = arrays[key].shape[1]
        return as_clips(feature(joints, name.removeprefix("format_"), LAYOUT), chosen, clips, persons)
    return {"frame_inds": chosen}[name]


@pytest.mark.parametrize("key", [key for key in keys() if key not in GIVEN])
def test_every_array_is_the_released_one(key: str | None) -> None:
    """All arrays of the file but those that the others are made of."""
    arrays = load_arrays("skelet_gcn", "features")  # skips where there are none
    assert key is not None
    expected, found = arrays[key], made(arrays, key)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if expected.dtype.kind in "iu":
        assert (found == expected).all()
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_points_with_low_scores_lie_in_the_centre_and_keep_their_scores() -> None:
    points = np.array([[[[1920.0, 0.0], [960.0, 540.0], [480.0, 810.0]]]])
    found = normalise(points, np.array([[[0.5, 0.011, 0.01]]]))
    np.testing.assert_allclose(found[0, 0], [[1, -1, 0.5], [0, 0, 0.011], [0, 0, 0.01]], atol=1e-6)
    auto = normalise(points, np.array([[[0.5, 0.5, 0.0]]]), "auto")
    np.testing.assert_allclose(auto[0, 0], [[1, -1, 0.5], [-1, 1, 0.5], [0, 0, 0]], atol=1e-6)
    small = normalise(points / 400, np.ones((1, 1, 3)), "auto")
    np.testing.assert_allclose(small[0, 0, :, :2], points[0, 0] / 400, atol=1e-6)  # under 10 pixels: as it was
    assert not normalise(points, np.zeros((1, 1, 3)), "auto").any()


def test_frames_rise_in_their_stretches_and_short_recordings_begin_again() -> None:
    assert frames_of(3, 5, 2).tolist() == [0, 1, 2, 0, 1, 1, 2, 0, 1, 2]  # the second clip begins at frame 1 * 3 // 2
    assert frames_of(2, 3, 4).reshape(4, 3)[:, 0].tolist() == [0, 1, 0, 1]  # fewer frames than clips: at its number
    draws = np.random.RandomState(0)
    for frames in (10, 15, 19, 20, 47):
        found = frames_of(frames, 10, 3, draws).reshape(3, 10)
        assert (np.diff(found, axis=1) > 0).all() and found.min() >= 0 and found.max() < frames
    assert (frames_of(47, 10) == frames_of(47, 10)).all()


def test_persons_are_cut_or_filled_with_zeros_and_the_network_takes_the_clips() -> None:
    features = np.random.RandomState(0).rand(3, 12, 65, 3)
    found = as_clips(features, frames_of(12, 4, 5), 5, 2)
    assert found.shape == (5, 2, 4, 65, 3)
    np.testing.assert_allclose(found[2, 1], features[1, frames_of(12, 4, 5)[8:12]], atol=1e-6)
    alone = as_clips(features[:1], frames_of(12, 4, 5), 5, 2)
    assert (alone[:, 0] == found[:, 0]).all() and not alone[:, 1].any()
