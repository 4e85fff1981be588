"""Continual learning: what each method keeps and pays, by default and as the released code has it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_tasks import context_of

from mmcl.common.draws import clip_keys, step_key
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.continual.options import ContinualOptions
from mmcl.tasks.continual.task import Continual

STTFORMER = {"layers": [[8, 4], [8, 4]], "width": 8, "persons": 1, "heads": 2}


def made_continual(monkeypatch, name="tcn", **options):
    """A task of two parts of two classes, clips 0 and 1, then 2 and 3, and what makes a batch of clips of its store."""
    torch.manual_seed(0)
    small = STTFORMER if name == "sttformer" else {"width": 8, "members": 1, "persons": 1}
    encoder = build_encoder(name, load_layout("kinect_v1_20"), 4, small)
    context = replace(context_of(encoder, 16, [0, 1, 2, 3]), stream=(np.array([0, 1]), np.array([2, 3])))
    task = Continual(context, ContinualOptions(**options)).eval()
    joints, lengths = torch.randn(4, 1, 40, 20, 3).cumsum(dim=2), torch.tensor([40, 33, 21, 40])

    def batch(clips: torch.Tensor, epoch: int = 0) -> dict:
        return {"joints": joints[clips], "lengths": lengths[clips], "clips": clips, "labels": clips, "epoch": epoch,
                "stage": "part0", "step": epoch, "micro": 0, "micros": 1, "step_key": step_key(0, epoch),
                "keys": torch.from_numpy(clip_keys(task.seed, epoch, clips.numpy()))}  # fmt: skip

    monkeypatch.setattr(task, "recall", batch)
    return task, batch


@pytest.mark.parametrize("method", ["der", "der++", "charon"])
@pytest.mark.parametrize("released", [True, False])
def test_charon_alone_refreshes_logits_of_clips_of_earlier_parts(monkeypatch, method, released) -> None:
    """Clips 0 and 1 were stored after the first part with logits of 7; clips 2 and 3 are taken in the second."""
    task, batch = made_continual(monkeypatch, method=method, released=released, memory=6, interval=2, probe_epochs=1)
    assert task.memory is not None
    task.memory.offer(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.full((2, 4), 7.0), torch.rand(2))
    joints, lengths = (batch(torch.arange(4))[key] for key in ("joints", "lengths"))
    part = task.stages()[-1]
    step = [batch(torch.tensor([2, 3])) | {"stage": part.name}]
    task.after_step(part, step, [{"scores": torch.full((2, 4), 5.0)}])
    task.end(part, lambda function, clips: function(joints[clips], lengths[clips]).detach().numpy())
    assert task.memory.clips[:4].sort().values.tolist() == [0, 1, 2, 3] and len(task.memory) == 4
    kept = task.memory.logits[:2].eq(7.0).all(), task.memory.logits[2:4].eq(5.0).all()
    assert kept == (method != "charon", method != "charon" and released)
    if method != "charon" and not released:
        own = task.memory.clips[2:4]
        torch.testing.assert_close(task.memory.logits[2:4], task._memory_scores(joints[own], lengths[own]).detach())


@pytest.mark.parametrize(("released", "ratio", "gamma", "reconstructs"), [
    (False, 0.3, 0.5, True), (False, 0.0, 0.5, False), (False, 0.3, 0.0, True), (True, 0.3, 0.5, True),
    (True, 0.0, 0.5, True), (True, 0.0, 0.0, False),
])  # fmt: skip
def test_released_reconstructs_where_nothing_is_masked(monkeypatch, released, ratio, gamma, reconstructs) -> None:
    task, batch = made_continual(monkeypatch, "sttformer", released=released, ratio=ratio, gamma=gamma)
    assert (task.decoder is not None) == reconstructs
    loss = task(batch(torch.tensor([0, 1])))["loss"]
    loss.backward()
    assert all(parameter.grad is not None for parameter in task.parameters())
    if task.decoder is not None:
        assert bool(task.decoder.coordinates.weight.grad.any()) == (gamma > 0)


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("beta", [0.8, 2.0])
def test_released_replay_of_labels_is_one_mean_over_stream_and_memory(monkeypatch, released, beta) -> None:
    """Two clips of the stream and one of the memory: by default their means are added, the memory's times beta."""
    task, batch = made_continual(monkeypatch, method="er", released=released, beta=beta, memory_batch=1)
    assert task.memory is not None
    task.memory.offer(torch.tensor([0]), torch.tensor([0]), torch.zeros(1, 4), torch.rand(1))
    rows: list[torch.Tensor] = []
    features = task.encoder.features
    monkeypatch.setattr(task.encoder, "features", lambda x: rows.append(x) or features(x))
    found = task(batch(torch.tensor([2, 3])))
    assert [len(x) for x in rows] == [3]
    scores, labels = task.encoder(rows[0]), torch.tensor([2, 3, 0])
    if released:
        expected = F.cross_entropy(scores, labels)
    else:
        expected = F.cross_entropy(scores[:2], labels[:2]) + beta * F.cross_entropy(scores[2:], labels[2:])
    torch.testing.assert_close(found["loss"], expected)


@pytest.mark.parametrize("released", [True, False])
def test_released_offers_every_clip_once_in_a_probing_epoch_whatever_the_batch(monkeypatch, released) -> None:
    """Two probing epochs over clips 2 and 3 by batches of one, of which the last of each is left out."""
    task, batch = made_continual(monkeypatch, released=released, memory=20, probe_epochs=2)
    assert task.memory is not None
    joints, lengths = (batch(torch.arange(4))[key] for key in ("joints", "lengths"))
    part = task.stages()[-1]
    for epoch, clip in enumerate((2, 2)):
        step = [batch(torch.tensor([clip]), epoch) | {"stage": part.name}]
        task.after_step(part, step, [{"scores": torch.zeros(1, 4)}])
    task.end(part, lambda function, clips: function(joints[clips], lengths[clips]).detach().numpy())
    held = task.memory.clips[: len(task.memory)].tolist()
    assert sorted(held) == ([2, 2, 3, 3] if released else [2, 3])
