"""Pickles of PYSKL's form whose arrays, labels and lengths are kept another way than PYSKL keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_clips import person
from test_pyskl import write

from mmcl.data.readers import READERS
from mmcl.data.readers.pyskl import PySKLOptions

CLIPS = [person(30, x=0.1 * seed, seed=seed) for seed in range(3)]  # (T, 20, 3)


def reader_of(folder: Path, entries: list[dict[str, Any]]) -> Any:
    for number, entry in enumerate(entries):
        entry.setdefault("label", number % 2)
        entry["frame_dir"] = f"clip{number}"
    path = write(folder, {"split": {}, "annotations": entries})
    return READERS["pyskl"](path, options=PySKLOptions(layout="kinect_v1_20"))


def in_pixels(clip: np.ndarray) -> np.ndarray:
    """(T, 20, 3): columns, rows and a score."""
    sure = np.random.default_rng(0).uniform(0.1, 1, clip.shape[:2])
    return np.stack([320 + 525 * clip[..., 0] / clip[..., 2], 240 - 525 * clip[..., 1] / clip[..., 2], sure], axis=-1)


@pytest.mark.parametrize("people", [1, 2, 3])
def test_keypoints_in_the_order_of_st_gcn_are_read(tmp_path: Path, people: int) -> None:
    known = [np.stack([clip + [0.8 * x, 0, 0] for x in range(people)]) for clip in CLIPS]
    reader = reader_of(tmp_path, [{"keypoint": clip.transpose(3, 1, 2, 0)} for clip in known])
    assert reader.dimensions == 3
    for clip, source in zip(known, reader.scan(), strict=True):
        np.testing.assert_array_equal(reader.read(source).joints, clip.astype(np.float32))


@pytest.mark.parametrize("form", ["MTVC", "TVC", "CTVM", "whole"])
def test_a_score_beside_pixels_is_one_in_any_order_and_type(tmp_path: Path, form: str) -> None:
    known = [in_pixels(clip) for clip in CLIPS]
    if form == "whole":
        known = [clip.round() for clip in known]
    forms = {
        "MTVC": lambda clip: clip[None],
        "TVC": lambda clip: clip,
        "CTVM": lambda clip: clip.transpose(2, 0, 1)[..., None],
        "whole": lambda clip: clip[None].astype(np.int32),
    }
    reader = reader_of(tmp_path, [{"keypoint": forms[form](clip), "img_shape": (480, 640)} for clip in known])
    assert reader.dimensions == 2
    for clip, source in zip(known, reader.scan(), strict=True):
        raw = reader.read(source)
        there = clip[..., 2] > 0
        np.testing.assert_allclose(raw.pixels[0][there], clip[..., :2][there], rtol=1e-6)
        np.testing.assert_allclose(raw.confidence[0], clip[..., 2], rtol=1e-6)


@pytest.mark.parametrize("kept", [1.0, np.float32(1), "1", b"1", np.array(1), np.array([1.0]), [1], np.int64(1), True])
def test_a_label_is_a_class_number_however_it_is_kept(tmp_path: Path, kept: Any) -> None:
    reader = reader_of(tmp_path, [{"keypoint": clip[None], "label": kept} for clip in CLIPS])
    assert [clip.label for clip in reader.scan()] == [1, 1, 1] and len(reader.class_names) == 2
    assert reader.read(reader.scan()[0]).joints.shape == (1, 30, 20, 3)


@pytest.mark.parametrize("kept", [None, -1, 0.5, np.nan, np.inf, "wave", "-1", [1, 0], np.eye(3)[1], "9" * 5000])
def test_what_is_no_class_number_costs_its_clip(tmp_path: Path, kept: Any) -> None:
    entries = [{"keypoint": clip[None]} for clip in CLIPS]
    entries[1]["label"] = kept
    assert [isinstance(clip.payload, str) for clip in reader_of(tmp_path, entries).scan()] == [False, True, False]


@pytest.mark.parametrize("kept", [20, 20.0, np.float64(20), "20", np.array(20), [20]])
def test_padding_is_cut_however_the_number_of_frames_is_kept(tmp_path: Path, kept: Any) -> None:
    reader = reader_of(tmp_path, [{"keypoint": clip[None], "total_frames": kept} for clip in CLIPS])
    assert reader.read(reader.scan()[0]).joints.shape == (1, 20, 20, 3)
