"""Open vocabulary from training to report: a tiny run on some of the demo's classes, judged on the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmcl.data.protocols import load_protocol
from mmcl.data.splitting import split
from mmcl.data.store import ClipStore, open_store
from mmcl.errors import UserError
from mmcl.evaluation.model import find_model, load_judged
from mmcl.prompts import load_prompts
from mmcl.towers.clip import ClipOptions, ClipTower
from mmcl.zero_shot import main

WITHHELD, PSEUDO = [2, 7], [0, 4]
SMALL = [
    "--data.batch_size=8", "--data.workers=0", "--preprocess.window=16", "--augmentation.crop_floor=16",
    "--encoder.width=8", "--encoder.depth=3", "--schedule.epochs=1", "--schedule.warmup_epochs=0",
    "--engine.trackers=[]", "--task.name=colearn", "--task.alignment.weight=0", "--task.refinement.weight=0",
    "--task.text.weight=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def clip(tower_folder) -> str:
    return str(tower_folder("tiny-clip"))


@pytest.fixture(scope="module")
def train(demo_store, clip, tmp_path_factory):
    """Train on the demo without some classes; returns a function protocol suffix, more words -> run folder."""
    folder = tmp_path_factory.mktemp("open")
    rule = {"dataset": "demo", "base": "demo/cross_subject", "unseen": WITHHELD, "pseudo_unseen": PSEUDO}
    subjects = sorted(set(open_store(demo_store).subjects.tolist()))
    own = folder / "own.yaml"
    own.write_text(json.dumps({"open": {**rule, "calibrate": {"subject": subjects}}}), encoding="utf-8")

    def run(name: str, *more: str) -> Path:
        words = [*SMALL, f"--data.path={demo_store}", f"--task.clip.model={clip}", f"--out={folder / name}", *more]
        command = [sys.executable, "-m", "mmcl", "train", f"--data.protocol={own}", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return folder / name

    return run


@pytest.fixture(scope="module")
def run(train) -> Path:
    return train("run")


def naive_scores(run: Path, store: ClipStore, clips: np.ndarray, clip: str, classes: list[int]) -> np.ndarray:
    """Cosines of every clip with the classes' texts, one clip at a time, in NumPy from the saved tensors."""
    tensors = {key: value.numpy() for key, value in load_file(run / "checkpoints/last/learned.safetensors").items()}
    model, prompts = load_judged(find_model(run), store.layout).model, load_prompts("demo")
    tower = ClipTower(ClipOptions(model=clip), text=True)
    rows = np.stack([tower.encode_text(prompts.texts(k)).numpy().mean(0) for k in classes])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    for number in clips:
        with torch.no_grad():
            x = model.encoder.features(model.preprocess(torch.tensor(store.joints(int(number)))[None])).numpy()[0]
        hidden = np.maximum(tensors["joint.0.weight"] @ x + tensors["joint.0.bias"], 0)
        z = tensors["joint.2.weight"] @ hidden + tensors["joint.2.bias"]
        found.append(rows @ z / np.linalg.norm(z))
    return np.stack(found)


def test_unseen_classes_are_never_trained_and_judged_by_text_alone(run, demo_store, clip, capsys) -> None:
    store = open_store(demo_store)
    assert main(["--checkpoint", str(run)]) == 0
    report = json.loads((run / "report-open/report.json").read_text())
    saved = np.load(run / "report-open/scores.npz")
    assert list(load_judged(find_model(run), store.layout).model.class_names) == [
        name for label, name in enumerate(store.class_names) if label not in WITHHELD
    ]
    clips = np.array([store.ids.index(name) for name in saved["ids"]])
    assert set(store.labels[clips].tolist()) == set(WITHHELD)
    assert report["n"] == len(clips) == np.isin(store.labels[clips], WITHHELD).sum()
    cosines = naive_scores(run, store, clips, clip, WITHHELD)
    np.testing.assert_allclose(saved["scores"] * 0.1, cosines, atol=2e-5)
    right = np.array(WITHHELD)[cosines.argmax(1)] == store.labels[clips]
    assert report["top1"] == pytest.approx(right.mean())
    assert "harmonic mean" in capsys.readouterr().out
    assert report["trained_classes"] == [n for k, n in enumerate(store.class_names) if k not in WITHHELD]


def test_classes_by_name_in_any_order(run, demo_store, tmp_path, capsys) -> None:
    names = ["squat", "wave a hand", "swim"]
    for number, order in enumerate((names, names[::-1])):
        words = ["--data", str(demo_store), "--classes", ",".join(order), "--out", str(tmp_path / str(number))]
        assert main(["--checkpoint", str(run), *words]) == 0
    a, b = (json.loads((tmp_path / f"{number}/report.json").read_text()) for number in (0, 1))
    assert a["correct"] == b["correct"] and a["n"] == b["n"]
    scores = [np.load(tmp_path / f"{number}/scores.npz")["scores"] for number in (0, 1)]
    np.testing.assert_allclose(scores[0], scores[1][:, ::-1], atol=1e-5)
    store = open_store(demo_store)
    withheld = {store.class_names[label] for label in WITHHELD}
    assert a["trained_classes"] == [name for name in names[:2] if name not in withheld]
    test = {store.ids[clip] for clip in split(store, load_protocol("demo/cross_subject")).test}
    assert set(np.load(tmp_path / "0/scores.npz")["ids"].tolist()) <= test and "test side" in a["clips"]


def test_gate_run_must_be_the_protocols_own(run, train, demo_store) -> None:
    gate = train("gate", f"--data.protocol={run.parent / 'own.yaml'}:open")
    with pytest.raises(UserError, match="is no run of"):
        main(["--checkpoint", str(run), "--gate", str(gate)])


def test_models_that_know_no_text_or_saw_the_classes_are_refused(run, train, demo_store) -> None:
    plain = train("plain", "--data.protocol=demo/cross_subject")
    with pytest.raises(UserError, match="not the seen ones"):
        main(["--checkpoint", str(plain), "--protocol", f"{run.parent / 'own.yaml'}"])
    with pytest.raises(UserError, match="no clip of"):
        main(["--checkpoint", str(plain), "--data", str(demo_store), "--classes", "ski,swim"])
    alone = train("alone", "--data.protocol=demo/cross_subject", "--task.text.weight=0")
    with pytest.raises(UserError, match="no projection into a space of texts"):
        main(["--checkpoint", str(alone), "--data", str(demo_store), "--classes", "squat,bow"])


def test_shuffled_texts_are_another_classes(demo_store) -> None:
    prompts = load_prompts("demo")
    for seed in range(3):
        mixed = prompts.shuffled(seed)
        assert sorted(mixed.names) == sorted(prompts.names)
        assert all(a != b for a, b in zip(mixed.names, prompts.names, strict=True))
        assert [mixed.descriptions[mixed.names.index(name)] for name in prompts.names] == list(prompts.descriptions)
