"""The task long_tail: what is mixed and by how much, whose parts are pasted, and what saliencies find."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_tasks import context_of
from torch import Tensor

from mmcl.common.draws import clip_keys, step_key
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.long_tail import part_mix
from mmcl.tasks.long_tail.mixing import WholeBatch
from mmcl.tasks.long_tail.options import LongTailOptions
from mmcl.tasks.long_tail.part_mix import Window, spread
from mmcl.tasks.long_tail.task import LongTail

LABELS = [0, 0, 0, 0, 1, 1, 2]
WINDOW = 16


def made_task(labels: list[int] | None = None, persons: int = 1, **options) -> LongTail:
    torch.manual_seed(0)
    labels = labels or LABELS
    layout = load_layout("kinect_v1_20")
    encoder = build_encoder("ctrgcn", layout, len(set(labels)), {"width": 8, "depth": 3, "persons": persons})
    return LongTail(context_of(encoder, WINDOW, labels, {"centring": "none"}), LongTailOptions(**options))


def made_batch(task: LongTail, joints: Tensor, labels: list[int], epoch: int = 0, step: int = 0) -> dict:
    clips = range(len(joints))
    return {
        "joints": joints, "lengths": torch.full((len(joints),), joints.shape[2]), "labels": torch.tensor(labels),
        "keys": torch.from_numpy(clip_keys(0, epoch, clips)), "step_key": step_key(0, step), "epoch": epoch,
        "step": step, "micro": 0, "augment": False, "clips": torch.tensor(clips),
    }  # fmt: skip


def bodies(clips: int, persons: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(clips, persons, WINDOW, 20, 3, generator=generator)


def test_without_mixing_and_balance_it_is_cross_entropy():
    task = made_task(loss="cross_entropy", mixing="none").eval()
    batch = made_batch(task, bodies(7), LABELS)
    outputs = task(batch)
    expected = F.cross_entropy(task.encoder(task.preprocess(batch["joints"], batch["lengths"])), batch["labels"])
    torch.testing.assert_close(outputs["loss"], expected)
    assert "loss_mixed" not in outputs


def test_balanced_softmax_multiplies_chances_by_the_true_counts():
    task = made_task(mixing="none").eval()
    batch = made_batch(task, bodies(7), LABELS)
    outputs = task(batch)
    counts = torch.tensor([4.0, 2.0, 1.0])
    weighted = counts * outputs["scores"].exp()
    expected = -(weighted / weighted.sum(1, keepdim=True)).log()[torch.arange(7), batch["labels"]].mean()
    torch.testing.assert_close(outputs["loss"], expected)


@pytest.mark.parametrize("released", [True, False])
def test_nobody_comes_or_goes_by_mixing_and_shares_count_what_was_pasted(released):
    x = bodies(4, persons=2)
    x[1, 1] = 0  # nobody in the second slot of clips 1 and 2
    x[2, 1] = 0
    labels = torch.tensor([0, 1, 2, 0])
    partner = torch.tensor([1, 2, 3, 0])
    joints = torch.zeros(20, dtype=torch.bool)
    joints[4:12] = True
    window = Window(4, 8, 0, 12)
    mixed = WholeBatch(x, labels).parts(partner, joints, window, released)
    changed = (mixed.x != x).any(dim=-1)  # (N, M, T, V)
    there = (x != 0).flatten(2).any(dim=2)
    if released:
        assert (mixed.x[2, 1] != 0).any() and (mixed.x[0, 1, 4:12, 4:12] == 0).all()
        expected = torch.full((4,), 8 * 8 / (WINDOW * 20))
    else:
        assert torch.equal((mixed.x != 0).flatten(2).any(dim=2), there)
        assert not changed[~there].any()
        expected = changed.sum(dim=(1, 2, 3)) / (there.sum(dim=1) * WINDOW * 20)
    torch.testing.assert_close(mixed.share, expected)
    assert torch.equal(mixed.other, labels[partner])
    assert not changed[:, :, :4].any() and not changed[:, :, 12:].any() and not changed[..., ~joints].any()


def test_what_is_padded_stays_empty_and_nothing_is_taken_from_it():
    x = bodies(3)
    x[0, :, 10:] = 0  # a clip of 10 frames, one of 6, one that fills the window
    x[1, :, 6:] = 0
    labels, partner, joints = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0]), torch.arange(20) < 5
    there = (x != 0).any(dim=-1)
    mixed = WholeBatch(x, labels).parts(partner, joints, Window(4, 8, 0, 16), released=False)
    assert torch.equal((mixed.x != 0).any(dim=-1), there)
    for row, frames in enumerate(([4, 5, 6], [4, 5], [4, 5, 6, 7, 8])):  # 4 + j shows frame 2 j of the partner
        changed = (mixed.x[row, 0] != x[row, 0]).any(dim=-1)
        assert changed.any(dim=1).nonzero().flatten().tolist() == frames and changed[frames].sum() == 5 * len(frames)
        torch.testing.assert_close(mixed.share[row], changed.sum() / there[row].sum())
    whole = WholeBatch(x, labels).whole(partner, 0.3, released=False)
    torch.testing.assert_close(whole.share, 0.3 * torch.tensor([6 / 10, 6 / 6, 10 / 16]))
    torch.testing.assert_close(whole.x[2, 0, :10], 0.7 * x[2, 0, :10] + 0.3 * x[0, 0, :10])
    assert torch.equal(whole.x[2, 0, 10:], x[2, 0, 10:]) and not whole.x[1, 0, 6:].any()


def test_mixup_adds_bodies_that_both_have():
    x, partner = bodies(3, persons=2), torch.tensor([1, 2, 0])
    x[1, 1] = 0
    mixed = WholeBatch(x, torch.tensor([0, 1, 2])).whole(partner, 0.3, released=False)
    torch.testing.assert_close(mixed.x[0, 0], 0.7 * x[0, 0] + 0.3 * x[1, 0])
    torch.testing.assert_close(mixed.x[0, 1], x[0, 1])
    torch.testing.assert_close(mixed.share, torch.tensor([0.15, 0.3, 0.3]))


def test_the_rarer_class_keeps_what_it_is_recognised_by():
    task = made_task(warmup_epochs=0)
    arms = next(number for number, some in enumerate(task.coalitions.names) if len(some) == 2)
    task.saliency.values[:, arms] = 5.0  # all classes are told by this coalition alone
    own = task.coalitions.joints[arms]
    x = bodies(7)
    for step in range(30):
        batch = made_batch(task, x, LABELS, epoch=1, step=step)
        mixed = task.mixed(batch, x)
        assert mixed is not None
        changed = (mixed.x != x).any(dim=-1).flatten(1, 2).any(dim=1)  # (N, V)
        whole = changed.all(dim=1)
        for row in range(7):
            if whole[row] or not changed[row].any():
                continue  # mixup
            more_frequent = task.counts[LABELS[row]] > task.counts[int(mixed.other[row])]
            assert not changed[row][~own if more_frequent else own].any()


def test_the_background_is_the_mean_of_joints_that_are_there():
    task = made_task()
    joints = bodies(7, seed=3)
    joints[2, :, :, 5] = 0  # a joint that is missing in one clip
    joints[4] = 0  # and a clip with nobody
    lengths = torch.full((7,), WINDOW)

    def apply(function, clips):
        return function(joints[clips], lengths[clips]).numpy()

    task.begin(SimpleNamespace(), apply)
    x = task.preprocess(joints, lengths).double().numpy()
    expected = np.zeros(x.shape[1:])
    for t in range(WINDOW):
        for v in range(20):
            seen = [clip for clip in range(7) if clip != 4 and not (v == 5 and clip == 2)]
            expected[0, t, v] = np.mean([x[clip, 0, t, v] for clip in seen], axis=0)
    np.testing.assert_allclose(task.background, expected, atol=1e-6)


def test_saliencies_find_the_part_that_was_planted():
    """A network that looks at the right arm alone: coalitions with it gain all, those without nothing."""
    layout = load_layout("kinect_v1_20")
    task = made_task()
    arm = list(layout.parts).index("right_arm")
    joints = torch.zeros(20, dtype=torch.bool)
    joints[list(layout.parts["right_arm"])] = True

    class Looks(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen = x[:, 0, :, joints].mean(dim=(1, 2, 3))
            return torch.stack([seen * 20, -seen * 20, torch.full_like(seen, -20)], dim=1)

    task.encoder = Looks()
    generator = torch.Generator().manual_seed(1)
    for step in range(400):
        labels = torch.randint(0, 2, (8,), generator=generator).tolist()
        x = torch.stack([torch.full((1, WINDOW, 20, 3), 1.0 - 2 * label) for label in labels])
        batch = made_batch(task, x, labels, step=step)
        task.after_step(SimpleNamespace(), [batch], [{"x": x, "looked_at": torch.arange(8)}])
    has = torch.tensor([arm in some for some in task.coalitions.names])
    values = task.saliency.values[:2]
    assert values[:, has].min() > 0.1 and values[:, ~has].abs().max() < 1e-3
    chances = F.softmax(values.double() / 0.2, dim=1)
    assert (chances[:, has].sum(dim=1) > 0.9).all(), chances


@pytest.mark.parametrize(("share", "count"), [(0.25, 5), (0.4, 8), (0.9, 18), (1.0, 20), (0.3, 6)])
def test_saliencies_come_from_the_share_that_is_asked_for_however_many_processes_there_are(share, count, monkeypatch):
    assert len(spread(20, share)) == count
    parts = []
    for process in range(2):
        monkeypatch.setattr(part_mix, "rank", lambda process=process: process)
        parts += (spread(10, share) + 10 * process).tolist()
    monkeypatch.setattr(part_mix, "rank", lambda: 0)
    assert parts == spread(20, share).tolist()


def test_released_looks_at_all_clips():
    for released, count in ((False, 2), (True, 7)):
        task = made_task(mixing="shap_mix", released=released)
        given = task(made_batch(task, bodies(7), LABELS))
        assert len(given["x"]) == len(given["looked_at"]) == count


def test_mistakes_are_named():
    with pytest.raises(UserError, match="task.saliency_clips is 0"):
        made_task(saliency_clips=0)
    with pytest.raises(UserError, match="task.window is .*the smaller one first"):
        made_task(window=(0.5, 0.4))
    encoder = build_encoder("ctrgcn", load_layout("kinect_v1_20"), 3, {"width": 8, "depth": 3, "persons": 1})
    with pytest.raises(UserError, match="needs at least 8 frames"):
        LongTail(context_of(encoder, 4, LABELS), LongTailOptions())
    bare = build_encoder("tcn", replace(load_layout("kinect_v1_20"), parts={}), 3, {"width": 8, "persons": 1})
    with pytest.raises(UserError, match="shap_mix mixes body parts, and layout 'kinect_v1_20' names 0 of the 4.*mixup"):
        LongTail(context_of(bare, 16, LABELS), LongTailOptions())


def test_validation_counts_classes_alike():
    task = made_task()
    scores = np.eye(3)[[0, 0, 0, 1, 0]]
    values = task.validation(lambda function, clips: scores, np.arange(5), np.array([0, 0, 0, 1, 1]))
    assert values == pytest.approx({"balanced": 0.75, "top1": 0.8}) and list(values)[0] == "balanced"
