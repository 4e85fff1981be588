"""The layouts that come with the package: order and bones as published, symmetry, conversion, looks."""

import numpy as np
import pytest
import torch
from figure import standing
from PIL import Image

from mmcl.common.documents import read_yaml
from mmcl.common.errors import UserError
from mmcl.data.inspection.drawing import LEFT, PAPER, RIGHT, draw_skeleton, flat_points
from mmcl.skeletons.convert import conversion_matrix, convert
from mmcl.skeletons.layout import Layout, layout_names, load_layout
from mmcl.skeletons.streams import ancestors

WHOLE_BODY = {"coco_wholebody_65", "coco_wholebody_133"}
LAYOUTS = {name: load_layout(name) for name in layout_names()}
# Parents by number, as published: VideoPose3D's Human3.6M, SMPL's kintree, K4ABT's joint hierarchy.
PARENTS = {
    "h36m_17": [0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15],
    "smpl_24": [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21],
    "azure_kinect_32": [0, 0, 1, 2, 2, 4, 5, 6, 7, 8, 7, 2, 11, 12, 13, 14, 15, 14, 0, 18, 19, 20, 0, 22, 23, 24, 3,
                        26, 26, 26, 26, 26],
}  # fmt: skip
# Undirected pairs by number, as published.
PAIRS = {
    "openpose_18": "1-2 2-3 3-4 1-5 5-6 6-7 1-8 8-9 9-10 1-11 11-12 12-13 0-1 0-14 14-16 0-15 15-17",
    "openpose_25": "1-8 1-2 1-5 2-3 3-4 5-6 6-7 8-9 9-10 10-11 8-12 12-13 13-14 0-1 0-15 15-17 0-16 16-18 14-19 19-20 "
                   "14-21 11-22 22-23 11-24",
    "mediapipe_33": "0-1 1-2 2-3 3-7 0-4 4-5 5-6 6-8 9-10 11-12 11-13 13-15 15-17 15-19 15-21 17-19 12-14 14-16 16-18 "
                    "16-20 16-22 18-20 11-23 12-24 23-24 23-25 24-26 25-27 26-28 27-29 28-30 29-31 30-32 27-31 28-32",
    "halpe_26": "0-1 0-2 1-3 2-4 5-18 6-18 5-7 7-9 6-8 8-10 17-18 18-19 19-11 19-12 11-13 12-14 13-15 14-16 "
                "15-24 16-25 20-24 22-24 21-25 23-25",
    "msr_action3d_20": "19-2 0-2 1-2 0-7 7-9 9-11 1-8 8-10 10-12 2-3 3-6 6-4 6-5 4-13 13-15 15-17 5-14 14-16 16-18",
}  # fmt: skip
# Numbers of left and right joints, as the sources publish them (MMPose's flip pairs of the face from 23).
SIDES = {
    "openpose_25": "5-2 6-3 7-4 12-9 13-10 14-11 16-15 18-17 19-22 20-23 21-24",
    "openpose_18": "5-2 6-3 7-4 11-8 12-9 13-10 15-14 17-16",
    "jhmdb_15": "4-3 6-5 8-7 10-9 12-11 14-13",
    "coco_wholebody_133": " ".join(
        [f"{23 + 16 - i}-{23 + i}" for i in range(8)] + [f"{23 + 26 - i}-{23 + 17 + i}" for i in range(5)]
        + [f"{23 + b}-{23 + a}" for a, b in ((31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47),
           (41, 46), (48, 54), (49, 53), (50, 52), (59, 55), (58, 56), (60, 64), (61, 63), (67, 65))]
        + [f"{i + 1}-{i + 2}" for i in range(0, 16, 2)] + ["17-20", "18-21", "19-22"]
        + [f"{91 + i}-{112 + i}" for i in range(21)]
    ),
}  # fmt: skip


def pairs(text: str) -> set[frozenset[int]]:
    return {frozenset(int(number) for number in pair.split("-")) for pair in text.split()}


def mirror(joint: str) -> str:
    side, _, rest = joint.partition("_")
    return {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, joint)


@pytest.mark.parametrize("name", PARENTS)
def test_parents_are_the_published_ones(name: str) -> None:
    assert list(LAYOUTS[name].parents) == PARENTS[name]


@pytest.mark.parametrize("name", PAIRS)
def test_published_pairs_are_bones_or_links(name: str) -> None:
    layout = LAYOUTS[name]
    known = {frozenset(pair) for pair in layout.edges + layout.links}
    # What hangs a face, a head or shoulders on the trunk is ours where a convention leaves them loose.
    ours = {"mediapipe_33": "0-9 0-10 0-11 0-12", "halpe_26": "0-18"}.get(name, "")
    extra = {"halpe_26": "20-22 21-23"}.get(name, "")
    assert known == pairs(PAIRS[name]) | pairs(ours) | pairs(extra)


