"""``mmcl check`` lists cached features and deletes those that are asked for, or of no use any more."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcl.check import main as check
from mmcl.common.errors import UserError
from mmcl.data.store import ClipStore, open_store
from mmcl.towers.feature_cache import FeatureCache

CLIPS = np.arange(10)


@pytest.fixture
def store(demo_store, tmp_path) -> ClipStore:
    shutil.copytree(demo_store, tmp_path / "store", ignore=shutil.ignore_patterns("features"))
    return open_store(tmp_path / "store")


def fill(store, *identity, width=100) -> FeatureCache:
    return FeatureCache(store, CLIPS, identity, lambda pictures: torch.ones(len(pictures), width), identity[0])


def names(store) -> list[str]:
    return sorted(path.name for path in (Path(store.path) / "features").iterdir())


def test_caches_are_listed_and_one_of_them_deleted(store, capsys) -> None:
    one, other = fill(store, "LLM features", "abc", "What does she do?"), fill(store, "CLIP features", "abc")
    check([str(store.path), "--out", str(store.path.parent / "report")])
    out = capsys.readouterr().out
    assert f"{one.folder.path.name[:8]}  LLM features (What does she do?): 10 rows, 0.0 MB" in out
    assert check([str(store.path), "--prune-features", one.folder.path.name[:8]]) == 0
    out = capsys.readouterr().out
    assert "0.0 MB of cached features deleted" in out and "CLIP features" in out and "LLM" not in out
    assert names(store) == [other.folder.path.name]
    assert fill(store, "CLIP features", "abc").missing == 0 and fill(store, "LLM features", "abc", "?").missing == 10
    with pytest.raises(UserError, match="no cached features 'zzz' .* there are "):
        check([str(store.path), "--prune-features", "zzz"])
    check([str(store.path), "--prune-features", "all"])
    assert names(store) == []


def test_rows_of_clips_that_are_gone_are_deleted_and_the_others_stay(store, capsys) -> None:
    partly, gone = fill(store, "partly"), fill(store, "gone")
    (store.path / "features" / "0123.npy").write_bytes(b"of an older mmcl")
    kept = partly([7, 8, 9])
    smaller = ClipStore(store.folder, store.info, store.index.slice(7))  # as after preparing fewer clips
    from mmcl.towers.kept import kept_features, prune_features

    shutil.rmtree(gone.folder.path)
    assert [(cache.rows, cache.others) for cache in kept_features(smaller)] == [(0, 0), (3, 7)]
    assert prune_features(smaller) > 7 * 400
    assert [(cache.rows, cache.others) for cache in kept_features(smaller)] == [(3, 0)]
    again = FeatureCache(smaller, np.arange(3), ["partly"], lambda pictures: torch.zeros(len(pictures), 100), "partly")
    assert again.missing == 0 and torch.equal(again([0, 1, 2]), kept)
