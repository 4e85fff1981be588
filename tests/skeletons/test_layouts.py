"""Layouts are trees with the joints that the data sets document; conversion goes by name."""

import contextlib
import itertools
import json
import time

import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.skeletons.convert import conversion_matrix, convert
from mmcl.skeletons.layout import Layout, layout_names, load_layout


@pytest.mark.parametrize("name", layout_names())
def test_every_layout_is_a_tree_whose_parts_cover_it(name: str) -> None:
    layout = load_layout(name)
    assert len(layout.edges) == layout.joint_count - 1
    covered = sorted(joint for members in layout.parts.values() for joint in members)
    assert covered == list(range(layout.joint_count))
    for left, right in layout.left_right:
        assert layout.joints[left].replace("left", "right") == layout.joints[right]
    assert Layout.from_dict(layout.to_dict()) == layout


def test_kinect_v2_bones_are_the_pairs_of_the_official_graph() -> None:
    # (child, parent), 1-based, as the NTU graph of CTR-GCN lists them.
    official = {
        (1, 2), (2, 21), (3, 21), (4, 3), (5, 21), (6, 5), (7, 6), (8, 7), (9, 21), (10, 9), (11, 10), (12, 11),
        (13, 1), (14, 13), (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19), (22, 23), (23, 8), (24, 25),
        (25, 12),
    }  # fmt: skip
    assert {(a + 1, b + 1) for a, b in load_layout("kinect_v2_25").edges} == official


def test_ctrgcn_ucla_bones_are_the_pairs_of_the_official_graph() -> None:
    official = {
        (1, 2), (2, 3), (4, 3), (5, 3), (6, 5), (7, 6), (8, 7), (9, 3), (10, 9), (11, 10), (12, 11), (13, 1), (14, 13),
        (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19),
    }  # fmt: skip
    layout = load_layout("ctrgcn_ucla_20")
    assert {(a + 1, b + 1) for a, b in layout.edges} == official
    assert layout.joints == load_layout("kinect_v1_20").joints


def test_twenty_to_twenty_five_is_the_documented_interpolation() -> None:
    source, target = load_layout("utd_mhad_20"), load_layout("kinect_v2_25")
    x = torch.randn(2, 1, 4, 20, 3, dtype=torch.float64)
    y, _ = convert(x.movedim(4, 2), torch.ones(x.shape[:-1], dtype=torch.bool), conversion_matrix(source, target))
    y = y.movedim(2, 4)
    s = dict(zip(source.joints, x.unbind(3), strict=True))
    t = dict(zip(target.joints, y.unbind(3), strict=True))
    for name in source.joints:  # limbs and spine one to one
        torch.testing.assert_close(t[name], s[name], rtol=0, atol=0)
    torch.testing.assert_close(t["neck"], (s["spine_shoulder"] + s["head"]) / 2)
    for side in ("left", "right"):
        hand, wrist = s[f"{side}_hand"], s[f"{side}_wrist"]
        torch.testing.assert_close(t[f"{side}_hand_tip"], hand + 0.5 * (hand - wrist))
        torch.testing.assert_close(t[f"{side}_thumb"], (hand + wrist) / 2)


def test_a_confidence_is_the_mean_of_those_that_a_joint_is_made_of() -> None:
    source, target = load_layout("kinect_v1_20"), load_layout("kinect_v2_25")
    x, mask = torch.ones(1, 1, 4, 1, 20), torch.ones(1, 1, 1, 20, dtype=torch.bool)
    x[:, :, 3] = torch.tensor([0.25 if name.endswith("hand") else 0.95 for name in source.joints])
    made, there = convert(x, mask, conversion_matrix(source, target), width=3)
    assert there.all() and made[0, 0, 3, 0, target.joints.index("left_hand_tip")].item() == pytest.approx(0.425)


def test_a_joint_is_made_of_those_that_are_there() -> None:
    source, target = load_layout("coco_17"), load_layout("kinect_v1_20")
    matrix = conversion_matrix(source, target)
    x = torch.randn(1, 1, 5, 17, 3) * 0.3 + 3.0
    x[..., source.joints.index("left_hip"), :] = 0
    x[:, :, 4] = 0  # nobody
    made, _ = convert(x.movedim(4, 2), (x != 0).any(dim=-1), matrix)
    found = dict(zip(target.joints, made.movedim(2, 4).unbind(3), strict=True))
    there = dict(zip(source.joints, x.unbind(3), strict=True))
    torch.testing.assert_close(found["base_spine"], there["right_hip"])
    assert not found["left_hip"].any() and not found["head"][:, :, 4].any()
    for name, row in zip(target.joints, matrix, strict=True):  # a loop, joint by joint
        pairs = [(float(w), there[s]) for s, w in zip(source.joints, row, strict=True) if w and s != "left_hip"]
        total = sum(w for w, _ in pairs)
        expected = sum(w * joint for w, joint in pairs) / total if abs(total) > 1e-6 else torch.zeros(1, 1, 5, 3)
        torch.testing.assert_close(found[name], expected)


