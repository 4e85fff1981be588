"""Every verb answers --help; train does so as a file, too; mistakes end in one line and status 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked_verbs import call_verb

from mmcl.cli import VERBS

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def call(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=ENVIRONMENT, cwd=cwd, timeout=120
    )


def script(verb: str) -> Path:
    return ROOT / (VERBS[verb][0].replace(".", "/") + ".py")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb) -> None:
    done = call_verb(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 300 and "usage:" in done.stdout


def test_train_as_a_file_says_what_the_verb_says() -> None:
    # accelerate runs the file. From inside mmcl/, a module of ours would shadow a library if the file let it.
    as_file = call(str(script("train")), "--help", cwd=ROOT / "mmcl")
    assert as_file.returncode == 0, as_file.stderr
    assert as_file.stdout == call_verb("train", "--help").stdout


def test_every_script_has_its_verb() -> None:
    scripts = {path for path in (ROOT / "mmcl").glob("*.py") if "__main__" in path.read_text() and path.stem[0] != "_"}
    assert scripts == {script(verb) for verb in VERBS}


def test_no_verb_lists_the_verbs() -> None:
    done = call("-m", "mmcl")
    assert done.returncode == 0 and all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["fly"], "unknown verb 'fly'"),
        (["train", "--config", "no_such_recipe"], "no recipe 'no_such_recipe'"),
        (["train"], "names no data"),
        (["train", "--data.path=x", "--data.protocol=y", "--encoder.widht=3"], "did you mean encoder.width?"),
        (["train", "--data.path=x", "--data.protocol=y", "--encoder.width=wide"], "encoder.width"),
        (["train", "--data.path=x", "--data.protocol=y", "--encoder.name=resnet"], "unknown encoder 'resnet'"),
        (["train", "--data.path=x", "--data.protocol=y", "--task.name=dance"], "unknown task 'dance'"),
        (["train", "--data.path=x", "--data.protocol=y", "--data.batch_size=1"], "data.batch_size is 1"),
        (["train", "--data.path=x", "--data.protocol=y", "--preprocess.streams=[bones]"], "unknown stream 'bones'"),
        (["train", "--data.path=nowhere", "--data.protocol=demo/cross_subject"], "nowhere: not a clip store"),
        (["evaluate", "--checkpoint", "nowhere"], "nowhere is neither a bundle"),
        (["evaluate", "nowhere"], "nowhere is neither a bundle"),
        (["evaluate", "nowhere", "--checkpoint=here"], "--checkpoint: not allowed with argument RUN|BUNDLE"),
        (["train", "--data.path=x", "--data.protocol=y", "--seed=-1"], "seed is -1"),
        (["export", "--run", "nowhere", "--out", "never"], "nowhere is neither a bundle"),
        (["zero-shot"], "needs a run folder, checkpoint or bundle"),
        (["predict", "nowhere", "file.npy"], "nowhere is no bundle"),
        (["predict", "nowhere", "file.npy", "--device", "warp"], "--device warp is not to be had here"),
        (["import-checkpoint", "nowhere.pt", "--out", "never"], "nowhere.pt"),
        (["prepare", "utd-mhad", "--source", "nowhere", "--out", "never"], "nowhere"),
        (["check", "nowhere"], "nowhere: not a clip store"),
        (["build-tower", "tiny-clip"], "--out"),
        (["study", "--config", "nosuch", "--out", "never"], "no study 'nosuch'"),
        (
            ["study", "--config", "utd_mhad", "--out", "never", "--only", "nosuch"],
            "--only nosuch: the arms are skeleton",
        ),
        (["demo", "--out", "never", "--epochs", "0"], "--epochs is 0: it must be at least 1"),
        (["train", "--config", "adapt", "--start.checkpoint=nowhere"], "nowhere is neither a bundle"),
        (
            ["adapt", "--checkpoint", "x", "--data", "nowhere", "--protocol", "y", "--out", "never"],
            "nowhere: not a clip",
        ),
    ],
)
def test_mistakes_end_in_one_clear_line_and_status_2(tmp_path, words, complaint) -> None:
    done = call_verb(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())  # nothing half-written stays behind


def test_recipe_mistakes_name_the_key(tmp_path) -> None:
    (tmp_path / "own.yaml").write_text("data: {path: x, protocol: y, batchsize: 3}\n")
    done = call_verb("train", "--config", "own.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "batchsize" in done.stderr and len(done.stderr.splitlines()) == 1
    (tmp_path / "own.yaml").write_text("data: {path: [x\n")
    done = call_verb("train", "--config", "own.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "not a YAML file" in done.stderr and len(done.stderr.splitlines()) == 1


def test_import_of_the_package_costs_nothing() -> None:
    done = call(
        "-c", "import sys, mmcl, mmcl.cli; print(json.dumps(sorted(sys.modules)))".replace("json", "__import__('json')")
    )
    assert not {"torch", "numpy", "transformers"} & set(json.loads(done.stdout))


WATCHED = """
import sys, time, types
from mmcl import cli

def main():
    from tqdm import tqdm
    for _ in tqdm(range(60)):
        time.sleep(0.01)

sys.modules["watched"] = types.SimpleNamespace(main=main)
cli.VERBS["watch"] = ("watched", "a bar of half a second")
sys.argv = ["mmcl", "watch"]
cli.main()
"""


def test_a_log_does_not_get_every_state_of_a_progress_bar() -> None:
    shown = call("-c", WATCHED)
    assert shown.returncode == 0 and "60/60" in shown.stderr
    assert shown.stderr.count("/60") <= 2  # the first and the last
