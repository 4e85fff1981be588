"""Small models for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from mmcl.benchmarks.any_encoder import enliven
from mmcl.encoders.building import build_encoder
from mmcl.models.bundle import describe
from mmcl.models.model import Model
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions


def small_model(
    layout: Layout, names: list[str], encoder: str = "ctrgcn", window: int = 16,
    preprocessing: PreprocessOptions | None = None, **options: Any,
) -> Model:  # fmt: skip
    """A network for one person with parameters and statistics that matter."""
    torch.manual_seed(3)
    own = {"width": 8, "depth": 3} if encoder == "ctrgcn" else {}
    preprocess = Preprocess(layout, layout, 1, replace(preprocessing or PreprocessOptions(), window=window))
    own |= {} if preprocess.channels == 3 else {"channels": preprocess.channels}
    network = build_encoder(encoder, layout, len(names), {**own, "persons": 1, **options})
    enliven(network, preprocess(torch.randn(8, 1, 20, layout.joint_count, preprocess.columns)))
    return Model(describe(encoder, network, preprocess, names), network, preprocess)
