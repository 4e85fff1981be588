"""Jobs on a Ray cluster of two nodes, whose workers and nodes are killed while they are at it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from made_verbs import gone, job_in, make_verbs, starts, wait_for
from safetensors.torch import load_file

from mmcl.common.errors import UserError
from mmcl.data.store import open_store
from mmcl.engine.parsing import parse
from mmcl.evaluate import main as evaluate
from mmcl.places.on_ray import OnRay
from mmcl.places.performing import perform
from mmcl.prepare import main as prepare
from mmcl.studies.reading import read_study
from mmcl.study import main as study
from mmcl.train import train

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed: pip install "mmcl[ray]"'),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the leash of jobs is Linux's"),
]
SMALL = {"object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores of its own, and two nodes with one core each, in the variables by which mmcl finds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # the loopback address, as mmcl has it
        patch.setenv("OMP_NUM_THREADS", "1")  # another number of threads rounds otherwise
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
        for _ in range(2):
            made.add_node(num_cpus=1, wait=False, **SMALL)
        made.wait_for_nodes()
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
        made.shutdown()


def process_of(words: str) -> psutil.Process:
    """The process of a job that has these words on its command line, once it is there."""
    found: list[psutil.Process] = []

    def look() -> bool:
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            if "-m" in line[:2] and any(words in word for word in line):
                found.append(process)
        return bool(found)

    wait_for(look)
    return found[0]


def lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.is_file() else 0


@pytest.mark.slow
def test_shards_that_ray_prepares_join_to_the_store_of_one_preparation(cluster, demo_store, tmp_path, capsys) -> None:
    out = tmp_path / "store"
    words = ["demo", "--source", str(demo_store.parent / "raw"), "--out", str(out), "--frames", "2"]
    words += ["--crop-size", "56", "--on", "ray", "--shards", "2"]

    def kill() -> None:
        process_of(f"{out}.shards/1-of-2").parent().kill()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    assert prepare(words) == 0
    thread.join()
    said = capsys.readouterr()
    assert "shard 1/2: WorkerCrashedError" in said.err and "2 shards joined" in said.out
    assert open_store(out).fingerprint == open_store(demo_store).fingerprint and len(open_store(out)) == 48
    assert not (tmp_path / "store.shards").exists()
    assert prepare(words) == 0 and "nothing to do" in capsys.readouterr().out


def test_ctrl_c_lets_jobs_save_and_those_that_wait_never_begin(cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # `python -m` looks there first
    place = OnRay(at_once=None, retries=0, cpus=1, gpus=0)
    place.variables |= make_verbs(tmp_path)
    folders = [tmp_path / name for name in "abcdef"]

    def interrupt() -> None:
        wait_for(lambda: sum(map(starts, folders)))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        outcome = perform([job_in(folder) for folder in folders], place)
    finally:
        place.close()
    assert outcome.stopped and not outcome.failed and not outcome.going_on
    begun = [folder for folder in folders if starts(folder)]
    assert 1 <= len(begun) < len(folders) and all((folder / "saved").exists() for folder in begun)


def test_a_cluster_of_this_machine_is_heard_by_nobody_else_and_says_what_it_has_not(monkeypatch, cluster) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    addresses, check = set(), OnRay._check_size

    def look(place: OnRay, *sizes: Any) -> None:
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            addresses.update(at.laddr.ip for at in process.net_connections() if at.status == psutil.CONN_LISTEN)
        check(place, *sizes)

    monkeypatch.setattr(OnRay, "_check_size", look)
    with pytest.raises(UserError, match="no node of the Ray cluster has 1 cores and 1000 GPUs"):
        OnRay(at_once=None, retries=0, cpus=1, gpus=1000)
    assert addresses and addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_a_study_whose_worker_and_node_are_killed_has_the_table_of_one_that_was_left_in_peace(
    cluster, demo_store, tmp_path, capsys
) -> None:
    settings = {
        "data.path": str(demo_store), "data.protocol": "demo/cross_subject", "data.batch_size": 4, "data.workers": 0,
        "preprocess.window": 16, "encoder.width": 8, "encoder.depth": 3, "schedule.epochs": 5,
        "schedule.warmup_epochs": 1, "augmentation.noise": 0.01, "engine.log_every": 1, "engine.checkpoint_steps": 1,
        "engine.trackers": [],
    }  # fmt: skip
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"recipe": "own_joint", "set": settings, "arms": {"joint": {}}}, sort_keys=False))
    far, near = tmp_path / "far", tmp_path / "near"
    run, killed = far / "joint" / "0", []

    def kill() -> None:
        wait_for(lambda: lines(run / "metrics.jsonl") > 3)
        training = process_of(f"--out={run}")
        killed.append(training.pid)
        training.parent().kill()  # Ray's worker; the training follows it
        wait_for(lambda: gone(training.pid))
        wait_for(lambda: lines(run / "metrics.jsonl") > 10)
        training = process_of(f"--out={run}")
        killed.append(training.pid)
        raylet = training.parent().ppid()
        node = next(node for node in cluster.worker_nodes if raylet in _pids(node))
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    assert study(["--config", str(file), "--out", str(far), "--on", "ray"]) == 0
    thread.join()
    said = capsys.readouterr().err
    assert len({*killed}) == 2 and said.count("it begins again where it was") == 2
    log = run.with_name("0.log").read_text()
    assert log.count("$ mmcl train") == 3 and log.count("resuming at step") == 2 and log.count("$ mmcl evaluate") == 1

    (run_here,) = read_study(str(file)).runs(near)
    for (verb, *words), does in zip(run_here.commands, (lambda words: train(parse(words)), evaluate), strict=True):
        assert verb in ("train", "evaluate") and does(words) == 0
    assert study(["--config", str(file), "--out", str(near)]) == 0
    learned = Path("checkpoints") / "last" / "learned.safetensors"
    expected, found = load_file(run_here.folder / learned), load_file(run / learned)
    assert all(tensor.equal(found[name]) for name, tensor in expected.items())
    assert (far / "study.csv").read_bytes() == (near / "study.csv").read_bytes()
    scores = Path("report-test") / "scores.npz"
    assert (run / scores).read_bytes() == (run_here.folder / scores).read_bytes()


def _pids(node: Any) -> list[int]:
    return [info.process.pid for info in node.all_processes.get("raylet", [])]
