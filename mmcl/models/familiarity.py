"""How much a clip looks like what a classifier learned from, by its feature: a score for "none of these".

A classifier prefers one class to the others, for whatever it sees; whether a clip looks like the clips of that class is
another question. The score is the cosine between the clip's feature and that of the training clip that is nearest,
among those of the class that it is answered to be: the distance of Sun and others (Out-of-Distribution Detection with
Deep Nearest Neighbors, ICML 2022), who look among all classes. Of each number of a feature the square root is taken
first, with its sign, so that few large ones do not decide alone (power normalisation: Perronnin and others, Improving
the Fisher Kernel for Large-Scale Image Classification, ECCV 2010).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.common.errors import UserError
from mmcl.models.description import FAMILIAR


class Familiarity(nn.Module):
    """What a model keeps of its training clips.

    Args:
        rows: (n, D) unit-length directions of their features, see :func:`directions`.
        labels: (n,) their classes.
    """

    rows: Tensor
    labels: Tensor

    def __init__(self, rows: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows.float())
        self.register_buffer("labels", labels.long())
        self.eval()

    def forward(self, features: Tensor, scores: Tensor) -> Tensor:
        """Features (N, D) and scores (N, K) of clips -> (N,) familiarity, from -1 to 1.

        It is -1 where no training clip of the class is kept: nothing is known of it.
        """
        cosines = directions(features) @ self.rows.T
        own = scores.argmax(dim=-1, keepdim=True) == self.labels
        return torch.where(own, cosines, -1.0).amax(dim=-1).clamp(-1.0, 1.0)


def directions(features: Tensor) -> Tensor:
    """Features (N, D) -> the square root of each number with its sign, brought to unit length."""
    return F.normalize(features.sign() * features.abs().sqrt(), dim=-1)


def write_familiarity(folder: Path, familiarity: Familiarity) -> None:
    """Write the file of a bundle's folder."""
    save_file({"rows": familiarity.rows.cpu(), "labels": familiarity.labels.cpu()}, folder / FAMILIAR)
    (folder / FAMILIAR).chmod(0o644)  # safetensors makes it readable by its owner only


def read_familiarity(folder: Path, classes: int, width: int) -> Familiarity:
    """Read the file of a bundle.

    Args:
        folder: the bundle.
        classes: K.
        width: D of the encoder's features.

    Raises:
        UserError: it is missing, damaged, or another model's.
    """
    try:
        tensors = load_file(folder / FAMILIAR)
        rows, labels = tensors["rows"], tensors["labels"]
    except FileNotFoundError as error:
        raise UserError(f"{folder} is damaged: config.json speaks of familiarity, and {FAMILIAR} is missing") from error
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder / FAMILIAR} is damaged: {' '.join(str(error).split())[:200]}") from error
    good = rows.dim() == 2 and rows.shape[1] == width and labels.shape == (len(rows),) and len(rows) > 0
    good = good and rows.dtype == torch.float32 and labels.dtype == torch.int64 and bool(torch.isfinite(rows).all())
    if not (good and int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise UserError(f"{folder / FAMILIAR} is damaged: no finite features of {width} numbers, and their classes")
    return Familiarity(rows, labels)
