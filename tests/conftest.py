"""Fixtures that every room uses."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads make tiny models crawl on two cores
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real recordings, named by MMCL_TEST_DATA."""
    folder = os.environ.get("MMCL_TEST_DATA")
    if not folder:
        pytest.skip("MMCL_TEST_DATA is not set: no real recordings to test with")
    return Path(folder)
