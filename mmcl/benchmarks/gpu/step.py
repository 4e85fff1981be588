"""A training step of CTR-GCN on a GPU: eager and exact, against bfloat16 with a compiled trunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from mmcl.benchmarks.any_encoder import EXACT, difference, line, training_step
from mmcl.benchmarks.plain.form import published_network
from mmcl.benchmarks.timing import compare
from mmcl.encoders.ctrgcn.network import CTRGCN, CTRGCNOptions

REDUCED = 5e-2  # largest difference of scores to the baseline's in bfloat16, relative to the largest score


def measure_gpu(
    encoder: CTRGCN, x: Tensor, bodies: int, seconds: float, device: str = "cuda", backend: str = "inductor"
) -> list[dict[str, Any]]:
    """Lines of the table, as ``mmcl.benchmarks.encoder.measure`` collects them.

    Of the encoder, the trunk is compiled, as a full graph: which bodies enter it is decided outside.

    Args:
        encoder: as lively as on the CPU; a copy is taken.
        x: (N, M, T, V, C).
        bodies: of each clip that are not empty.
        seconds: for the rounds.
        device: where to.
        backend: of ``torch.compile``.
    """
    x = x.to(device)
    variants: dict[str, tuple[nn.Module, bool]] = {"published": (published_network(encoder).to(device), False)}
    variants["once"] = (copy_with(encoder, "once").to(device), False)
    fast = copy_with(encoder, "once").to(device)
    fast.trunk = compiled(fast.trunk, backend, graphs=x.is_cuda)  # type: ignore[method-assign]
    variants["once, bf16, compiled" + (", CUDA graphs" if x.is_cuda else "")] = (fast, True)
    published = variants["published"][0]
    found = {}
    with exact_fp32():
        for name, (network, bfloat16) in variants.items():  # in evaluation, where all compute the same
            found[name] = difference(network.eval(), published.eval(), x, bfloat16)
    steps = {name: training_step(network.train(), x, bfloat16) for name, (network, bfloat16) in variants.items()}
    wait = torch.cuda.synchronize if x.is_cuda else None
    timings = compare(steps, seconds, synchronise=wait)
    return [
        line(
            f"training on a {x.device.type} device",
            bodies,
            x,
            name,
            found[name],
            REDUCED if variants[name][1] else EXACT,
            timing,
        )
        for name, timing in timings.items()
    ]


@contextmanager
def exact_fp32() -> Iterator[None]:
    """Convolutions in full fp32: PyTorch lets cuDNN compute them in TF32, whose error hides what differs."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def compiled(trunk: Callable[..., Any], backend: str, graphs: bool) -> Callable[..., Any]:
    """A trunk as one compiled graph; with its kernels recorded and replayed as a whole, where the device can."""
    if graphs:
        return torch.compile(trunk, fullgraph=True, dynamic=False, mode="reduce-overhead")
    return torch.compile(trunk, fullgraph=True, dynamic=False, backend=backend)


def copy_with(encoder: CTRGCN, empty_bodies: str) -> CTRGCN:
    """The same encoder with another way to treat empty bodies."""
    options = CTRGCNOptions(**asdict(encoder.options) | {"empty_bodies": empty_bodies})
    copy = CTRGCN(encoder.layout, encoder.classes, options)
    copy.load_state_dict(encoder.state_dict())
    return copy.to(encoder.classifier.weight.device)
