"""What is mended and what is doubted: a person who moves, in several layouts, and what trackers and files do to it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from figure import standing

from mmcl.skeletons.believable import BAD, NOTE, WARN, fill, look, mend
from mmcl.skeletons.believable.axes import compose, straightening, words_of
from mmcl.skeletons.believable.names import meaning, of_a_body, places
from mmcl.skeletons.believable.posture import posture
from mmcl.skeletons.layout import Layout, layout_names, load_layout

KINECT = load_layout("kinect_v1_20")
NAMELESS = replace(KINECT, joints=tuple(f"p{joint}" for joint in range(20)), parts={}, derived={})
T = 40


def person(layout: Layout = KINECT, frames: int = T, x: float = 0.0, seed: int = 0) -> np.ndarray:
    """(1, T, V, 3): somebody whose arms swing, with a sensor's jitter; nobody is exactly symmetric or still."""
    rng = np.random.default_rng(seed)
    joints = np.repeat(standing(layout)[None] * [-1, 1, 1], frames, axis=0) - [0, 1.0, 0] + [x, 0, 0]  # right-handed
    swing = 0.3 * np.sin(np.linspace(0, 9, frames) + seed)
    for joint, name in enumerate(layout.joints):
        if any(part in name for part in ("wrist", "hand", "thumb")):
            joints[:, joint, 2] -= 0.2 + swing
            joints[:, joint, 1] += 0.3 * np.abs(swing)
    return (joints + rng.normal(0, 0.003, joints.shape)).astype(np.float32)[None]


def kinds(joints: np.ndarray, layout: Layout = KINECT) -> list[str]:
    """Of everything that is said about a clip."""
    mended = mend(joints.astype(np.float32))
    return [remark.kind for remark in mended.remarks + look(mended.joints, layout, 30.0)]


@pytest.mark.parametrize("name", layout_names())
def test_a_person_is_believed_in_every_layout(name: str) -> None:
    layout = load_layout(name)
    clip = person(layout)
    mended = mend(clip)
    assert kinds(clip, layout) == [] and np.array_equal(mended.joints, clip) and mended.lost is None


def test_two_people_are_believed() -> None:
    assert kinds(np.concatenate([person(), person(x=1.0, seed=1)])) == []


FINGERS = ("thumb", "index", "middle", "ring", "little")
HAND = Layout.from_dict(
    {
        "name": "hand", "joints": ["wrist", "palm", *(f"{finger}_{n}" for finger in FINGERS for n in range(4))],
        "parents": {"palm": "wrist"} | {f"{f}_{n}": f"{f}_{n - 1}" if n else "palm" for f in FINGERS for n in range(4)},
        "centre": "palm",
    },
    where="here",
)  # fmt: skip


def hand(frames: int = T) -> np.ndarray:
    """(1, T, 22, 3): a hand that hangs down, 40 cm before the sensor, and waves."""
    still = np.zeros((22, 3))
    still[2:] = [
        ((finger - 2) * 0.02, -0.05 - 0.025 * n, 0.01 * np.sin(finger + n)) for finger in range(5) for n in range(4)
    ]
    time = np.linspace(0, 6, frames)[:, None, None]
    moved = still + [0.05, 0.02, 0.4] + np.array([0.1, 0.03, 0.04]) * np.sin(time + [0.0, 1.0, 2.0])
    return (moved + np.random.default_rng(0).normal(0, 0.0005, moved.shape)).astype(np.float32)[None]


def test_a_hand_is_no_small_body_on_its_head() -> None:
    assert kinds(hand(), HAND) == []
    assert kinds(0.1 * person()) == ["scale"] and kinds(hand(), replace(HAND, joints=NAMELESS.joints + ("p20", "p21")))
    assert all(of_a_body(load_layout(name).joints) for name in layout_names()) and not of_a_body(HAND.joints)


# Axes ------------------------------------------------------------------------------------------------------------

TURNS = {  # what a sensor does to x, y, z; what is said; what to give as --axes
    "right-handed, y down, z away": (np.diag([-1, -1, 1]), "upside down", "-x-yz"),
    "right-handed, y down, z near": (np.diag([1, -1, -1]), "upside down", "x-y-z"),
    "y alone is negated": (np.diag([1, -1, 1]), "upside down", "x-yz"),
    "z up": (np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]), "turned", "x-zy"),
    "x up": (np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]), "turned", "y-xz"),
    "columns z, x, y": (np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), "turned", "zxy"),
    "x is negated": (np.diag([-1, 1, 1]), "mirrored", "-xyz"),
}