@pytest.mark.parametrize("name", SIDES)
def test_sides_are_the_published_ones(name: str) -> None:
    found = [tuple(pair) for pair in LAYOUTS[name].left_right]
    assert {frozenset(pair) for pair in found} == pairs(SIDES[name])
    assert set(found) == {tuple(int(number) for number in pair.split("-")) for pair in SIDES[name].split()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_left_is_the_mirror_of_right_in_everything(name: str) -> None:
    facts = LAYOUTS[name].to_dict()
    for key in ("parents", "bones"):
        assert {mirror(a): mirror(b) for a, b in facts[key].items()} == facts[key]
    links = {frozenset(pair) for pair in facts["links"]}
    assert {frozenset(map(mirror, pair)) for pair in facts["links"]} == links
    assert {mirror(part): {mirror(joint) for joint in members} for part, members in facts["parts"].items()} == {
        part: set(members) for part, members in facts["parts"].items()
    }
    for level in facts["pools"].values():
        assert {mirror(j): {mirror(k): w for k, w in row.items()} for j, row in level.items()} == level


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_two_levels_of_pools_that_reach_all_of_the_body(name: str) -> None:
    layout = LAYOUTS[name]
    reached: dict[str, set[str]] = {joint: {joint} for joint in layout.joints}
    for level in layout.pools.values():
        for row in level.values():
            assert sum(row.values()) == pytest.approx(1, abs=1e-3) and len(set(row.values())) == 1  # means
        reached = {joint: set().union(*(reached[other] for other in row)) for joint, row in level.items()}
    face = {layout.joints[i] for i in layout.parts.get("face", ())}
    assert set().union(*reached.values()) == set(layout.joints) - face
    sizes = [len(level) for level in layout.pools.values()]
    assert sizes == ([27, 11] if name in WHOLE_BODY else [10, 5])


@pytest.mark.parametrize("target", LAYOUTS)
def test_which_layouts_convert_into_which(target: str) -> None:
    """All into all, but fingers come from fingers, and faces from faces."""
    sources = {
        "coco_wholebody_133": {"coco_wholebody_133"},
        "coco_wholebody_65": WHOLE_BODY,
    }.get(target, set(LAYOUTS))
    for source in LAYOUTS:
        if source in sources:
            conversion_matrix(LAYOUTS[source], LAYOUTS[target])
        else:
            with pytest.raises(UserError, match=r"no 'derived' rule for \w+, .* and \d+ more"):
                conversion_matrix(LAYOUTS[source], LAYOUTS[target])


@pytest.mark.parametrize("target", sorted(set(LAYOUTS) - WHOLE_BODY))
def test_converted_joints_lie_where_they_belong(target: str) -> None:
    """Of a person whose joints are known in every layout: within 14 cm, which is an ankle for a toe."""
    expected = standing(LAYOUTS[target])
    for source in LAYOUTS.values():
        joints, matrix = torch.from_numpy(standing(source)), conversion_matrix(source, LAYOUTS[target]).double()
        found, _ = convert(joints.T[None, None, :, None], torch.ones(1, 1, 1, len(joints), dtype=torch.bool), matrix)
        found = found[0, 0, :, 0].T
        wrong = {
            joint: round(float(distance), 3)
            for joint, distance in zip(LAYOUTS[target].joints, np.linalg.norm(found - expected, axis=1), strict=True)
            if distance > 0.14 and joint.partition("_")[2] not in ("hand_tip", "index_1", "pinky_1")
        }
        assert not wrong, f"{source.name} -> {target}: {wrong}"


@pytest.mark.parametrize("name", LAYOUTS)
def test_picture_of_every_layout(name: str) -> None:
    """Blue on the person's left, which the sensor sees on its right; grey or nothing between; mirrored sides alike."""
    layout, size = LAYOUTS[name], 300
    points = flat_points(standing(layout)[None, None], size)[0]
    points += (size / 2 - points[:, [layout.centre], :1]) * [1, 0]  # the middle line into the middle
    picture = np.asarray(draw_skeleton(Image.new("RGB", (size, size), PAPER), points, layout)).astype(int)
    left, right = ((np.abs(picture - colour).max(axis=2) < 8) for colour in (LEFT, RIGHT))
    assert left[:, size // 2 :].sum() > 400 and right[:, : size // 2].sum() > 400
    assert left[:, : size // 2 - 4].sum() == 0 == right[:, size // 2 + 4 :].sum()
    assert abs(int(left.sum()) - int(right.sum())) < 0.06 * left.sum()
    for joint, (x, y) in zip(layout.joints, points[0].round().astype(int), strict=True):
        around = picture[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
        assert (np.abs(around - np.array(PAPER)).max(axis=2) > 20).any(), f"nothing is drawn at {joint}"


def test_bones_of_the_hips_begin_at_the_nose_in_the_65_joints() -> None:
    layout = LAYOUTS["coco_wholebody_65"]
    hip, shoulder, nose = (layout.joints.index(name) for name in ("left_hip", "left_shoulder", "nose"))
    assert layout.parents[hip] == shoulder and layout.bone_parents[hip] == nose
    assert ancestors(layout, "bone")[hip] == nose == ancestors(layout, "2_bone")[layout.joints.index("left_knee")]


def test_msr_action3d_has_the_order_of_its_files(test_data) -> None:
    facts = read_yaml(test_data / "msr_action3d" / "layout.yaml")
    own = Layout.from_dict({"name": "own", **facts})
    assert (own.joints, own.parents, own.centre) == tuple(
        getattr(LAYOUTS["msr_action3d_20"], key) for key in ("joints", "parents", "centre")
    )
