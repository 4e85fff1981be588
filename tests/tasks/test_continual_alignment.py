"""Classes that arrive in parts, learned with CLIP's embeddings of the stream's clips at their side."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden import under

from mmcl.common.errors import UserError
from mmcl.engine.parsing import parse
from mmcl.models.bundle import read_tensors
from mmcl.models.run_checkpoints import LEARNED
from mmcl.tasks.colearn.alignment import AlignmentOptions
from mmcl.tasks.continual.options import ContinualOptions
from mmcl.train import train

RUN = [
    "--data.protocol=demo/stream_3x4", "--data.batch_size=8", "--data.workers=0", "--preprocess.window=12",
    "--augmentation.crop_floor=12", "--encoder.width=8", "--encoder.depth=3", "--task.name=continual",
    "--task.memory=2", "--task.interval=2", "--task.probe_epochs=1", "--task.alignment.weight=0.5",
    "--schedule.epochs=1", "--schedule.warmup_epochs=0", "--optimiser.rate=0.001", "--engine.trackers=[]",
    "--engine.log_every=1",
]  # fmt: skip


def test_stream_clips_are_aligned_and_probing_leaves_the_projection_as_it_is(
    demo_store, tower_folder, tmp_path
) -> None:
    out = tmp_path / "run"
    words = [f"--task.clip.model={tower_folder('tiny-clip')}", f"--data.path={demo_store}", f"--out={out}"]
    assert train(parse([*RUN, *words])) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss_stream" in line]
    assert len(steps) == 6  # three parts, each with a stage of probing behind it
    for number, step in enumerate(steps):
        assert ("loss_alignment" in step) == (number % 2 == 0)
        weighted = {"loss_stream": 1.0, "loss_logits": 0.3, "loss_labels": 0.8, "loss_alignment": 0.5}
        total = sum(weight * step[name] for name, weight in weighted.items() if name in step)
        assert step["loss"] == pytest.approx(total, rel=1e-4)
    kept = [under(read_tensors(out / "checkpoints" / f"probe{part}" / LEARNED), "alignment.") for part in range(3)]
    assert kept[0] and all(not torch.equal(kept[0][name], kept[2][name]) for name in kept[0])
    summary = json.loads((out / "summary.json").read_text())
    assert "features cached" in summary["loaded"]["CLIP"] and np.isfinite(steps[-1]["loss"])


def test_what_a_stream_cannot_align_with_is_refused() -> None:
    with pytest.raises(UserError, match="by a frozen CLIP with the skeleton's space"):
        ContinualOptions(alignment=AlignmentOptions(weight=0.1, space="clip")).check()
    ContinualOptions(alignment=AlignmentOptions(weight=0.0, space="clip")).check()
