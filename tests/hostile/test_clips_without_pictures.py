"""A clip whose video is not there or damaged stays: where pictures are needed, one can ask for those that have them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "data"))
from made_stores import LAYOUT, row  # noqa: E402

from mmcl.common.errors import UserError  # noqa: E402
from mmcl.data.preparation.finish import finish  # noqa: E402
from mmcl.data.preparation.parts import Parts  # noqa: E402
from mmcl.engine.config import DataOptions  # noqa: E402
from mmcl.engine.setup import open_data  # noqa: E402
from mmcl.tasks.colearn.tower_inputs import require_video  # noqa: E402


def made(folder: Path, with_pictures: set[int]) -> Path:
    """Twelve clips, the odd ones on the list train, the even ones on the list test."""
    parts = Parts(folder, ["x"])
    parts.append([row(number, 8, crops=2 * (number in with_pictures)) for number in range(12)], [])
    about = {"dataset": "made", "title": "Made", "fps": 30.0, "layout": LAYOUT.to_dict(), "class_names": list("abcde")}
    finish(folder, {**about, "plan": {}}, parts.facts, [], [])
    return folder


def config(store: Path, **data: Any) -> Any:
    return SimpleNamespace(task_name="supervised", data=DataOptions(str(store), "own/split", **data), seed=0)


def test_only_the_training_side_is_asked_for_pictures(tmp_path: Path) -> None:
    store = made(tmp_path / "store", {1, 2, 5, 9})
    every, seen = open_data(config(store)), open_data(config(store, require_video=True))
    assert every.split.train.tolist() == [1, 3, 5, 7, 9, 11] and seen.split.train.tolist() == [1, 5, 9]
    assert seen.training_side == 6
    np.testing.assert_array_equal(every.split.test, seen.split.test)
    assert every.split.digest != seen.split.digest


def test_no_pictures_at_all_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 6 training clips"):
        open_data(config(made(tmp_path / "store", {2, 4}), require_video=True))


@pytest.mark.parametrize(
    ("with_pictures", "advice"), [({1, 2}, "train on the other 1 alone"), ({2}, "--video, or train")]
)
def test_co_learning_names_only_ways_that_there_are(tmp_path: Path, with_pictures: set[int], advice: str) -> None:
    opened = open_data(config(made(tmp_path / "store", with_pictures)))
    context = SimpleNamespace(store=opened.store, training_clips=opened.split.train)
    with pytest.raises(UserError, match=advice):
        require_video(context)  # type: ignore[arg-type]