@pytest.mark.parametrize("name", TURNS)
def test_other_axes_are_named_with_the_remedy_that_sets_people_right(name: str) -> None:
    turn, kind, words = TURNS[name]
    clip = person()
    (remark,) = look((clip @ turn.T).astype(np.float32), KINECT)
    assert (remark.kind, remark.level, remark.axes) == (kind, BAD, words) and f"--axes={words}" in str(remark)
    # Followed, the advice gives the person back: nobody is mirrored.
    matrix = straightening(posture((clip @ turn.T)[0], KINECT))
    assert np.array_equal(matrix @ turn, np.eye(3)) and words_of(matrix) == words


def test_axes_are_composed_in_the_order_in_which_they_are_taken() -> None:
    assert compose("xyz", "-x-yz") == "-x-yz" and compose("-x-yz", "-x-yz") == "xyz"
    assert compose("zxy", "x-yz") == "zx-y"


def test_axes_are_seen_without_names() -> None:
    assert [remark.kind for remark in look(person() @ TURNS["z up"][0].T.astype(np.float32), NAMELESS)] == ["turned"]
    assert [remark.kind for remark in look(person() * [1, -1, 1], NAMELESS)] == ["upside down"]
    assert look(person(), NAMELESS) == []


@pytest.mark.parametrize(
    "known", [["head"], ["left_hand"], ["base_spine"], ["left_hip", "right_hip"], ["left_knee", "nose"]]
)
def test_axes_are_seen_where_some_names_are_known(known: list[str]) -> None:
    names = tuple(name if name in known else f"p{joint}" for joint, name in enumerate(KINECT.joints))
    layout = replace(NAMELESS, joints=names)
    assert [remark.kind for remark in look(person() @ TURNS["z up"][0].T.astype(np.float32), layout)] == ["turned"]
    assert [remark.kind for remark in look(person() * [1, -1, 1], layout)] == ["upside down"]
    assert look(person(), layout) == []


def test_names_of_other_tools_are_understood() -> None:
    spelled = ["LEFT_HIP", "LHip", "l_hip", "hip.L", "HipLeft", "lhip", "mixamorig:LeftUpLeg", "left hip"]
    assert {meaning(name) for name in spelled} == {"left_hip"}
    assert meaning("PELVIS") == meaning("Hips") == "base_spine" and meaning("joint_7") is None
    rig = places(("Hips", "LeftShoulder", "LeftArm", "LeftForeArm", "LeftHand", "LeftLeg", "LeftFoot", "LeftToeBase"))
    assert rig == {"base_spine": 0, "left_shoulder": 2, "left_elbow": 3, "left_hand": 4, "left_knee": 5,
                   "left_ankle": 6, "left_foot": 7, "left_toe": 7}  # fmt: skip


def test_legs_swapped() -> None:
    clip = person()
    clip[:, :, [12, 13, 14, 15, 16, 17, 18, 19]] = clip[:, :, [16, 17, 18, 19, 12, 13, 14, 15]]
    assert "sides" in kinds(clip)


# Numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "unit"), [(1000, "mm"), (100, "cm")])
def test_other_units_are_named(factor: float, unit: str) -> None:
    for layout in (KINECT, NAMELESS):
        (remark,) = look(person() * np.float32(factor), layout)
        assert remark.kind == "scale" and remark.level == BAD and f"--unit {unit}" in str(remark)
    assert kinds(person() * 0.01) == ["scale"]


@pytest.mark.parametrize("value", [-1, -9999, 1e6, 0.5, [0, 0, -1], [-1, -1, 0], [np.nan, np.nan, 0]])
@pytest.mark.parametrize("share", [0.01, 0.3])
def test_placeholders_are_taken_for_missing(value: object, share: float) -> None:
    clip = person()
    lost = np.random.default_rng(1).random(clip.shape[:3]) < share
    broken = clip.copy()
    broken[lost] = np.where(np.isnan(value), clip[lost], value)  # not a number: that coordinate stays as it is
    mended = mend(broken)
    assert [remark.kind for remark in mended.remarks] == ["placeholder"] and mended.remarks[0].level == NOTE
    assert np.array_equal(mended.lost, lost) and np.array_equal(mended.joints, np.where(lost[..., None], 0, clip))


@pytest.mark.parametrize("digits", [3, 2, 1])
def test_rounded_numbers_are_no_placeholders(digits: int) -> None:
    for seed in range(20):
        clip = person(frames=80, seed=seed).round(digits)
        assert mend(clip).remarks == []


