"""Shards that are damaged, edited or from elsewhere are not joined to a store that looks whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import recordings

from mmcl.common.errors import UserError
from mmcl.data.columns import content_fingerprint
from mmcl.data.preparation.build import prepare
from mmcl.data.preparation.merge import merge
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.store import open_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two shards of four takes, ``1`` and ``2``."""
    base = tmp_path_factory.mktemp("shards")
    for subject in range(1, 5):
        recordings.write_take(base / "takes", 1, subject)
    for index in (1, 2):
        prepare(UTDMHAD(base / "takes"), base / str(index), workers=1, progress=False, shard=(index, 2))
    return base


@pytest.fixture
def shards(made: Path, tmp_path: Path) -> list[Path]:
    for name in ("1", "2"):
        shutil.copytree(made / name, tmp_path / name)
    return [tmp_path / "1", tmp_path / "2"]


def edit(store: Path, without: str = "", **facts: Any) -> None:
    """Change what a store says of itself, with the fingerprint that goes with it."""
    digests = open_store(store).index.column("digest").to_pylist()
    info = {**json.loads((store / "store.json").read_text()), **facts}
    info.pop(without, None)
    info["fingerprint"] = content_fingerprint(digests, info)
    (store / "store.json").write_text(json.dumps(info))


def refused(shards: list[Path], words: str) -> None:
    out = shards[0].parent / "out"
    with pytest.raises(UserError, match=words) as error:
        merge(shards, out)
    assert len(str(error.value).splitlines()) == 1 and not out.exists()


def test_a_part_that_is_not_what_was_prepared_gets_no_new_digest(shards: list[Path]) -> None:
    part = shards[1] / "clips" / "part-00000.arrow"
    content = bytearray(part.read_bytes())
    joints = open_store(shards[1]).joints(0).tobytes()
    content[content.index(joints)] ^= 1
    part.write_bytes(content)
    refused(shards, r"2/clips/part-00000.arrow is not what was prepared .*copy it again")


@pytest.mark.parametrize(
    ("key", "value"), [("fps", 25.0), ("class_names", [f"other {label}" for label in range(27)]), ("dataset", "other"),
                       ("subject_names", {"Ann": 1}), ("layout", None)],
)  # fmt: skip
def test_stores_that_say_different_things_are_not_joined(shards: list[Path], key: str, value: Any) -> None:
    if key == "layout":
        layout = json.loads((shards[1] / "store.json").read_text())["layout"]
        value = {**layout, "joints": [layout["joints"][1], layout["joints"][0], *layout["joints"][2:]]}
    edit(shards[1], **{key: value})
    refused(shards, f"is no shard of what .* is one of \\(different {key}\\)")


def test_missing_shards_are_counted_and_not_all_listed(shards: list[Path]) -> None:
    for index, path in enumerate(shards, 1):
        facts = json.loads((path / "store.json").read_text())["shard"]
        edit(path, shard={**facts, "index": index, "count": 10**9})
    refused(shards, r"^999999998 of 1000000000 shards missing: 3, 4, .*, …$")


@pytest.mark.parametrize("shard", [{"index": 0, "count": 2}, {"index": 3, "count": 2}, {"index": 1, "count": -1}])
def test_a_shard_that_cannot_be_is_refused(shards: list[Path], shard: dict[str, int]) -> None:
    edit(shards[0], shard={**shard, "whole": "x"})
    refused(shards, "1: damaged store .*shard is")


@pytest.mark.parametrize("plan", [None, {}, {"sources": 5}, {"sources": "no number"}], ids=str)
def test_a_store_of_an_earlier_mmcl_is_to_be_prepared_again(shards: list[Path], made: Path, plan: Any) -> None:
    for path in shards:
        edit(path, **({"without": "plan"} if plan is None else {"plan": plan}))
    refused(shards, "1 was made by an earlier mmcl: prepare it again with --overwrite$")
    if plan is None:
        with pytest.raises(UserError, match="1 was made by an earlier mmcl: prepare it again with --overwrite$"):
            prepare(UTDMHAD(made / "takes"), shards[0], workers=1, progress=False, shard=(1, 2))


def test_a_store_that_does_not_say_how_long_its_list_is_is_to_be_prepared_again(shards: list[Path]) -> None:
    edit(shards[1], without="skipped_bytes")
    refused(shards, "2 was made by an earlier mmcl: prepare it again with --overwrite$")


def test_what_else_lies_in_a_store_is_not_deleted_with_it(shards: list[Path], made: Path) -> None:
    run = shards[0] / "run"
    run.mkdir()
    (shards[0] / "features").mkdir()  # can be made again
    words = "1 is not replaced, run in it would be lost"
    with pytest.raises(UserError, match=words):
        prepare(UTDMHAD(made / "takes"), shards[0], workers=1, progress=False, shard=(1, 2), overwrite=True)
    with pytest.raises(UserError, match=words):
        merge([made / "1", made / "2"], shards[0], overwrite=True)
    assert run.is_dir()
    run.rmdir()
    assert len(merge([made / "1", made / "2"], shards[0], overwrite=True).store) == 4


@pytest.mark.parametrize("place", [".", "clips/whole"])
def test_a_store_is_not_joined_into_one_of_its_shards(shards: list[Path], place: str) -> None:
    with pytest.raises(UserError, match="a shard that is to be joined .*choose another --out"):
        merge(shards, shards[0] / place, overwrite=True)
    assert len(open_store(shards[0])) == 2
