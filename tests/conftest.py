"""Fixtures that every room uses."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin take what other processes need
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from forked_verbs import PRELOADED

# A shell that starts the tests in the background makes them, and all they start, deaf to the Ctrl-C that some send.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
# Before anybody starts the server that processes are forked from: it imports nothing after that.
multiprocessing.set_forkserver_preload(PRELOADED)


# Files of few and long tests: begun first, so that at the end no process works on one alone while the others are idle.
LONG = ("test_contract.py", "test_kills.py", "test_demo_verb.py", "test_resume.py", "test_study_runs.py",
        "test_processes.py", "test_sharded_weights.py", "test_loop.py", "test_bench_colearn.py",
        "test_bench_encoder.py", "test_exchange.py")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the order within a file stays."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real recordings, named by MMCL_TEST_DATA."""
    folder = os.environ.get("MMCL_TEST_DATA")
    if not folder:
        pytest.skip("MMCL_TEST_DATA is not set: no real recordings to test with")
    return Path(folder)


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared demo store: 12 classes x 4 subjects, one take each, two 56-pixel crops a clip."""
    from mmcl.data.demo import generate
    from mmcl.data.preparation.build import prepare
    from mmcl.data.readers.demo import Demo

    base = tmp_path_factory.mktemp("demo")
    generate(base / "raw", subjects=4, clips_per_subject=1, workers=2, progress=False)
    prepare(Demo(base / "raw", None), base / "store", frames_per_clip=2, crop_size=56, workers=2, progress=False)
    return base / "store"


@pytest.fixture(scope="session")
def tower_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Function kind -> folder of a tiny tower; each kind is built once."""
    from mmcl.towers.build import build_tower

    base = tmp_path_factory.mktemp("towers")

    def get(kind: str) -> Path:
        if not (base / kind).is_dir():
            build_tower(kind, base / kind)
        return base / kind

    return get