def test_there_and_back_again_keeps_the_twenty_joints() -> None:
    twenty, more = load_layout("kinect_v1_20"), load_layout("kinect_v2_25")
    round_trip = conversion_matrix(more, twenty) @ conversion_matrix(twenty, more)
    torch.testing.assert_close(round_trip, torch.eye(20))


@pytest.mark.parametrize("target", layout_names())
def test_weights_of_every_conversion_sum_to_one(target: str) -> None:
    # So that a shift of the whole body shifts the converted body by the same amount.
    made = 0
    for source in layout_names():
        with contextlib.suppress(UserError):  # which pairs there are: test_layout_conventions.py
            matrix = conversion_matrix(load_layout(source), load_layout(target))
            torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix)))
            made += 1
    assert made


def test_the_first_rule_that_can_be_followed_is() -> None:
    target = Layout.from_dict({"name": "t", "joints": ["x"], "parents": {}, "derived": {"x": [{"a": 1}, {"b": 1}]}})
    assert Layout.from_dict(target.to_dict()) == target
    for joints, expected in ((["a", "b"], [1.0, 0.0]), (["b", "c"], [1.0, 0.0]), (["b", "a"], [0.0, 1.0])):
        source = Layout.from_dict({"name": "s", "joints": joints, "parents": {joints[1]: joints[0]}})
        assert conversion_matrix(source, target).tolist() == [expected]


def test_own_layout_from_a_file(tmp_path) -> None:
    (tmp_path / "stick.yaml").write_text("joints: [base, mid, top]\nparents: {mid: base, top: mid}\ncentre: mid\n")
    layout = load_layout(tmp_path / "stick.yaml")
    assert (layout.name, layout.parents, layout.centre) == ("stick", (0, 0, 1), 1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("joints: [a, b]\nparents: {b: c}", "not in 'joints'"),
        ("joints: [a, b, c]\nparents: {b: a}", "exactly one joint"),
        ("joints: [a, b, c]\nparents: {b: c, c: b}", "cycle"),
        ("joints: [a, a]\nparents: {}", "different names"),
        ("joints: [a]\nparents: {}\ncolour: red", "unknown key"),
        ("joints: [a]", "missing"),
        ("- a\n- b", "keys and values"),
        ("joints: [a", "not a YAML file"),
        ("joints: 5\nparents: {}", "'joints' must be a list"),
        ("joints: [a, on]\nparents: {on: a}", "only in quotes"),
        ("joints: [a]\nparents:", "'parents' must be pairs"),
        ("joints: [a, b]\nparents: [a]", "'parents' must be pairs"),
        ("joints: [a]\nparents: {}\ncentre: [a]", "not in 'joints'"),
        ("joints: [a]\nparents: {}\nparts: [a]", "'parts' must be pairs"),
        ("joints: [a]\nparents: {}\nparts: {all: a}", "part 'all' must be a list"),
        ("joints: [a]\nparents: {}\nderived: {c: a}", "give joints and their weights"),
        ("joints: [a]\nparents: {}\nderived: {c: {a: half}}", "give joints and their weights"),
        ("joints: [a]\nparents: {}\nderived: {c: {a: 0.5}}", "sum to 0.5"),
        ("joints: [a]\nparents: {}\nderived: {c: {a: .inf}}", "beyond 1000"),
        ("joints: [a]\nparents: {}\nderived: {c: {a: .nan}}", "with NaN"),
        (f"joints: [a]\nparents: {{}}\nderived: {{c: {{a: 1{'0' * 400}}}}}", "a whole number of 1329 bits"),
        (f"joints: {[f'j{i}' for i in range(1001)]}\nparents: {{}}", "at most 1000"),
        ("joints: [a, b, c]\nparents: {b: a, c: a}\nlinks: {b: c}", "list of pairs"),
        ("joints: [a, b, c]\nparents: {b: a, c: a}\nlinks: [[b, c, a]]", "list of pairs"),
        ("joints: [a, b, c]\nparents: {b: a, c: a}\nlinks: [[b, d]]", "'links' names the joint 'd'"),
        ("joints: [a, b, c]\nparents: {b: a, c: a}\nlinks: [[b, b]]", "with itself"),
        ("joints: [a, b, c]\nparents: {b: a, c: a}\nlinks: [[b, c], [c, b]]", "repeats a link"),
        ("joints: [a, b, c]\nparents: {b: a, c: a}\nlinks: [[a, b]]", "in 'parents' already"),
        ("joints: [a, b, c]\nparents: {b: a, c: b}\nbones: {b: d}", "'bones' names the joint 'd'"),
        ("joints: [a, b, c]\nparents: {b: a, c: b}\nbones: {b: c}", "'bones' has a cycle"),
        ("joints: [a]\nparents: {}\nderived: {c: []}", "has 0 rules"),
        (f"joints: [a]\nparents: {{}}\nderived: {{c: {[{'a': 1}] * 11}}}", "has 11 rules"),
        ("joints: [a, b]\nparents: {b: a}\npools: [a]", "'pools' must be pairs"),
        ("joints: [a, b]\nparents: {b: a}\npools: {one: {x: {a: 0.5, d: 0.5}}}", "names the joint 'd'"),
        ("joints: [a, b]\nparents: {b: a}\npools: {one: {x: {a: 0.5, b: 0.4}}}", "sum to 0.9"),
        ("joints: [a, b]\nparents: {b: a}\npools: {one: {x: {a: .nan}}}", "with NaN"),
        ("joints: [a, b]\nparents: {b: a}\npools: {one: {}}", "fewer joints"),
        ("joints: [a, b]\nparents: {b: a}\npools: {one: {x: {a: 1}, y: {b: 1}}}", "fewer joints"),
        (
            "joints: [a, b, c]\nparents: {b: a, c: a}\npools: {one: {x: {a: 1}, y: {b: 1}}, two: {z: {a: 1}}}",
            "the level below does not have",
        ),
        (f"joints: [a]\nparents: {{}}\npools: {{{', '.join(f'l{i}: {{}}' for i in range(11))}}}", "at most 10"),
    ],
)
def test_a_bad_layout_file_is_named_with_its_fault(tmp_path, text: str, complaint: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=complaint):
        load_layout(tmp_path / "bad.yaml")


