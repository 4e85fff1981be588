"""The golden folder's stand-in surrogate, A tanh(B vec(x) + b) + c, as a model that attacks can work on."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from golden import under
from torch import Tensor, nn

from mmcl.surgery.posterior import PosteriorHeads


class StandIn(nn.Module):
    """Scores (N, K) of clips (N, M, T, V, C); ``tail`` is what comes behind them."""

    def __init__(self, arrays: dict[str, Tensor], parents: tuple[int, ...] = (), tail: nn.Module | None = None) -> None:
        super().__init__()
        self.own, self.tail = under(arrays, "surrogate/"), tail or nn.Identity()
        self.layout = SimpleNamespace(parents=parents, joint_count=25, parts={}, centre=0)

    def forward(self, joints: Tensor, lengths: Tensor | None = None, grad: bool = False) -> Tensor:
        flat = joints.permute(0, 4, 2, 3, 1).flatten(1)  # released clips are (N, C, T, V, M)
        return self.tail(torch.tanh(flat @ self.own["B"].T + self.own["b"]) @ self.own["A"].T + self.own["c"])


def clips(x: Tensor) -> Tensor:
    """A released batch (N, C, T, V, M), or (N, C, T, V), as (N, M, T, V, C)."""
    return (x if x.dim() == 5 else x[..., None]).permute(0, 4, 2, 3, 1).contiguous()


def scene_arguments(arrays: dict[str, Tensor], labels: Tensor, epsilon: float) -> tuple[Tensor, ...]:
    """joints, lengths, labels, mask and limit for ``perturb``; everybody is there."""
    joints = clips(arrays["in/x"])
    limit = joints.new_full((len(joints), 1, 1, 1, 1), epsilon)
    lengths = torch.full((len(joints),), joints.shape[2])
    return joints, lengths, labels, torch.ones(joints.shape[:4], dtype=torch.bool), limit


def head_rows(arrays: dict[str, Tensor], prefix: str) -> Tensor:
    """(H, P) the released heads under a prefix."""
    names = ("model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias")
    rows = under(arrays, f"{prefix}/")
    heads = sorted({key.split("/")[0] for key in rows})
    return torch.stack([torch.cat([rows[f"{head}/{name}"].flatten() for name in names]) for head in heads])


def released_heads(arrays: dict[str, Tensor], heads: str = "heads", moments: bool = True) -> PosteriorHeads:
    """The module with the released weights and moments, in float64."""
    rows = head_rows(arrays, heads)
    classes = len(arrays["surrogate/c"])
    module = PosteriorHeads(classes, len(rows), released=True).double()
    with torch.no_grad():
        module.weights.copy_(rows)
        if moments:
            module.mean.copy_(head_rows(arrays, "mean"))
            module.square.copy_(head_rows(arrays, "sqmean"))
    return module
