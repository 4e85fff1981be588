"""Contrastive losses and refinement against double loops and closed forms."""

import math

import pytest
import torch

from mmcl.tasks.colearn.refinement import Refinement, RefinementOptions
from mmcl.tasks.losses import SigLIP, info_nce, nt_xent

N, D = 7, 12
LABELS = torch.tensor([0, 1, 0, 2, 1, 3, 0])


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, D, generator=generator), torch.randn(N, D, generator=generator)


def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    x, y = x.double(), y.double()
    return float((x * y).sum() / (x.norm() * y.norm()))


def looped_nt_xent(a, b, tau, labels=None, within=True) -> float:
    """The specification's formula, term by term, in double precision."""
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(len(x)):
            positive = math.exp(cosine(x[i], y[i]) / tau)
            negatives = 0.0
            for k in range(len(x)):
                if k == i or (labels is not None and labels[k] == labels[i]):
                    continue
                negatives += math.exp(cosine(x[i], y[k]) / tau)
                if within:
                    negatives += math.exp(cosine(x[i], x[k]) / tau)
            total += -math.log(positive / (positive + negatives))
    return total / (2 * len(a))


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("tau", [0.1, 0.4])
def test_nt_xent_equals_the_double_loop(pair, tau, labels) -> None:
    assert float(nt_xent(*pair, tau, labels)) == pytest.approx(looped_nt_xent(*pair, tau, labels), abs=1e-6)


@pytest.mark.parametrize("labels", [None, LABELS])
def test_info_nce_equals_the_double_loop(pair, labels) -> None:
    expected = looped_nt_xent(*pair, 0.07, labels, within=False)
    assert float(info_nce(*pair, 0.07, labels)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n", [2, 5, 16])
def test_nt_xent_of_aligned_orthogonal_features_has_its_closed_form(n) -> None:
    eye = torch.eye(n, 20)
    expected = math.log(1 + 2 * (n - 1) * math.exp(-1 / 0.4))
    assert float(nt_xent(3 * eye, 0.5 * eye, 0.4)) == pytest.approx(expected, abs=1e-6)


def test_nt_xent_survives_where_the_released_form_overflows() -> None:
    x = torch.randn(4, 8)
    assert torch.isfinite(nt_xent(x, -x, 0.005))


@pytest.mark.parametrize("labels", [None, LABELS])
def test_siglip_equals_the_double_loop(pair, labels) -> None:
    a, b = pair
    total = 0.0
    for i in range(N):
        for k in range(N):
            if labels is not None and i != k and labels[i] == labels[k]:
                continue
            z = 1.0 if i == k else -1.0
            total += math.log(1 + math.exp(-z * (10.0 * cosine(a[i], b[k]) - 10.0)))
    assert float(SigLIP()(a, b, labels).detach()) == pytest.approx(total / N, abs=1e-5)


def test_refinement_starts_as_the_identity_with_exactly_zero_gate_gradients() -> None:
    torch.manual_seed(0)
    refine = Refinement(16, 5, RefinementOptions(instructions=3, gates=4))
    scores, texts = torch.randn(6, 5, requires_grad=True), [torch.randn(6, 16, requires_grad=True) for _ in range(3)]
    refined = refine(texts, scores)
    torch.testing.assert_close(refined, scores)
    torch.nn.functional.cross_entropy(refined, torch.tensor([0, 1, 2, 3, 4, 0])).backward()
    assert scores.grad.abs().sum() > 0 and refine.class_vectors.grad.abs().sum() > 0
    assert all(parameter.grad.abs().max() < 1e-8 for parameter in refine.gate.parameters())
    assert all(text.grad.abs().max() < 1e-8 for text in texts)


def test_refinement_equals_the_released_form() -> None:
    """(p w+ + n w-) * S with a two-way softmax (p, n) of the gate's output, written out clip by clip."""
    torch.manual_seed(0)
    refine = Refinement(16, 5, RefinementOptions(instructions=1, gates=2))
    with torch.no_grad():
        refine.class_vectors.normal_(1.0, 0.5)
    text, scores = torch.randn(6, 16), torch.randn(6, 5)
    positive, negative = refine.class_vectors[0]
    refined = refine([text], scores)
    for i in range(6):
        p, n = torch.softmax(refine.gate[0](text[i]), dim=-1)
        torch.testing.assert_close(refined[i], p * positive * scores[i] + n * negative * scores[i])