def test_links_and_pools_go_through_a_plain_dictionary(tmp_path) -> None:
    (tmp_path / "four.yaml").write_text(
        "joints: [a, b, c, d]\nparents: {b: a, c: a, d: c}\nlinks: [[b, c]]\n"
        "pools:\n  half: {x: {a: 0.5, b: 0.5}, y: {c: 0.5, d: 0.5}}\n  one: {body: {x: 0.25, y: 0.75}}\n"
    )
    layout = load_layout(tmp_path / "four.yaml")
    assert layout.links == ((1, 2),)
    assert list(layout.pools) == ["half", "one"] and layout.pools["one"] == {"body": {"x": 0.25, "y": 0.75}}
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout
    older = {key: value for key, value in layout.to_dict().items() if key not in ("links", "pools")}
    assert Layout.from_dict(older).links == () and Layout.from_dict(older).pools == {}


def test_hostile_layouts_are_read_in_little_time() -> None:
    names = [f"j{i}" for i in range(1000)]
    chain = {name: before for before, name in itertools.pairwise(names)}
    doubling = {f"d{i}": {f"d{i + 1}": 0.5, f"e{i + 1}": 0.5} for i in range(400)}
    doubling |= {f"e{i}": {f"d{i + 1}": 0.5, f"e{i + 1}": 0.5} for i in range(400)}
    start = time.process_time()
    layout = Layout.from_dict({"name": "long", "joints": names, "parents": chain, "derived": doubling})
    with pytest.raises(UserError, match="at most 1000"):
        Layout.from_dict({"name": "many", "joints": [*names, "more"], "parents": chain})
    with pytest.raises(UserError, match="cannot become 'tall'"):  # 2^400 ways lead to where d0 might come from
        conversion_matrix(
            layout, Layout.from_dict({"name": "tall", "joints": ["d0"], "parents": {}, "derived": doubling})
        )
    assert time.process_time() - start < 5


def test_unknown_layout_and_impossible_conversion_say_so(tmp_path) -> None:
    with pytest.raises(UserError, match="choose one of"):
        load_layout("kinect_v9")
    (tmp_path / "hand.yaml").write_text("joints: [palm, finger]\nparents: {finger: palm}\n")
    with pytest.raises(UserError, match="cannot become 'kinect_v2_25'"):
        conversion_matrix(load_layout(tmp_path / "hand.yaml"), load_layout("kinect_v2_25"))
