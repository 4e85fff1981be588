"""What the contract test runs over: every entry of the registries, with its own tiny options, and throw-away ones."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from tasks.made_teachers import made_teacher, write_teacher

from mmcl.data.store import open_store
from mmcl.encoders import ENCODERS
from mmcl.encoders.building import encoder_options
from mmcl.tasks import TASKS

TESTS = Path(__file__).resolve().parent.parent
# Entries of a package of somebody else, who names them in its metadata.
ENTRY_POINTS = """\
[mmcl.tasks]
adversary = contracts.adversary:Adversary
bank = contracts.bank:Bank
[mmcl.encoders]
token = contracts.token_encoder:TokenEncoder
"""
CASES = [("task", name) for name in dict.fromkeys([*TASKS, "adversary", "bank"])]
CASES += [("encoder", name) for name in dict.fromkeys([*ENCODERS, "token"])]
CASES += [("surgery", "low_rank")]  # training goes on in a network whose layers were exchanged
# Four projections in one with ranks of their own, a plain one, a convolution along time.
FACTORS = {"units.1.temporal.reduce": [1, 2, 2, 1], "units.2.spatial.value": [3], "units.2.temporal.near": [2]}
TAUGHT = ("long_tail", "colearn")  # that teachers help, beside what is their own
WORDS = [
    "--data.protocol=demo/cross_subject", "--data.shots=1", "--data.batch_size=4", "--data.workers=0",
    "--preprocess.window=16", "--augmentation.crop_floor=16", "--augmentation.noise=0.01", "--schedule.epochs=2",
    "--schedule.warmup_epochs=0", "--schedule.milestones=[1]", "--optimiser.rate=0.01", "--engine.log_every=1",
    "--engine.checkpoint_steps=2", "--engine.trackers=[]", "--engine.precision=fp64", "--seed=3",
]  # fmt: skip


def install(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Install the package of the throw-away entries, here and in processes that are started from here."""
    package = folder / "throw_away-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: throw-away\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    for path in (TESTS, folder):
        patch.syspath_prepend(str(path))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")]))
    look_again()


def look_again() -> None:
    """Forget which packages were installed."""
    for registry in (TASKS, ENCODERS):
        registry.__dict__.pop("_others", None)


def settings(case: tuple[str, str], towers: Path) -> dict[str, Any]:
    """Keys of a configuration that make the entry tiny."""
    kind, name = case
    own = TASKS[name].tiny(towers) if kind == "task" else {}
    encoder = name if kind == "encoder" else own.pop("encoder.name", "ctrgcn")
    tiny = {f"encoder.{key}": value for key, value in {"persons": 1, **ENCODERS[encoder].tiny}.items()}
    task = name if kind == "task" else "supervised"
    if kind == "encoder":  # few joints: some networks have matrices as wide as a frame
        own = {"data.layout": "jhmdb_15"}
    if kind == "surgery":
        own = {"surgeries": [{"name": name, "options": {}, "structure": {"layers": FACTORS}}]}
    return {"task.name": task, "encoder.name": encoder, **tiny, **own}


def command(case: tuple[str, str], store: Path, out: Path, towers: Path, *more: str) -> list[str]:
    """The command line of a tiny run."""
    keys = [
        f"--{key}={value if isinstance(value, str | Path) else json.dumps(value)}"
        for key, value in settings(case, towers).items()
    ]
    if case[1] in TAUGHT:
        keys.append(f"--distil.teacher={json.dumps(made_teachers(towers, store))}")
    return [*WORDS, f"--data.path={store}", f"--out={out}", *keys, *more]


def made_teachers(folder: Path, store: Path) -> list[str]:
    """Two bundles with random weights, of other streams, windows and joints than the student's."""
    kinds = {"bone": ("bone", 12), "motion": ("joint_motion", 20, "kinect_v2_25", "kinect_v1_20")}
    for name, kind in kinds.items():
        if not (folder / name).is_dir():
            write_teacher(folder / name, made_teacher(open_store(store).class_names, *kind))
    return [str(folder / name) for name in kinds]


def option_names(case: tuple[str, str]) -> list[str]:
    """Keys of the entry's own options."""
    kind, name = case
    if kind == "surgery":  # its options are of a change that is made, not of a training
        return []
    options = TASKS[name].options if kind == "task" else encoder_options(name)
    return [f"{kind}.{field.name}" for field in fields(options) if field.name != "channels"]


def chosen(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    """The cases that this session runs: with ``-k``, some of them."""
    wanted = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    return [case for case in CASES if case in wanted]
