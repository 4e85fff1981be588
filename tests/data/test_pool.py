"""Several stores become one in one layout, and what the first one is tested on trains nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import made_stores
import numpy as np
import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.readers.pool import Pool, PoolOptions, converted
from mmcl.data.store import open_store
from mmcl.models.clip_set import ClipSet
from mmcl.prepare import main as prepare
from mmcl.skeletons.convert import conversion_matrix, convert
from mmcl.skeletons.layout import load_layout

RULE = "mine/people:\n  dataset: mine\n  train: {subject: [1, 3, 5]}\n  test: {subject: [2, 4]}\n"
FIRST, OTHER = load_layout("utd_mhad_20"), load_layout("kinect_v2_25")


def scattered(number: int, frames: int, crops: int, joint_count: int) -> dict[str, object]:
    """A clip of random joints, the last of which is missing."""
    joints = np.random.default_rng(number).normal(size=(1, frames, joint_count, 3)).astype(np.float32)
    joints[:, :, -1] = 0
    return made_stores.row(number, frames, crops) | {"joints": joints.reshape(-1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stores")
    made_stores.write_store(out / "first", 14, 6, dataset="mine", layout=FIRST, make=scattered)
    made_stores.write_store(out / "second", 8, 5, dataset="theirs", make=scattered)
    made_stores.write_store(out / "third", 3, 5, dataset="theirs", make=scattered)
    made_stores.write_store(out / "fast", 3, 5, fps=60.0)
    (out / "rule.yaml").write_text(RULE)
    return out


def test_the_pool_trains_on_all_but_what_the_first_store_is_tested_on(folder, tmp_path, capsys) -> None:
    words = ["pool", "--source", str(folder / "first"), "--also", f"{folder}/second,{folder}/third", "--workers", "1"]
    prepare([*words, "--protocol", str(folder / "rule.yaml"), "--out", str(tmp_path / "pool")])
    first, second, pool = map(open_store, (folder / "first", folder / "second", tmp_path / "pool"))
    own, sides = (split(store, load_protocol(rule)) for store, rule in
                  ((first, str(folder / "rule.yaml")), (pool, "own/pool")))  # fmt: skip
    assert {pool.ids[clip] for clip in sides.test} == {first.ids[clip] for clip in own.test} and len(own.test) == 4
    assert len(sides.train) == len(own.train) + 8 + 3  # subjects 0 and 6 of the first store are on neither side
    assert len(set(pool.ids)) == 25 and pool.layout.joints == FIRST.joints and pool.dataset == "mine"
    assert ClipSet.of(pool, sides.train).holds(first, own.train).all()  # it is known what was learned from
    assert not ClipSet.of(pool, sides.train).holds(first, own.test).any()

    at = pool.ids.index(first.ids[3])
    np.testing.assert_array_equal(pool.joints(at), first.joints(3))
    assert (pool.subjects[at], pool.class_names[pool.labels[at]]) == (first.subjects[3], "d")
    at = pool.ids.index(f"theirs-{second.ids[6]}")
    order = [OTHER.joints.index(joint) for joint in FIRST.joints]
    np.testing.assert_array_equal(pool.joints(at), second.joints(6)[:, :, order])
    assert pool.class_names[pool.labels[at]] == "theirs: b" and pool.subjects[at] not in first.subjects
    at = pool.ids.index("theirs-2-clip000001")
    assert pool.class_names[pool.labels[at]] == "theirs-2: b" and pool.subjects[at] not in second.subjects + 7


def test_a_layout_of_ones_own_comes_along(folder, tmp_path) -> None:
    mine = replace(FIRST, name="layout")  # made with --layout layout.yaml, which is not here any more
    made_stores.write_store(tmp_path / "mine", 14, 6, dataset="mine", layout=mine, make=scattered)
    words = ["pool", "--source", str(tmp_path / "mine"), "--also", str(folder / "second"), "--workers", "1"]
    prepare([*words, "--protocol", str(folder / "rule.yaml"), "--out", str(tmp_path / "pool")])
    assert open_store(tmp_path / "pool").layout.to_dict() == mine.to_dict()


def test_joints_that_are_made_of_several_are_made_of_those_that_are_there() -> None:
    matrix = conversion_matrix(FIRST, OTHER)
    joints = torch.randn(2, 7, 20, 3) * (torch.rand(2, 7, 20, 1) > 0.3)
    expected, _ = convert(joints[None].permute(0, 1, 4, 2, 3), joints[None].any(dim=-1), matrix)
    found = converted(joints.numpy(), matrix.numpy())
    np.testing.assert_allclose(found, expected[0].permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


def test_a_confidence_is_never_beyond_those_that_it_is_made_of() -> None:
    matrix = conversion_matrix(FIRST, OTHER)
    joints = torch.cat([torch.randn(2, 7, 20, 3), torch.rand(2, 7, 20, 1)], dim=-1) * (torch.rand(2, 7, 20, 1) > 0.3)
    there = joints[..., 3] > 0
    expected, mask = convert(joints[None].permute(0, 1, 4, 2, 3), there[None], matrix, width=3)
    plain, _ = convert(joints[None, ..., :3].permute(0, 1, 4, 2, 3), there[None], matrix)
    sure = expected[0, :, 3]
    assert torch.equal(expected[:, :, :3], plain) and torch.equal(sure > 0, mask[0]) and sure.max() <= 1
    found = converted(joints.numpy(), matrix.numpy())
    np.testing.assert_allclose(found, expected[0].permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("also", "protocol", "words"),
    [("second", "", "--protocol P"), ("", "rule.yaml", "--also DIR"), ("fast", "rule.yaml", "60 frames a second")],
)
def test_what_makes_no_pool_is_refused(folder, also, protocol, words) -> None:
    options = PoolOptions(also and str(folder / also), protocol and str(folder / protocol))
    with pytest.raises(UserError, match=words):
        Pool(folder / "first", None, options)
