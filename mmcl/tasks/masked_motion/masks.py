"""Masked motion prediction (MAMP, Mao et al., ICCV 2023): which tokens are masked, what is predicted, the loss.

Bodies are (B, T, V, C) with T a multiple of the frames of a patch; patches are (B, T', V, P), P = frames * C; there are
L = T' * V tokens, joints running faster. Scores are worked out in float64: two of them may lie 4e-6 apart, and which
token is kept must not depend on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-10  # inside logarithms and below the line, as released
PATCH_EPS = 1e-6  # added to the variance of a patch's targets


def motion_intensity(patches: Tensor) -> Tensor:
    """(B, T', V, P) -> (B, L): mean absolute difference to the patch before; the first has that of the second."""
    change = (patches[:, 1:] - patches[:, :-1]).abs().mean(dim=3)
    first = change[:, :1] if change.shape[1] else patches.new_zeros(patches.shape[:3])
    return torch.cat([first, change], dim=1).flatten(1)


def motion_logits(patches: Tensor, temperature: float) -> Tensor:
    """(B, T', V, P) -> (B, L) float64, whose softmax is the distribution that masked tokens are drawn from.

    The most moving token of a body has 1 / ``temperature``. A body that does not move has a uniform distribution.
    """
    intensity = motion_intensity(patches.double())
    return intensity / (intensity.max(dim=1, keepdim=True).values * temperature + FLOOR)


def mask_scores(patches: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Scores by which tokens are kept, low ones first: log-probability plus Gumbel noise.

    Args:
        patches: (B, T', V, P).
        noise: (B, L) uniform in [0, 1).
        temperature: tau; 0 draws all tokens alike, as the released code does, which is not the formula's limit.

    Returns:
        (B, L) float64.
    """
    noise = noise.double()
    if temperature == 0:
        return noise
    gumbel = -torch.log(-torch.log(noise + FLOOR) + FLOOR)
    return motion_logits(patches, temperature).log_softmax(dim=1) + gumbel


def motion(bodies: Tensor, stride: int = 1) -> Tensor:
    """(B, T, V, C) -> the same shape: x[t + stride] - x[t], and 0 for the last ``stride`` frames."""
    change = bodies[:, stride:] - bodies[:, :-stride]
    return torch.cat([change, torch.zeros_like(bodies[:, :stride])], dim=1)


def motion_seen(there: Tensor, stride: int = 1) -> Tensor:
    """(B, T, V) bool, which joints are there -> the same shape: of which the motion is one between two seen places."""
    return torch.cat([there[:, :-stride] & there[:, stride:], there[:, -stride:]], dim=1)


def normalise_patches(targets: Tensor) -> Tensor:
    """(…, P) -> (…, P): each patch's values at mean 0 and (unbiased) variance 1."""
    if targets.numel() == 0:  # a batch with nobody in it, of whose variance torch would complain
        return targets
    variance, mean = torch.var_mean(targets, dim=-1, keepdim=True)
    return (targets - mean) / (variance + PATCH_EPS).sqrt()


def masked_error(predicted: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """Squared error of each body, averaged over the values of a patch and over the tokens that count.

    Where every body has as many of them, as with one ratio for all, the mean over bodies is the released loss.

    Args:
        predicted: (B, L, P).
        targets: (B, L, P).
        counted: (B, L) True where a token counts: it is masked, and its motion was seen.

    Returns:
        (B,), 0 for a body without such a token.
    """
    error = (predicted - targets).square().mean(dim=2)
    return (error * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
