"""The graph's part of ``mmcl bench gpu``: a bundle's ONNX graph by onnxruntime on the GPU, beside the processor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.benchmarks.deploy import random_bundle
from mmcl.benchmarks.deploy_forms import made_clip
from mmcl.benchmarks.gpu.part import Lines, Place, Skipped
from mmcl.benchmarks.timing import compare
from mmcl.deploy.onnx import INPUT, require_onnx
from mmcl.encoders.ctrgcn.network import CTRGCNOptions
from mmcl.models.bundle import load_bundle
from mmcl.models.description import graphs_in

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
BATCH = 64


def measure_graph(place: Place, seconds: float) -> Lines:
    """The fp32 graph for one clip and for a batch, on the device and on the processor; scores have to be the same."""
    require_onnx()
    import onnxruntime

    wanted = PROVIDERS[place.device]
    if wanted not in onnxruntime.get_available_providers():
        raise Skipped(f"onnxruntime has no {wanted} here: pip install onnxruntime-gpu in the place of onnxruntime")
    bundle = place.bundle
    if bundle is None:
        small = CTRGCNOptions(width=8, depth=3) if place.tiny else None
        bundle = random_bundle(_folder(place), small, precisions=["fp32"])
    return measure_session(bundle, wanted, 2 if place.tiny else BATCH, seconds)


def measure_session(bundle: Path, provider: str, batch: int, seconds: float) -> Lines:
    """Lines for one clip and for ``batch`` of them, all bodies there."""
    import onnxruntime

    model, graph, found = load_bundle(bundle), graphs_in(bundle)["fp32"], []
    processor = PROVIDERS["cpu"]
    sessions = {
        name: onnxruntime.InferenceSession(str(graph), providers=list(dict.fromkeys([name, processor])))
        for name in dict.fromkeys([processor, provider])
    }
    running = sessions[provider].get_providers()[0]
    if running != provider:  # onnxruntime goes on without, with a line in its log
        raise Skipped(f"onnxruntime has {provider} and could not start it: its CUDA libraries are missing")
    for clips in (1, batch):
        joints = np.concatenate([made_clip(model, model.preprocess.persons, seed).numpy() for seed in range(clips)])
        calls: dict[str, Callable[[], Any]] = {
            name: partial(session.run, ["scores"], {INPUT: joints}) for name, session in sessions.items()
        }
        truth, answer = calls[processor]()[0], calls[provider]()[0]
        off = float(np.abs(answer - truth).max() / np.abs(truth).max())
        timing = compare(calls, seconds / 2)[provider]
        said = f"{1e3 * timing.seconds:.2f} ms, {timing.ratio:.2f} times as fast as the processor, off by {off:.0e}"
        found.append({"what": f"fp32 graph, {clips} clip(s), {provider}", "found": said, "difference": off,
                      "seconds": timing.seconds, "ratio": timing.ratio})  # fmt: skip
    return found


def _folder(place: Place) -> Path:
    folder = place.folder / "bundle"
    folder.mkdir()
    return folder
