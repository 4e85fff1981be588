"""JSON: whatever is null is missing, a coordinate, a joint, a body or a frame; true and false are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_clips import person

from mmcl.common.errors import BadClip
from mmcl.data.readers.clip_file import read_clip
from mmcl.deploy.follow import Frames
from mmcl.skeletons.layout import load_layout

KINECT = load_layout("kinect_v1_20")
ONE, OTHER = person(12), person(12, x=0.8)


def of_file(folder: Path, content: Any) -> np.ndarray:
    (folder / "clip.json").write_text(json.dumps(content))
    return read_clip(folder / "clip.json", KINECT).values


@pytest.mark.parametrize("nothing", [None, [], [None] * 3], ids=["null", "empty", "nulls"])
@pytest.mark.parametrize("people", [1, 2])
def test_a_joint_or_a_body_that_is_null_is_missing(tmp_path: Path, nothing: Any, people: int) -> None:
    known = np.stack([ONE, OTHER][:people])
    frames: list[Any] = (known.swapaxes(0, 1) if people == 2 else ONE).tolist()
    for frame in (3, 4, 9):
        (frames[frame][0] if people == 2 else frames[frame])[7] = nothing
        known[0, frame, 7] = np.nan
    if people == 2:
        frames[5][1], known[1, 5] = nothing, np.nan
    else:
        frames[6], known[0, 6] = [nothing] * 20, np.nan
    np.testing.assert_array_equal(of_file(tmp_path, frames), known)
    follow = Frames(KINECT)
    for number, frame in enumerate(frames):
        found, there = follow.parse(json.dumps(frame)), np.nan_to_num(known[:, number]).astype(np.float32)
        np.testing.assert_array_equal(found, there[: len(found)])
        assert not there[len(found) :].any()


def test_joints_that_are_null_in_people_before_frames(tmp_path: Path) -> None:
    known = np.stack([ONE, OTHER])
    content: list[Any] = known.tolist()
    content[1][2][5], known[1, 2, 5] = None, np.nan
    np.testing.assert_array_equal(of_file(tmp_path, {"joints": content}), known)


@pytest.mark.parametrize("line", ["null", " null ", '{"joints": null}', json.dumps([None] * 20), "[[], []]", "[null]"])
def test_a_line_of_nothing_is_a_frame_with_nobody(line: str) -> None:
    assert not Frames(KINECT).parse(line).any()


@pytest.mark.parametrize("flag", [True, False])
def test_true_and_false_are_no_numbers(tmp_path: Path, flag: bool) -> None:
    content: list[Any] = ONE.tolist()
    content[3][4][1] = flag
    for refused in (lambda: of_file(tmp_path, content), lambda: Frames(KINECT).parse(json.dumps(content[3]))):
        with pytest.raises(BadClip, match=f"{str(flag).lower()} is no coordinate"):
            refused()
    content[0].append([1.0, 2.0, 3.0])  # uneven, too
    with pytest.raises(BadClip, match=f"{str(flag).lower()} is no coordinate"):
        of_file(tmp_path, content)


def test_texts_are_numbers_as_in_tables(tmp_path: Path) -> None:
    words = [[[repr(float(number)) for number in joint] for joint in frame] for frame in ONE]
    np.testing.assert_array_equal(of_file(tmp_path, words)[0], ONE)
    words[0][0][0] = "0_1"
    with pytest.raises(BadClip, match="'0_1' is no number"):
        of_file(tmp_path, words)


def test_a_file_of_holes_takes_no_more_room_than_its_text(tmp_path: Path) -> None:
    with pytest.raises(BadClip):
        of_file(tmp_path, [[[0.5] * 100_000] * 3, *[[]] * 100_000])
