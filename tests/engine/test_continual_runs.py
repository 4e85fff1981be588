"""Continual learning as runs: what probing moves, what the memory holds, and a kill in the middle of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from running import ENVIRONMENT, arguments, launch, records, train, weights

from mmcl.data.store import open_store
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.tasks.continual.replay import compress, inflate

CHARON = [
    "--task.name=continual", "--data.protocol=demo/stream_3x4", "--task.memory=5", "--task.interval=2",
    "--encoder.name=sttformer", "--encoder.layers=[[8,4],[8,4]]", "--encoder.width=8", "--encoder.tuple_frames=4",
    "--data.batch_size=4", "--schedule.epochs=1", "--schedule.warmup_epochs=0", "--engine.checkpoint_steps=1",
    "--optimiser.rate=0.002", "--optimiser.momentum=0",
]  # fmt: skip


def words(store: Path, out: Path, *more: str) -> list[str]:
    """Of a small STTFormer, in place of CTR-GCN's depth."""
    return [word for word in arguments(store, out, *CHARON, *more) if not word.startswith("--encoder.depth")]


@pytest.fixture(scope="module")
def straight(demo_store, tmp_path_factory) -> Path:
    """Three parts of four classes, two clips each; two steps a part and two of probing."""
    out = tmp_path_factory.mktemp("straight") / "run"
    train(*words(demo_store, out, "--task.probe_epochs=1"))
    return out


def test_probing_moves_the_classifier_alone(demo_store, straight, tmp_path):
    out = tmp_path / "unprobed"
    train(*words(demo_store, out, "--task.probe_epochs=0"))
    before, after = weights(out, "part0"), weights(straight, "probe0")
    encoder = {name for name in before if name.startswith(("encoder.", "decoder."))}
    changed = {name for name in encoder if not torch.equal(before[name], after[name])}
    assert changed == {"encoder.classifier.weight", "encoder.classifier.bias"}
    for line in records(straight):
        moved = {key.partition("/")[2] for key in line if key.startswith("gradient_norm/")}
        assert moved == ({"head"} if line["stage"].startswith("probe") else {"encoder", "head", "decoder"})
        assert ("loss_logits" in line) == ("loss_labels" in line) == (line["stage"] not in ("part0", "probe0"))


def test_the_memory_holds_clips_of_all_parts_with_fresh_logits(demo_store, straight):
    store, learned = open_store(demo_store), weights(straight)
    clips, labels = learned["memory.clips"].numpy(), learned["memory.labels"].numpy()
    assert len(np.unique(clips)) == 10 == len(clips) and int(learned["memory.seen"]) == 24
    np.testing.assert_array_equal(store.labels[clips], labels)
    assert learned["arrived"].all() and not weights(straight, "probe0")["arrived"][4:].any()
    first = weights(straight, "probe0")
    held = first["memory.clips"][: int(first["memory.seen"])]
    assert set(store.labels[held.numpy()]) <= {0, 1, 2, 3}
    layout = load_layout(store.layout.name)
    options = {"width": 8, "layers": ((8, 4), (8, 4)), "tuple_frames": 4, "frames": 16}
    known = {key: value for key, value in options.items() if key != "frames"}
    encoder = build_encoder("sttformer", layout, 12, known).eval()
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in learned.items() if k.startswith("encoder.")})
    preprocess = Preprocess(layout, layout, encoder.options.persons, PreprocessOptions(window=16, crop=1.0))
    with torch.no_grad():
        for place, clip in enumerate(clips[:4]):
            joints = torch.from_numpy(store.joints(int(clip)).copy())[None]
            x = preprocess(joints)
            scores = encoder(inflate(compress(x, 2), 16, 2))
            torch.testing.assert_close(scores[0], learned["memory.logits"][place], rtol=1e-4, atol=1e-5)


def test_kill_9_in_probing_then_resume_is_bit_identical(demo_store, straight, tmp_path):
    out = tmp_path / "run"
    process, deadline = launch(*words(demo_store, out, "--task.probe_epochs=1")), time.monotonic() + 200
    position = out / "checkpoints" / "last" / "position.json"

    def stage() -> int:
        try:
            return int(json.loads(position.read_text())["stage"])
        except (OSError, ValueError):
            return -1

    while process.poll() is None and time.monotonic() < deadline and stage() < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=100)
    assert stage() >= 3 and not (out / "summary.json").exists()
    train(*words(demo_store, out, "--task.probe_epochs=1"), "--resume=true")
    expected, found = weights(straight), weights(out)
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


DIES = """
import os, signal, sys
from mmcl.tasks.continual.task import Continual
from mmcl.train import main
refresh = Continual._fresh_logits
def die_in_the_second(task, held, stage, apply):
    if stage.name.endswith("1"):
        task.memory.logits[:2] = refresh(task, held, stage, apply)[:2]  # some are written, the others are not
        os.kill(os.getpid(), signal.SIGKILL)
    return refresh(task, held, stage, apply)
Continual._fresh_logits = die_in_the_second
main(sys.argv[1:])
"""


def test_kill_9_in_the_refresh_of_logits_then_resume_is_bit_identical(demo_store, straight, tmp_path):
    out = tmp_path / "run"
    dying = [sys.executable, "-c", DIES, *words(demo_store, out, "--task.probe_epochs=1")]
    assert subprocess.run(dying, env=ENVIRONMENT, capture_output=True, timeout=200).returncode == -signal.SIGKILL
    assert (out / "checkpoints" / "probe0").exists() and not (out / "checkpoints" / "probe1").exists()
    train(*words(demo_store, out, "--task.probe_epochs=1"), "--resume=true")
    expected, found = weights(straight), weights(out)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_another_protocol_is_refused_with_the_remedy(demo_store, tmp_path):
    lines = train(*words(demo_store, tmp_path / "run", "--data.protocol=demo/cross_subject"), status=2)
    assert "needs a protocol whose classes arrive in parts" in lines
