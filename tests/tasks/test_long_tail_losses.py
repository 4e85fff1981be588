"""Balanced softmax with plain and mixed labels: losses and gradients equal the released ones, and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import load_arrays

from mmcl.tasks.long_tail.losses import balanced_cross_entropy, log_prior, soft_labels


def test_losses_and_gradients_equal_the_released_ones():
    arrays = {key: torch.from_numpy(array) for key, array in load_arrays("shap_mix", "loss").items()}
    prior = log_prior(arrays["class_counts"])
    torch.testing.assert_close(prior[None], arrays["log_prior"])
    kinds = [key.partition("/")[0] for key in arrays if key.endswith("/lambda")]
    assert kinds
    for kind in kinds:
        compare_losses(arrays, prior, kind)


def compare_losses(arrays, prior, kind):
    """Losses and gradients with one share of the mixture for all clips, or one for each."""
    scores, mixed = (arrays[key].clone().requires_grad_() for key in ("logits", "logits_mixed"))
    share = arrays[f"{kind}/lambda"]
    share = share.flatten() if share.dim() else share
    soft = soft_labels(arrays["labels"], arrays["labels"][arrays["partner"]], share, len(prior))
    torch.testing.assert_close(soft, arrays[f"{kind}/soft_label"])
    clean = balanced_cross_entropy(scores, arrays["labels"], prior)
    other = balanced_cross_entropy(mixed, soft, prior)
    torch.testing.assert_close(clean, arrays[f"{kind}/loss_clean"])
    torch.testing.assert_close(other, arrays[f"{kind}/loss_mixed"])
    (clean + other).backward()
    torch.testing.assert_close(scores.grad, arrays[f"{kind}/grad_logits"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(mixed.grad, arrays[f"{kind}/grad_logits_mixed"], rtol=1e-4, atol=1e-7)


def test_even_classes_make_it_plain_and_uneven_ones_shift_scores():
    torch.manual_seed(0)
    scores, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    even = balanced_cross_entropy(scores, labels, log_prior(torch.tensor([5, 5, 5, 5])))
    torch.testing.assert_close(even, F.cross_entropy(scores, labels))
    torch.testing.assert_close(balanced_cross_entropy(scores, labels), F.cross_entropy(scores, labels))
    prior = log_prior(torch.tensor([90, 10]))
    loss = balanced_cross_entropy(torch.zeros(1, 2), torch.tensor([1]), prior)
    assert loss.item() == pytest.approx(-math.log(0.1))


def test_labels_of_mixed_clips():
    soft = soft_labels(torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0]), torch.tensor([0.25, 0.5, 1.0]), 3)
    np.testing.assert_allclose(soft, [[0.75, 0.25, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
