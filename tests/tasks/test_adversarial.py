"""Attacks in the loop of training: which clips, with what budget, and what they leave untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmcl.common.draws import clip_keys
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.tasks.adversarial import AdversarialOptions, attacked, build_adversary
from mmcl.tasks.context import Context
from mmcl.tasks.supervised import Supervised, SupervisedOptions

CPU = torch.device("cpu")


def made_task(**options: Any) -> Supervised:
    torch.manual_seed(0)
    layout = load_layout("utd_mhad_20")
    encoder = build_encoder("ctrgcn", layout, 4, {"width": 8, "depth": 3, "persons": 1})
    nothing = np.arange(0)
    preprocess = Preprocess(layout, layout, 1, PreprocessOptions(window=8))
    context = Context(encoder, preprocess, Augmentation(), None, nothing, nothing, np.arange(4), dict, dict, CPU)
    adversarial = AdversarialOptions("ifgsm", {"epsilon": 0.05, "steps": 2}, **options)
    return Supervised(context, SupervisedOptions(adversarial=adversarial)).train()


@pytest.fixture
def batch() -> dict[str, Any]:
    joints = torch.randn(12, 1, 10, 20, 3, generator=torch.Generator().manual_seed(1))
    joints[2, 0, 7:] = 0.0
    return {"joints": joints, "lengths": torch.full((12,), 10), "labels": torch.arange(12) % 4, "augment": True,
            "keys": torch.from_numpy(clip_keys(0, 0, range(12))), "epoch": 0}  # fmt: skip


def test_a_share_of_the_clips_moves_within_the_budget_and_uphill(batch: dict[str, Any]) -> None:
    task = made_task(share=0.5)
    before = {key: tensor.clone() for key, tensor in task.state_dict().items()}
    found = attacked(task, task.adversary, 0.5, batch)
    moved = (found["joints"] - batch["joints"]).abs()
    hit = moved.flatten(1).amax(dim=1) > 0
    assert 2 <= int(hit.sum()) <= 10 and moved.max() <= 0.05 * 1.0001 and not moved[2, 0, 7:].any()
    assert torch.equal(hit, task.noise(batch, "attacked").uniform() < 0.5)
    assert all(torch.equal(before[key], tensor) for key, tensor in task.state_dict().items())  # batch norms, too
    assert task.encoder.training and all(parameter.grad is None for parameter in task.parameters())
    task.eval()

    def loss(joints: torch.Tensor) -> torch.Tensor:
        scores = task.encoder(task.augmented({**batch, "joints": joints}))
        return torch.nn.functional.cross_entropy(scores, batch["labels"], reduction="none")

    gain = (loss(found["joints"]) - loss(batch["joints"]))[hit]  # a clip that is beyond all doubt keeps its loss of 0
    assert bool((gain >= 0).all()) and int((gain > 0).sum()) > len(gain) / 2


def test_clips_are_attacked_alike_in_any_batch(batch: dict[str, Any]) -> None:
    task = made_task()
    whole = attacked(task, task.adversary, 0.5, batch)["joints"]
    part = {key: value[4:] if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    torch.testing.assert_close(attacked(task, task.adversary, 0.5, part)["joints"], whole[4:])


def test_the_loss_is_that_of_the_attacked_batch_and_evaluation_is_not_attacked(batch: dict[str, Any]) -> None:
    task = made_task(share=1.0)
    expected = attacked(task, task.adversary, 1.0, batch)
    found = task(batch)
    task.adversary = None
    plain, own = task(batch)["loss"], task(expected)["loss"]
    torch.testing.assert_close(found["loss"], own)
    assert found["loss"] > plain


@pytest.mark.parametrize(
    ("options", "words"),
    [({"attack": "tasar"}, "fitted"), ({"attack": "basar"}, "fitted"), ({"attack": "zzz"}, "unknown attack"),
     ({"attack": "ifgsm", "share": 0.0}, "share"), ({"attack": "ifgsm", "options": {"steps": 0}}, "steps")],
)  # fmt: skip
def test_what_cannot_be_in_the_loop_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_adversary(AdversarialOptions(**options))
