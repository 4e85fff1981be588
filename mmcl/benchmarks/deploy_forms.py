"""The forms in which a bundle is used, timed in turns on one clip: as published, folded, and as its graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcl.benchmarks.operators import operators_of, products_of
from mmcl.benchmarks.plain.form import published_network
from mmcl.benchmarks.roof import Product, compare_under_roofs
from mmcl.deploy.onnx import INPUT
from mmcl.encoders.base import lean_form
from mmcl.encoders.counting import count_products
from mmcl.encoders.ctrgcn.network import CTRGCN
from mmcl.models.bundle import load_bundle
from mmcl.models.description import graphs_in
from mmcl.models.model import Model
from mmcl.models.session import open_session


@torch.inference_mode()
def form_lines(
    bundle: Model, graphs: dict[str, Path], bodies: int, threads: int, seconds: float, best: dict[str, Product]
) -> list[dict[str, Any]]:
    """Lines of the table for so many bodies, on so many threads of torch and of onnxruntime.

    Args:
        bundle: of a CTR-GCN.
        graphs: precision -> file.
        bodies: that are there in the clip.
        threads: of torch and of onnxruntime.
        seconds: for all calls.
        best: precision -> product that shares are of, fp32 and int8.
    """
    assert isinstance(bundle.encoder, CTRGCN)
    clip = made_clip(bundle, bodies, 0)
    published = published_network(bundle.encoder).requires_grad_(False)
    lean = lean_form(bundle.encoder, bundle.preprocess.options.window)
    products: dict[str, float] = {
        name: count_products(network, bundle.preprocess(clip))
        for name, network in (("published", published), ("lean", lean))
    } | {precision: products_of(path, clip.numpy()) for precision, path in graphs.items()}
    calls: dict[str, Callable[[], Any]] = {
        "published": lambda: published(bundle.preprocess(clip)).numpy(),
        "lean": lambda: lean(bundle.preprocess(clip)).numpy(),
    } | {precision: _call(path, clip, threads) for precision, path in graphs.items()}
    truth = calls["published"]()
    far = {name: float(np.abs(call() - truth).max() / np.abs(truth).max()) for name, call in calls.items()}
    timings, roofs = compare_under_roofs(calls, best, seconds, threads=threads)
    return [
        {
            "variant": name, "bodies": bodies, "difference": far[name], **asdict(timing), "threads": threads,
            **roofs["int8" if name == "int8" else "fp32"].facts(products[name], timing.seconds),
        }
        for name, timing in timings.items()
    ]  # fmt: skip


def operators(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Precision -> what a bundle's graph spends its time on, with one body on one thread."""
    clip = made_clip(load_bundle(folder), 1, 0).numpy()
    return {key: [asdict(each) for each in operators_of(path, clip)] for key, path in graphs_in(folder).items()}


def _call(path: Path, clip: Tensor, threads: int) -> Callable[[], Any]:
    session, joints = open_session(path, threads), clip.numpy()
    return lambda: session.run(["scores"], {INPUT: joints})[0]


def made_clip(bundle: Model, bodies: int, seed: int) -> Tensor:
    """(1, M, T, V, C), so many of M bodies moving, the others empty."""
    persons, columns = bundle.preprocess.persons, bundle.preprocess.columns
    shape = (1, persons, bundle.preprocess.options.window, bundle.layout.joint_count, columns)
    clip = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    clip[..., 3:] = 1.0  # sure of every joint
    clip[:, bodies:] = 0.0
    return clip
