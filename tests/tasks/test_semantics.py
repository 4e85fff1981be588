"""Alignment with class texts: the mixed loss against a loop over clips, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import beta

from mmcl.common.errors import UserError
from mmcl.tasks.colearn.options import CoLearningOptions
from mmcl.tasks.colearn.semantics import Semantics, SemanticsOptions

N, K, D = 6, 4, 8


def cross_entropy(z: list[float], rows: list[list[float]], label: int, temperature: float) -> float:
    length = math.sqrt(sum(x * x for x in z))
    cosines = [sum(a * b for a, b in zip(z, row, strict=True)) / length / temperature for row in rows]
    return math.log(sum(math.exp(c) for c in cosines)) - cosines[label]


def made() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.nn.Linear]:
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(K, D), dim=1)
    return torch.randn(N, 5), torch.tensor([0, 1, 2, 3, 1, 0]), rows, torch.nn.Linear(5, D)


@pytest.mark.parametrize("mixing", [0.5, 2.0])
def test_mixed_clips_answer_to_both_texts_in_their_shares(mixing: float) -> None:
    features, labels, rows, project = made()
    semantics = Semantics(rows, SemanticsOptions(weight=1.0, temperature=0.2, mixing=mixing)).train()
    draws = torch.rand(N, 2)
    loss = semantics(features, labels, project, draws).item()
    shares = [float(beta(mixing, mixing).ppf(float(draw))) for draw in draws[:, 1]]
    others = sorted(range(N), key=lambda clip: float(draws[clip, 0]))
    total = 0.0
    for clip in range(N):
        share, other = shares[clip], others[clip]
        mixed = [share * a + (1 - share) * b for a, b in zip(features[clip], features[other], strict=True)]
        z = project(torch.tensor([float(x) for x in mixed])).tolist()
        for part, label in ((share, labels[clip]), (1 - share, labels[other])):
            total += part * cross_entropy(z, rows.tolist(), int(label), 0.2)
    assert loss == pytest.approx(total / N, abs=1e-5)


def test_nothing_is_mixed_in_evaluation_or_without_being_asked() -> None:
    features, labels, rows, project = made()
    plain = sum(
        cross_entropy(project(row).tolist(), rows.tolist(), int(label), 0.1)
        for row, label in zip(features, labels, strict=True)
    )
    for mixing, training in ((0.0, True), (2.0, False)):
        semantics = Semantics(rows, SemanticsOptions(weight=1.0, mixing=mixing)).train(training)
        assert semantics(features, labels, project, torch.rand(N, 2)).item() == pytest.approx(plain / N, abs=1e-5)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"mixing": -1.0}, {"weight": -0.5}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    (key, value), asked = *options.items(), SemanticsOptions(**{"weight": 1.0, **options})
    with pytest.raises(UserError, match=f"task.text.{key} is {value}"):
        CoLearningOptions(text=asked).check()  # which a task calls before anything else


@pytest.mark.parametrize("centred", [False, True])
def test_a_checkpoint_keeps_nothing_of_the_texts_here_since_the_text_head_has_their_mean(centred: bool) -> None:
    _, _, rows, _ = made()
    assert not Semantics(rows, SemanticsOptions(weight=1.0, centred=centred)).state_dict()
