"""A throw-away surgery that exchanges a module: the classifier becomes two layers of a lower rank, by its SVD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import nn

from mmcl.common.errors import UserError
from mmcl.surgery.base import Surgery


@dataclass(frozen=True)
class FactoredOptions:
    rank: int = 3


class Factored(Surgery):
    options_type: ClassVar[type] = FactoredOptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"rank": 2})

    def operate(self, model, data):
        encoder, rank = model.encoder, self.options.rank
        weight, bias = encoder.classifier.weight.detach(), encoder.classifier.bias.detach()
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        encoder = self.reshape(encoder, {"rank": rank, "widths": list(weight.shape)})
        with torch.no_grad():
            encoder.classifier[0].weight.copy_(values[:rank, None] * right[:rank])
            encoder.classifier[1].weight.copy_(left[:, :rank])
            encoder.classifier[1].bias.copy_(bias)
        kept = float(values[:rank].sum() / values.sum())
        return encoder, {"rank": rank, "widths": list(weight.shape)}, {"kept": kept}

    @staticmethod
    def reshape(encoder, structure):
        rank, (classes, width) = structure.get("rank"), structure.get("widths", (0, 0))
        if type(rank) is not int or not 1 <= rank <= min(classes, width):
            raise UserError(f"factored: a rank of {rank!r:.20} does not fit a classifier {classes} x {width}")
        encoder.classifier = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, classes))
        return encoder
