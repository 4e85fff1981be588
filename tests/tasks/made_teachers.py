"""Bundles and models with random weights that may teach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mmcl.encoders.building import build_encoder
from mmcl.models.bundle import describe, write_bundle
from mmcl.models.model import Model
from mmcl.models.record import Record
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions


def made_teacher(
    names: Sequence[str], stream: str = "joint", window: int = 16, source: str = "kinect_v2_25",
    target: str = "kinect_v2_25", record: Record | None = None, seed: int = 0,
) -> Model:  # fmt: skip
    """A model whose answers differ from clip to clip."""
    torch.manual_seed(seed)
    encoder = build_encoder("ctrgcn", load_layout(target), len(names), {"width": 8, "depth": 3, "persons": 1})
    options = PreprocessOptions(streams=(stream,), window=window)
    preprocess = Preprocess(load_layout(source), load_layout(target), 1, options)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        clips = preprocess(torch.randn(8, 1, 40, load_layout(source).joint_count, 3))
        encoder.train()(clips)
        scores = encoder.eval()(clips)  # scaled so that they differ from clip to clip, and no answer is sure
        encoder.classifier.weight.mul_(2 / scores.std(dim=0)[:, None])
        encoder.classifier.bias.sub_(scores.mean(dim=0)).mul_(2 / scores.std(dim=0))
    learned = None if record is None else record.to_json()
    return Model(describe("ctrgcn", encoder, preprocess, names, record=learned, count=False), encoder, preprocess)


def write_teacher(folder: Path, model: Model) -> str:
    """A bundle of it; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bundle(folder, model)
    return str(folder)