def test_single_joints_and_bodies_far_away_are_taken_for_missing() -> None:
    clip = person()
    joint, body = clip.copy(), clip.copy()
    joint[0, 7, 3] += [6, 0, 0]
    body[0, 20:22, :, 0] += 50
    (remark,) = mend(joint).remarks
    assert remark.kind == "outlier" and str(remark).startswith("1 joint far from the body, by up to 6")
    assert np.argwhere(mend(joint).lost).tolist() == [[0, 7, 3]]
    found = mend(body)
    assert [remark.kind for remark in found.remarks] == ["jump"] and found.lost is not None
    assert np.flatnonzero(found.lost.all(axis=(0, 2))).tolist() == [20, 21]
    body[0, 20:, :, 0] += 50  # the other half of the clip is somewhere else: that is not for us to mend
    assert mend(body).remarks == [] and [(r.kind, r.level) for r in look(body, KINECT)] == [("jump", WARN)]


# Pictures --------------------------------------------------------------------------------------------------------


def in_picture(noisy: bool = True) -> np.ndarray:
    """(1, T, 17, 3): pixels of a picture of 1920 x 1080, rows counted downwards, and a score."""
    clip = person(load_layout("coco_17"))
    score = np.random.default_rng(2).uniform(0.6 if noisy else 0.98, 1, clip.shape[:3])
    return np.stack([960 - 500 * clip[..., 0], 540 - 500 * clip[..., 1], score], axis=-1)


def test_a_score_is_no_coordinate() -> None:
    coco = load_layout("coco_17")
    assert kinds(in_picture(), coco) == ["score"] and kinds(in_picture(noisy=False), coco) == ["score"]
    assert kinds(in_picture() / [1920, 1080, 1], coco) == ["score"]
    for factor, offset in ((100, 0), (255, 0), (8, -5)):  # percent, bytes, logits
        clip = in_picture() * [1, 1, factor] + [0, 0, offset]
        clip[..., 2] = np.random.default_rng(0).uniform(offset, factor + offset, clip.shape[:3])
        assert kinds(clip, coco) == ["score"], factor
    assert kinds(1000 * person()) == ["scale"]
    # Who takes pixels for millimetres, and negates y, is still told.
    assert kinds(in_picture() * [1e-3, -1e-3, 1e-3], coco) == ["flat"]


def test_pictures_posing_as_space_are_flat() -> None:
    clip = person()
    assert kinds(clip * [1, 1, 0]) == ["flat"] and kinds(clip * [1, 1, 0] + [0, 0, 1]) == ["flat"]
    picture = np.stack([0.5 + 0.2 * clip[..., 0], 0.5 - 0.2 * clip[..., 1], clip[..., 2] / 9], axis=-1)
    assert kinds(picture) == ["normalised"]


def test_planar_joints_are_measured_in_their_picture() -> None:
    plane = person()[..., :2]
    assert kinds(plane) == [] and kinds(plane * [1, -1]) == ["upside down"]
    (remark,) = look(plane[..., ::-1] * [-1, -1], KINECT)  # rows and columns are exchanged
    assert (remark.kind, remark.level) == ("turned", BAD) and "columns come before rows" in str(remark)
    assert kinds(plane / 540) == ["normalised"] and kinds(plane * 100) == ["picture"]


# Time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("front", "behind"), [(60, 0), (0, 260), (5, 3)])
def test_empty_ends_are_cut(front: int, behind: int) -> None:
    clip = person()
    padded = np.concatenate([np.zeros((1, front, 20, 3)), clip, np.zeros((1, behind, 20, 3))], axis=1)
    mended = mend(padded.astype(np.float32))
    assert [remark.kind for remark in mended.remarks] == ["ends"] and np.array_equal(mended.joints, clip)
    assert mended.frames == slice(front, front + T)


def test_short_gaps_are_filled_and_long_ones_named() -> None:
    clip = person()
    gaps = clip.copy()
    gaps[0, ::7] = 0
    gaps[0, [0, 39]] = clip[0, [0, 39]]
    filled, (remark,) = fill(gaps)
    assert np.abs(filled - clip).max() < 0.05 and remark.kind == "gap" and remark.level == NOTE
    middle = (clip[0, 6] + clip[0, 8]) / 2
    assert np.allclose(filled[0, 7], middle, atol=1e-6)
    clip[0, 10:30] = 0
    assert np.array_equal(fill(clip)[0], clip) and kinds(clip) == ["gap"]


def test_many_missing_joints_are_named() -> None:
    clip = person()
    clip[:, :, 4:12] = 0
    assert kinds(clip) == ["missing"]


