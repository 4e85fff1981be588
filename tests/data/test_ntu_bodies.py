"""Which bodies of an NTU recording are people: ghosts, tables, lost and found trackers, empty frames."""

from __future__ import annotations

from pathlib import Path

import ntu_files
import numpy as np
import pytest
from ntu_files import FIRST_ID, frames_of, person

from mmcl.data.clip import RawClip
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.ntu import NTU120
from mmcl.data.readers.ntu_bodies import choose
from mmcl.data.readers.ntu_skeleton import parse

A, B, C = FIRST_ID, FIRST_ID + 1, FIRST_ID + 2  # the same number once rounded to float64


def read(total: int, *tracks: tuple[int, int, np.ndarray]) -> RawClip:
    return choose(*parse(ntu_files.text(frames_of(total, *tracks)).encode()))


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and np.allclose(found, expected, atol=1e-6)


def test_ids_differ_in_a_digit_that_floats_lack() -> None:
    assert float(A) == float(B)
    one, two = person(20, move=0.6, x=-0.5, seed=1), person(20, move=0.1, x=0.5, seed=2)
    clip = read(20, (A, 0, two), (B, 0, one))
    assert clip.joints.shape == (2, 20, 25, 3) and clip.recorded is None
    assert close(clip.joints[0], one) and close(clip.joints[1], two)  # the one who moves more comes first
    assert clip.pixels is not None and np.allclose(clip.pixels[1], ntu_files.pixels(two), atol=0.01)


@pytest.mark.parametrize(("length", "people"), [(5, 1), (11, 1), (12, 2)])
def test_a_flicker_of_the_tracker_is_nobody(length: int, people: int) -> None:
    ghost = person(length, move=1.5, x=1)
    clip = read(30, (A, 0, person(30)), (B, 8, ghost))
    assert len(clip.joints) == people
    assert clip.joints.shape[1] == 30


def test_furniture_is_nobody() -> None:
    table = person(30, move=2.0, wide=True, x=1)
    assert close(read(30, (A, 0, table), (B, 0, person(30))).joints[0], person(30))
    assert len(read(30, (A, 0, table), (B, 0, person(30))).joints) == 1
    falling = np.concatenate([person(12), person(18, wide=True)])  # wide in 60 % of the frames: somebody who fell
    assert len(read(30, (A, 0, falling), (B, 0, person(30, x=1))).joints) == 2


def test_where_rules_would_leave_nobody_the_nearest_stays() -> None:
    table, ghost = person(30, wide=True), person(7, x=1)
    assert close(read(30, (A, 0, table)).joints[0], table)
    assert close(read(30, (A, 3, person(5)), (B, 0, ghost)).joints[0], ghost)
    mostly = np.concatenate([person(6), person(24, wide=True)])
    assert close(read(30, (A, 0, table), (B, 0, mostly)).joints[0], mostly)


def test_motion_is_measured_while_upright() -> None:
    """A body that flies about only while it is flat on its side does not outrank somebody who moves."""
    flat = person(40, move=0.0, x=0.8)
    flat[:15] = person(15, move=2.0, wide=True, x=0.8)
    flat[:15, :, 0] += np.linspace(0, 9, 15)[:, None]
    mover = person(40, move=0.8, x=-0.8)
    clip = read(40, (A, 0, flat), (B, 0, mover))
    assert close(clip.joints[0], mover) and close(clip.joints[1], flat)


def test_a_person_lost_and_found_stays_one_person() -> None:
    """Two tracks of one person, with a gap; the other person is there all along, and moves less."""
    before, after, other = person(20, move=0.9, seed=1), person(25, move=0.7, seed=2), person(50, move=0.2, x=1)
    clip = read(50, (A, 0, before), (B, 0, other), (C, 25, after))
    assert clip.joints.shape == (2, 50, 25, 3)
    assert close(clip.joints[0, :20], before) and close(clip.joints[0, 25:], after)
    assert not clip.joints[0, 20:25].any() and close(clip.joints[1], other)
    assert clip.pixels is not None and np.isnan(clip.pixels[0, 20:25]).all() and not np.isnan(clip.pixels[1]).any()


def test_one_body_comes_and_goes_under_the_same_id() -> None:
    pose, other = person(15), person(30, x=1, move=0)
    clip = read(40, (A, 0, pose), (B, 10, other), (A, 25, pose))
    assert close(clip.joints[0, 25:], pose) and not clip.joints[0, 15:25].any()
    assert close(clip.joints[1, 10:], other)


def test_two_people_stay_where_seven_bodies_are() -> None:
    tracks = [(A + number, 0, person(20, move=0.1 * number, x=number - 3, seed=number)) for number in range(7)]
    clip = read(20, *tracks)
    assert close(clip.joints, np.stack([tracks[6][2], tracks[5][2]]))


def test_two_bodies_of_one_id_in_a_frame_stay_two() -> None:
    one, two = person(15, move=0.6), person(15, x=1)
    text = ntu_files.text(frames_of(15, (7, 0, one), (8, 0, two))).replace("\n8 0 1", "\n7 0 1")
    assert close(choose(*parse(text.encode())).joints, np.stack([one, two]))


def test_frames_without_people_are_left_out_and_the_others_numbered(tmp_path: Path) -> None:
    pose = person(30)
    ntu_files.write(tmp_path / "s", ntu_files.name(), frames_of(40, (A, 4, pose[:10]), (A, 18, pose[10:])))
    clip = NTU120(tmp_path).read(NTU120(tmp_path).scan()[0])
    assert close(clip.joints[0], pose) and clip.recorded_frames == 40
    assert clip.recorded is not None and clip.recorded.tolist() == [*range(4, 14), *range(18, 38)]
    store = prepare(NTU120(tmp_path), tmp_path / "out", workers=1, progress=False).store
    assert close(store.joints(0)[0], pose)


def test_a_file_of_a_million_empty_frames_takes_no_room() -> None:
    text = ntu_files.text(frames_of(12, (A, 0, person(12)))).replace("12\n", f"{12 + 1_000_000}\n", 1)
    clip = choose(*parse((text + "0\n" * 1_000_000).encode()))
    assert clip.joints.shape == (1, 12, 25, 3) and clip.recorded_frames == 1_000_012


def test_the_label_of_a_clip_plays_no_part(tmp_path: Path) -> None:
    """A second body in a single-person action stays: whoever recognises an action does not know how many act in it."""
    frames = frames_of(20, (A, 0, person(20)), (B, 0, person(20, x=1)))
    for action in (1, 50, 61, 106):
        ntu_files.write(tmp_path / "s", ntu_files.name(action), frames)
    reader = NTU120(tmp_path)
    assert [len(reader.read(clip).joints) for clip in reader.scan()] == [2, 2, 2, 2]
