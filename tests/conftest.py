"""Fixtures that every room uses."""

import gc
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin take what other processes need
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of processes that tests start, of which several share the cores
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import torch
from filelock import FileLock
from forked_verbs import PRELOADED
from fresh_processes import FreshProcesses, run_fresh

from mmcl.deploy import verify

# A shell that starts the tests in the background makes them, and all they start, deaf to the Ctrl-C that some send.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
# Before anybody starts the server that processes are forked from: it imports nothing after that.
multiprocessing.set_forkserver_preload(PRELOADED)


KEPT = {"modules": 0}  # how many were there when objects were left out of collections for the last time

# Files of few and long tests: begun first, so that at the end no process works on one alone while the others are idle.
LONG = ("test_contract.py", "test_encoders_onnx.py", "test_kills.py", "test_onnx_graph.py", "test_demo_verb.py",
        "test_resume.py", "test_study_runs.py", "test_tools.py", "test_loop.py", "test_processes.py",
        "test_sharded_weights.py", "test_zero.py", "test_vocabulary.py", "test_hyperformer.py", "test_bench_colearn.py",
        "test_bench_encoder.py", "test_exchange.py", "test_notebooks.py", "test_ray.py")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the order within a file stays."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """What was imported stays: a run that frees its memory need not look through all of it, hundreds of times."""
    keep_modules()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """The same of what tests have imported since."""
    if len(sys.modules) > KEPT["modules"] + 200:
        keep_modules()


def keep_modules() -> None:
    """Leave all objects that there are out of later collections; those without references are collected before."""
    gc.collect()
    gc.freeze()
    KEPT["modules"] = len(sys.modules)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real recordings, named by MMCL_TEST_DATA."""
    folder = os.environ.get("MMCL_TEST_DATA")
    if not folder:
        pytest.skip("MMCL_TEST_DATA is not set: no real recordings to test with")
    return Path(folder)


def seed_everything(item: pytest.Item) -> None:
    """What a test draws is the same whichever tests ran before it in this process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    generator = getattr(getattr(item, "module", None), "RNG", None)  # a module's own, or that of the module it is from
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before its fixtures, of which others may have made some."""
    seed_everything(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """And after them."""
    seed_everything(item)


@pytest.fixture(scope="session", autouse=True)
def fresh_processes() -> Iterator[None]:
    """Bundles are verified in fresh processes that are forked; ``real_fresh_processes`` starts them for real."""
    processes = FreshProcesses()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "run_fresh", processes)
        yield
    processes.close()


@pytest.fixture(scope="module")
def real_fresh_processes() -> Iterator[None]:
    """As outside of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "run_fresh", run_fresh)
        yield


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Function (name, make) -> folder that ``make`` has filled, once for all processes of this session of tests.

    Nobody may change what is in it: other processes read it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name: str, make: Callable[[Path], None]) -> Path:
        folder = shared / f"shared-{name}"
        with FileLock(shared / f"shared-{name}.lock"):
            if not (folder / "complete").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                (folder / "complete").touch()
        return folder

    return get


@pytest.fixture(scope="session")
def demo_store(make_once: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared demo store: 12 classes x 4 subjects, one take each, two 56-pixel crops a clip; recordings in ../raw.

    Each process of a session has its own copy, since tests keep features in it.
    """
    from mmcl.data.demo import generate
    from mmcl.data.preparation.build import prepare
    from mmcl.data.readers.demo import Demo

    def make(base: Path) -> None:
        generate(base / "raw", subjects=4, clips_per_subject=1, workers=1, progress=False)
        prepare(Demo(base / "raw", None), base / "store", frames_per_clip=2, crop_size=56, workers=1, progress=False)

    made, own = make_once("demo", make), tmp_path_factory.mktemp("demo")
    (own / "raw").symlink_to(made / "raw")
    return Path(shutil.copytree(made / "store", own / "store"))


@pytest.fixture(scope="session")
def tower_folder(make_once: Callable[..., Path]) -> Callable[[str], Path]:
    """Function kind -> folder of a tiny tower; each kind is built once."""
    from mmcl.towers.build import build_tower

    def get(kind: str) -> Path:
        return make_once(kind, lambda folder: build_tower(kind, folder / kind)) / kind

    return get


@pytest.fixture(scope="session")
def graphs(make_once: Callable[..., Path]) -> Path:
    """Folder of ``bundle`` with ONNX graphs of all precisions, ``facts.json`` of them, and ``probe.safetensors``."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")

    def make(folder: Path) -> None:
        from deploy.making import ALL, known_clips, write_small

        from mmcl.deploy.graph_writing import write_graph_files

        bundle = write_small(folder / "bundle", familiar=True)
        probe, clips = folder / "probe.safetensors", known_clips(bundle)
        written = write_graph_files(folder / "bundle", probe, bundle.description, clips, ALL)
        (folder / "facts.json").write_text(json.dumps(written.onnx))

    return make_once("graphs", make)