def test_stuck_and_repeated_frames_are_named() -> None:
    clip = person()
    stuck = clip.copy()
    stuck[:, 10:] = stuck[:, 10:11]
    assert kinds(stuck) == ["still"] and kinds(np.repeat(clip[:, :1], 24, axis=1)) == ["still"]
    assert kinds(np.repeat(clip, 2, axis=1)) == ["repeated"]
    assert [remark.kind for remark in look(clip, KINECT, 30_000.0)] == ["rate"]


@pytest.mark.parametrize("jitter", [1e-6, 1e-5, 1e-4, 4e-4])
def test_a_recording_that_is_stuck_but_for_a_jitter_is_noticed(jitter: float) -> None:
    rng = np.random.default_rng(0)
    stuck = np.repeat(person()[:, 10:11], 60, axis=1)
    assert kinds(stuck + rng.normal(0, jitter, stuck.shape)) == ["still"]
    half = np.concatenate([person()[:, :11], stuck[:, :40], person()[:, 11:]], axis=1)
    (words,) = said(half + rng.normal(0, jitter, half.shape))
    assert re.match("nothing moves from frame 1[01] to 5[01], of 80", words)
    plane = 100 * stuck + rng.normal(0, 100 * jitter, stuck.shape)  # in any unit, and in a picture
    assert [remark.kind for remark in look(plane[..., :2] / 100, KINECT)] == ["still"]


def test_copies_that_were_rounded_since_are_noticed() -> None:
    twice = np.repeat(person(), 2, axis=1)
    assert kinds(twice + np.random.default_rng(0).normal(0, 1e-6, twice.shape)) == ["repeated"]


def test_who_stands_still_breathes() -> None:
    sway = 0.006 * np.sin(np.linspace(0, 12, 60))[None, :, None, None] * [1, 0.3, 1]
    assert kinds(np.repeat(person()[:, :1], 60, axis=1) + sway) == []


# Bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [6, 10])
@pytest.mark.parametrize("apart", [0.8, 0.5, 0.3, 0.2])
def test_people_who_change_slots_get_their_own_back(every: int, apart: float) -> None:
    clip = np.concatenate([person(), person(x=apart, seed=1)])
    tangled = clip.copy()
    swapped = np.arange(T) // every % 2 == 1
    tangled[:, swapped] = clip[::-1][:, swapped]
    mended = mend(tangled)
    assert [remark.kind for remark in mended.remarks] == ["exchange"] and np.array_equal(mended.joints, clip)
    assert np.array_equal(mended.follow(tangled), clip)  # and so for what goes with the joints


def test_people_of_whom_nobody_can_say_who_is_who_are_not_said_to_be_put_right() -> None:
    clip = np.concatenate([person(), person(x=0.4, seed=1)])
    clip[:, 20:, :, 0] += np.array([0.28, -0.28], dtype=np.float32)[:, None, None]  # more than half of the way
    (remark,) = mend(clip).remarks
    assert remark.kind == "exchange" and remark.level == WARN and "put right" not in remark.what
    one = person()
    entwined = np.concatenate([one, one + 0.2 * np.sin(np.linspace(0, 20, T, dtype=np.float32))[None, :, None, None]])
    swapped = np.arange(T) // 6 % 2 == 1
    entwined[:, swapped] = entwined[::-1][:, swapped]
    assert not any("put right" in remark.what for remark in mend(entwined).remarks)


def test_one_person_in_two_slots_by_turns_is_one_person() -> None:
    clip = person()
    pair = np.concatenate([clip, np.zeros_like(clip)])
    turns = np.arange(T) // 6 % 2 == 1
    pair[:, turns] = pair[::-1][:, turns]
    mended = mend(pair)
    assert np.array_equal(mended.joints[0], clip[0]) and not mended.joints[1:].any()
    assert "before frame 6, 12, 18" in mended.remarks[0].what


def test_a_person_who_goes_on_in_another_slot_is_one_person() -> None:
    clip = person()
    torn = np.zeros((3, T, 20, 3), dtype=np.float32)
    torn[0, :15], torn[2, 17:] = clip[0, :15], clip[0, 17:]
    mended = mend(torn)
    assert [remark.kind for remark in mended.remarks] == ["exchange"]
    assert np.array_equal(mended.joints[0, 17:], clip[0, 17:]) and np.array_equal(mended.joints[0, :15], clip[0, :15])


def test_people_who_pass_each_other_stay_who_they_are() -> None:
    ways = np.linspace(-1, 1, T, dtype=np.float32)[:, None]
    one, other = person(), person(seed=1)
    one[..., 0] += ways
    other[..., 0] -= ways
    other[..., 2] += 0.5
    assert mend(np.concatenate([one, other])).remarks == []


