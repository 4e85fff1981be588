from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmcl.data.preparation.build import prepare
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.store import ClipStore


@pytest.fixture(scope="session")
def utd_root() -> Path:
    """The real recordings of UTD-MHAD."""
    folder = os.environ.get("MMCL_TEST_DATA")
    if not folder:
        pytest.skip("MMCL_TEST_DATA is not set: no real recordings")
    return Path(folder) / "utd_mhad"


@pytest.fixture(scope="session")
def utd_takes(utd_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen of them, in a dataset folder of links."""
    root = tmp_path_factory.mktemp("takes")
    for folder, ending in (("Skeleton", "skeleton.mat"), ("Video", "color.mp4")):
        (root / folder).mkdir()
        for action in (1, 8, 12, 17, 22, 24, 26, 27):
            for subject in (3, 6):
                name = f"a{action}_s{subject}_t2_{ending}"
                (root / folder / name).symlink_to(utd_root / folder / name)
    return root


@pytest.fixture(scope="session")
def utd_store(utd_takes: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """The sixteen takes, prepared."""
    out = tmp_path_factory.mktemp("store") / "utd"
    return prepare(UTDMHAD(utd_takes), out, workers=2, progress=False).store
