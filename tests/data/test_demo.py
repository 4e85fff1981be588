"""The demo's people: bodies that could be bodies, in the picture where their joints say, classes as promised."""

from __future__ import annotations

import numpy as np
import pytest

from mmcl.common.errors import UserError
from mmcl.data.demo.actions import ACTIONS, CLASS_NAMES, OBJECT_PAIRS
from mmcl.data.demo.arrays import act
from mmcl.data.demo.body import JOINT, LAYOUT
from mmcl.data.demo.camera import SENSORS
from mmcl.data.demo.props import PROPS
from mmcl.data.demo.recording import observe, shapes
from mmcl.data.demo.render import mask
from mmcl.data.demo.scene import make_scene

V2 = SENSORS["kinect_v2_25"]
PAIRED = [CLASS_NAMES.index(name) for pair in OBJECT_PAIRS for name in pair]


@pytest.fixture(scope="module")
def scenes():
    """Every class by four subjects, left- and right-handed."""
    return [make_scene(label, subject, 1, 0, V2) for label in range(len(ACTIONS)) for subject in (1, 2, 3, 8)]


def at(body, name):
    return body[:, JOINT[name]]


def test_bones_keep_their_length(scenes):
    for scene in scenes:
        for body in scene.bodies:
            lengths = np.stack([np.linalg.norm(body[:, a] - body[:, b], axis=-1) for a, b in LAYOUT.edges])
            assert np.isfinite(body).all()
            assert np.ptp(lengths, axis=1).max() < 1e-4
            assert 0.01 < lengths.min() < lengths.max() < 0.5


def test_left_and_right_as_in_kinect_recordings(scenes):
    for scene in scenes:
        for body in scene.bodies:
            joints = scene.view.to_camera(body)
            right = at(joints, "right_hip") - at(joints, "left_hip")
            up = at(joints, "spine_shoulder") - at(joints, "base_spine")
            toes = 0.5 * sum(at(joints, f"{s}_foot") - at(joints, f"{s}_ankle") for s in ("left", "right"))
            # NTU RGB+D and UTD-MHAD files have the same sign; mirrored people would have the other one.
            assert (np.cross(right, up) * toes).sum(-1).max() < 0
        if scene.camera == 1 and len(scene.bodies) == 1:
            # Kinect pictures are mirrors: the right hand of somebody who faces them is on the right.
            pixels = V2.intrinsics.project(scene.view.to_camera(scene.bodies[0]))
            assert (at(pixels, "right_shoulder") - at(pixels, "left_shoulder"))[0, 0] > 10
            assert (at(pixels, "base_spine") - at(pixels, "head"))[0, 1] > 30


def test_knees_bend_forward_and_feet_stay_on_the_floor(scenes):
    for scene in scenes:
        for body in scene.bodies:
            toes = 0.5 * sum(at(body, f"{s}_foot") - at(body, f"{s}_ankle") for s in ("left", "right"))
            forward = toes / np.linalg.norm(toes, axis=-1, keepdims=True)
            for side in ("left", "right"):
                knee = at(body, f"{side}_knee") - 0.5 * (at(body, f"{side}_hip") + at(body, f"{side}_ankle"))
                assert (knee * forward).sum(-1).min() > -0.02
                assert at(body, f"{side}_foot")[:, 1].min() > -0.03
            lowest = np.minimum(at(body, "left_ankle")[:, 1], at(body, "right_ankle")[:, 1])
            assert lowest.max() < 0.2  # nobody floats
            assert body[..., 1].min() > -0.03


def test_elbows_never_bend_backwards(scenes):
    for scene in scenes:
        for body in scene.bodies:
            up = at(body, "spine_shoulder") - at(body, "base_spine")
            for side, other in (("left", "right"), ("right", "left")):
                out = at(body, f"{side}_shoulder") - at(body, f"{other}_shoulder")
                forward = np.cross(up, out if side == "right" else -out)
                forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
                shoulder, elbow, wrist = (at(body, f"{side}_{name}") for name in ("shoulder", "elbow", "wrist"))
                bulge = elbow - 0.5 * (shoulder + wrist)
                drop = ((shoulder - wrist) * up).sum(-1) / np.linalg.norm(up, axis=-1)
                low = (drop > 0.1) & (((wrist - shoulder) * forward).sum(-1) > -0.05)
                # With the hand low and in front, an elbow points back, down or out, or it would be broken.
                assert low[0] and (bulge * forward).sum(-1)[low].max() < 0.08
                assert (bulge * out).sum(-1).min() / np.linalg.norm(out[0]) > -0.05


def test_two_people_stand_apart(scenes):
    for scene in scenes:
        assert len(scene.bodies) == (2 if scene.action.partner else 1)
        if scene.action.partner:
            first, second = scene.bodies
            apart = np.linalg.norm(at(first, "base_spine") - at(second, "base_spine"), axis=-1)
            assert apart.min() > 0.5 and apart.max() < 2.0
            everything = np.linalg.norm(first[:, :, None] - second[:, None], axis=-1)
            trunk = [JOINT[name] for name in ("base_spine", "mid_spine", "spine_shoulder", "head")]
            assert everything[:, trunk][..., trunk].min() > 0.3
            assert everything.min() < 0.2  # they do touch: a chest is 0.12 m thick before its joint
    assert sum(bool(action.partner) for action in ACTIONS) >= 2


