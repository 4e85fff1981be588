"""Adaptation without labels: batch-norm statistics re-estimated on other clips.

AdaBN: Li, Wang, Shi, Hou, Liu, "Adaptive Batch Normalization for practical domain adaptation", Pattern Recognition 80,
2018 (first as arXiv 1603.04779). No weight is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.encoders.base import Encoder
from mmcl.models.model import Model
from mmcl.surgery.base import Surgery

if TYPE_CHECKING:
    from mmcl.data.selection import Selection


@dataclass(frozen=True)
class AdaptOptions:
    """Options of :class:`Adapt`.

    Attributes:
        batch_size: clips at once, 2 or more. Batches are as equal as they can be, and none is of one clip: of an odd
            number of clips by 2, one batch has 3.
        seed: of the order in which clips are shown. The store's own order would make batches of one class or one
            person, whose statistics are no one else's.
    """

    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise UserError(f"adapt needs a batch_size of at least 2, not {self.batch_size}")


class Adapt(Surgery):
    """Running means and variances of the encoder's batch norms become those of the clips that it is shown."""

    options_type: ClassVar[type] = AdaptOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"batch_size": 8})

    def operate(self, model: Model, data: Selection | None) -> tuple[Encoder, dict[str, Any] | None, dict[str, Any]]:
        """Labels are not looked at; the structure stays as it is."""
        if data is None:
            raise UserError("adapt needs clips of the data set that the model shall be adapted to")
        batches = inputs_of(model, data, self.options.batch_size, self.options.seed)
        layers = reestimate_batchnorm(model.encoder, batches)
        store = data.store
        return model.encoder, None, {
            "by": "batch-norm statistics alone, without labels (AdaBN)", "layers": layers, "to": store.title,
            "clips": len(data.clips), "dataset": store.dataset, "protocol": data.protocol, "side": data.side,
            "data_fingerprint": store.fingerprint,
        }  # fmt: skip


def inputs_of(model: Model, data: Selection, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Encoder inputs of the selected clips in a fixed random order, in batches as equal as they can be.

    No batch is of one clip, whose statistics would be no one else's, unless there is one clip alone.
    """
    from mmcl.data.dataset import ClipDataset
    from mmcl.data.loader import loader

    order = np.random.default_rng(seed).permutation(data.clips)
    parts = np.array_split(order, max(1, min(-(-len(order) // batch_size), len(order) // 2)))
    device = model.device
    for batch in loader(ClipDataset(data.store), [[(0, int(clip)) for clip in part] for part in parts]):
        yield model.preprocess(batch["joints"].to(device), batch["lengths"].to(device))


class _Moments:
    """Count, mean and squared deviations of a layer's input, by channel, over all batches (Chan et al. 1979)."""

    def __init__(self, norm: nn.Module) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros(0)
        self.handle = norm.register_forward_pre_hook(lambda _, inputs: self.add(inputs[0]))

    def add(self, x: Tensor) -> None:
        rows = x.detach().double().transpose(0, 1).flatten(1)  # (C, values)
        mean = rows.mean(dim=1)
        squares = (rows - mean[:, None]).square().sum(dim=1)
        size, before = rows.shape[1], self.count
        self.count = before + size
        if not before:
            self.mean, self.squares = mean, squares
            return
        gap = mean - self.mean
        self.mean = self.mean + gap * (size / self.count)
        self.squares = self.squares + squares + gap.square() * (before * size / self.count)


def measured_norms(encoder: nn.Module) -> list[Any]:
    """The batch norms of a network that keep statistics."""
    kinds = nn.modules.batchnorm._BatchNorm
    return [module for module in encoder.modules() if isinstance(module, kinds) and module.track_running_stats]


@torch.no_grad()
def reestimate_batchnorm(encoder: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the running mean and variance of every batch norm by those of its input over all batches.

    While they are measured, each layer normalises by the batch at hand, as in training. Every clip has the same say,
    however the clips fall into batches; the variance is the unbiased one, as batch norm keeps it.

    Args:
        encoder: changed in place, and left in evaluation mode; nothing but running statistics changes.
        batches: encoder inputs (N, M, T, V, C), N of at least 2.

    Returns:
        How many layers there were.

    Raises:
        UserError: the encoder has no batch norm that keeps statistics, there is no batch, or one is of one clip.
    """
    norms = measured_norms(encoder)
    if not norms:
        raise UserError("this encoder has no batch norm: there are no statistics to adapt")
    encoder.eval()
    moments = [_Moments(norm) for norm in norms]
    try:
        for norm in norms:
            norm.train()
            norm.track_running_stats = False  # the running values stay as they are until all is measured
        for batch in batches:
            if len(batch) < 2:
                raise UserError(
                    "batch norms are measured on two clips or more at once, and here is one: give more clips"
                )
            encoder(batch)
    finally:
        for norm, found in zip(norms, moments, strict=True):
            found.handle.remove()
            norm.track_running_stats = True
            norm.eval()
    if not moments[0].count:
        raise UserError("there are no clips to adapt to")
    for norm, found in zip(norms, moments, strict=True):
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(found.mean)
        norm.running_var.copy_(found.squares / max(1, found.count - 1))
    return len(norms)