@pytest.mark.parametrize("frames", [2, 12])
def test_ghosts_do_not_stand_before_people(frames: int) -> None:
    clip = person()
    ghost = np.zeros_like(clip)
    ghost[:, 4 : 4 + frames] = person(x=1.0, seed=1)[:, 4 : 4 + frames]
    mended = mend(np.concatenate([ghost, clip]))
    assert [remark.kind for remark in mended.remarks] == ["ghost"] and np.array_equal(mended.joints[:1], clip)
    assert len(mended.joints) == (1 if frames == 2 else 2)


def test_copies_and_statues() -> None:
    clip = person()
    assert np.array_equal(mend(np.concatenate([clip, clip])).joints, clip)
    statue = np.repeat(person(x=1.0, seed=1)[:, :1], T, axis=1)
    mended = mend(np.concatenate([statue, clip]))
    assert [remark.kind for remark in mended.remarks] == ["statue"] and np.array_equal(mended.joints[0], clip[0])


def test_nobody_and_single_frames_raise_nothing() -> None:
    for clip in (np.zeros((1, 5, 20, 3)), np.zeros((0, 5, 20, 3)), np.zeros((1, 0, 20, 3)), person(frames=1)):
        mended = mend(clip.astype(np.float32))
        assert look(mended.joints, KINECT, 30.0) == [] and fill(mended.joints)[1] == []


# From frame to frame ---------------------------------------------------------------------------------------------


def said(joints: np.ndarray, layout: Layout = KINECT) -> list[str]:
    return [str(remark) for remark in look(mend(joints.astype(np.float32)).joints, layout, 30.0)]


@pytest.mark.parametrize("name", ["kinect_v1_20", "kinect_v2_25", "mediapipe_33"])
@pytest.mark.parametrize("frames", [slice(10, 20), slice(25, None), slice(5, 6)])
def test_left_and_right_that_are_exchanged_for_some_frames_are_noticed(name: str, frames: slice) -> None:
    layout = load_layout(name)
    clip, pairs = person(layout), np.array(layout.left_right)
    clip[:, frames, pairs.ravel()] = clip[:, frames, pairs[:, ::-1].ravel()]
    (words,) = said(clip, layout)
    ends = ", ".join(str(frame) for frame in (frames.start, frames.stop) if frame)
    assert f"left and right change places before frame {ends}: the joints" in words


def test_a_person_who_turns_around_has_left_and_right_where_they_are() -> None:
    angles = np.linspace(0, 2 * np.pi, T)
    turns = np.stack([[[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]] for a in angles])
    middle = np.array([0, 0, 2.5])
    assert kinds(np.einsum("tij,mtvj->mtvi", turns, person() - middle) + middle) == []


def test_joints_that_shake_are_noticed() -> None:
    noise = np.random.default_rng(0).normal(size=person().shape)
    assert kinds(person() + 0.02 * noise) == []
    assert "shaking" in kinds(person() + 0.1 * noise) and "shaking" in kinds(person() + 0.15 * noise)


def test_frames_of_one_joint_are_no_bodies_of_another_unit() -> None:
    clip = person(frames=60)
    clip[:, 20:, 1:] = 0
    (words,) = said(clip)
    assert "only 1 of 20 joints is seen in 40 of 60 frames" in words
    clip[:, :, 1:] = 0
    assert "only 1 of 20 joints is seen in 60 of 60 frames" in said(clip)[0] and "metres" not in said(clip)[0]
    clip[:] = clip[:, :, :1]
    assert said(clip) == ["all joints of a body are at one place: they were written or read wrongly"]


@pytest.mark.parametrize(
    ("factor", "words"),
    [(39.37, "no metres: bodies of 6"), (100, "--unit cm"), (1000, "--unit mm"), (3.28, "metres: these are no metres"),
     (1e6, "no metres: bodies of 1")],
)  # fmt: skip
def test_units_are_named_where_they_fit(factor: float, words: str) -> None:
    assert words in said(person() * factor)[0]


def test_a_placeholder_in_single_coordinates_is_found_along_every_axis() -> None:
    clip, rng = person(), np.random.default_rng(0)
    gone = rng.random(clip.shape) < 0.02
    clip[gone] = -1
    mended = mend(clip)
    assert mended.lost is not None and np.array_equal(mended.lost, gone.any(axis=-1))
    assert all(f"{axis} = -1" in str(mended.remarks[0]) for axis in "xyz")


def test_the_largest_number_there_is_overflows_nothing(recwarn: pytest.WarningsRecorder) -> None:
    clip = person()
    clip[0, 3:30:3, 4] = 3e38
    assert kinds(clip) == ["placeholder"] and not recwarn.list