def test_people_start_and_end_near_rest(scenes):
    for scene in scenes:
        for body in scene.bodies:
            for frame in (0, -1):
                assert body[frame, JOINT["left_hand"], 1] < body[frame, JOINT["base_spine"], 1] + 0.1
                assert body[frame, JOINT["right_hand"], 1] < body[frame, JOINT["base_spine"], 1] + 0.1
            speed = np.linalg.norm(np.diff(body, axis=0), axis=-1) * 30
            assert speed[:2].max() < 1.0 and speed.max() < 12.0  # metres per second


def test_projected_joints_lie_on_the_person(scenes):
    hits = []
    for scene in scenes:
        people, _ = shapes(scene)
        pixels = V2.intrinsics.project(observe(scene).astype(float))
        for t in range(0, len(scene.bodies[0]), 16):
            covered = mask(people, t, V2.intrinsics)
            columns, rows = np.floor(pixels[:, t]).astype(int).reshape(-1, 2).T
            assert columns.min() >= 0 and columns.max() < 320 and rows.min() >= 0 and rows.max() < 240
            hits.append(covered[rows, columns].mean())
    assert np.mean(hits) > 0.97


def test_held_object_is_in_the_picture_and_not_in_the_skeleton():
    camera = V2.intrinsics
    for action in ACTIONS:
        label = CLASS_NAMES.index(action.name)
        for subject in (1, 2, 3):
            scene = make_scene(label, subject, 1, 0, V2)
            people, held = shapes(scene)
            assert bool(held) == bool(action.held)
            t = int(0.45 * len(scene.bodies[0]))
            if held:
                assert action.held in PROPS
                area = mask(held, t, camera)
                assert 40 < area.sum() < 4000
                hand = camera.project(scene.view.to_camera(at(scene.bodies[0], f"{scene.people[0].hand}_hand")))[t]
                rows, columns = np.nonzero(area)
                assert np.hypot(columns - hand[0], rows - hand[1]).min() < 12


def features(trials):
    """24 frames of the first body, turned to face the camera, root at the origin; and how many bodies there are."""
    rows, labels, subjects = [], [], []
    for label in range(len(ACTIONS)):
        for subject in range(1, 9):
            for trial in trials:
                joints = observe(make_scene(label, subject, trial, 0, V2)).astype(float)
                body = joints[0, np.linspace(0, joints.shape[1] - 1, 24).astype(int)] - joints[0, :1, :1]
                across = body[0, JOINT["right_shoulder"]] - body[0, JOINT["left_shoulder"]]
                turn = np.arctan2(across[2], across[0])
                spin = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
                rows.append(np.r_[(body @ np.array(spin).T).ravel(), 3.0 * len(joints)])
                labels.append(label)
                subjects.append(subject)
    return np.array(rows), np.array(labels), np.array(subjects)


def test_skeletons_tell_actions_apart_but_not_what_is_held():
    x, labels, subjects = features(trials=(1, 2))
    train = subjects % 2 == 1
    centroids = np.stack([x[train & (labels == label)].mean(0) for label in range(len(ACTIONS))])
    guess = np.linalg.norm(x[~train, None] - centroids, axis=-1).argmin(1)
    truth = labels[~train]
    single = ~np.isin(truth, PAIRED)
    assert (guess == truth)[single].mean() > 0.75  # chance is 1/12
    for pair in OBJECT_PAIRS:
        members = [CLASS_NAMES.index(name) for name in pair]
        of_pair = np.isin(truth, members)
        assert np.isin(guess[of_pair], members).mean() > 0.7  # the movement is recognised …
        sides = np.linalg.norm(x[~train][of_pair][:, None] - centroids[members], axis=-1).argmin(1)
        assert (np.array(members)[sides] == truth[of_pair]).mean() < 0.85  # … the object hardly


def test_other_seed_other_people(scenes):
    other = make_scene(0, 1, 1, 1, V2)
    assert other.bodies[0].shape != scenes[0].bodies[0].shape or not np.allclose(other.bodies[0], scenes[0].bodies[0])
    assert other.people[0].lengths != scenes[0].people[0].lengths
    assert make_scene(0, 1, 2, 0, V2).people[0].lengths == scenes[0].people[0].lengths


def test_plain_arrays_are_the_demos_own_clips(demo_store):
    """Those that `mmcl prepare demo` wrote, with video."""
    written = demo_store.parent / "raw" / "skeletons"
    takes = list(act(subjects=4, takes=1))
    assert {take.name for take in takes} == {path.stem for path in written.glob("*.npy")}
    for take in takes[::7]:
        assert np.array_equal(take.joints, np.load(written / f"{take.name}.npy"))
        assert take.action == CLASS_NAMES[int(take.name[1:3]) - 1] and f"s{take.subject:03d}" in take.name
    with pytest.raises(UserError, match="no sensor with layout 'coco_17'"):
        next(act(1, 1, layout="coco_17"))
