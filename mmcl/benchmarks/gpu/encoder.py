"""The encoder's part of ``mmcl bench gpu``: CTR-GCN in training and in use, eager and exact or as quick as it gets."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mmcl.benchmarks.any_encoder import EXACT, line, random_clips
from mmcl.benchmarks.encoder import lively_encoder
from mmcl.benchmarks.gpu.part import Place
from mmcl.benchmarks.gpu.step import REDUCED, compiled, exact_fp32, measure_gpu
from mmcl.benchmarks.plain.form import published_network
from mmcl.benchmarks.roof import best_products, compare_under_roofs
from mmcl.benchmarks.tables import share, times_faster
from mmcl.common.printing import one_line
from mmcl.encoders.counting import count_products_of
from mmcl.encoders.ctrgcn.network import CTRGCN, CTRGCNOptions

BATCH, FRAMES = 64, 64


def measure_encoder(place: Place, seconds: float) -> Iterator[dict[str, Any]]:
    """Training steps and calls in use, all bodies there; ratios are to the published network, eager, in fp32.

    Times are taken as PyTorch is set by itself: its convolutions may compute in TF32. Differences are taken without.

    Where one of the two fails, the other is still measured.

    Raises:
        RuntimeError: one of them failed, and why; raised after all lines.
    """
    options, frames, batch = CTRGCNOptions(), FRAMES, BATCH
    if place.tiny:
        options, frames, batch = CTRGCNOptions(width=8, depth=3), 8, 2
    encoder, backend = lively_encoder(options, frames), "inductor" if place.device == "cuda" else "eager"
    x = random_clips(encoder, batch, frames, options.persons).to(place.device)
    failed: list[str] = []
    for what, measure in (
        ("training", lambda: measure_gpu(encoder, x, options.persons, seconds / 2, place.device, backend)),
        ("use", lambda: measure_in_use(encoder, x, options.persons, seconds / 2, backend)),
    ):
        try:
            yield from (one | {"what": _what(one), "found": _found(one)} for one in measure())
        except Exception as error:  # of a compiler, which has many kinds
            traceback.print_exc()
            failed.append(one_line(f"{what} failed: {type(error).__name__}: {error}"))
    if failed:
        raise RuntimeError("; ".join(failed))


@torch.no_grad()
def measure_in_use(encoder: CTRGCN, x: Tensor, bodies: int, seconds: float, backend: str) -> list[dict[str, Any]]:
    """Lines for the folded form: eager, in bf16, compiled, with CUDA graphs."""
    frames, device = x.shape[2], x.device
    published, lean = published_network(encoder).to(device), encoder.lean(frames).to(device)
    fast: Any = encoder.lean(frames).to(device)
    fast.trunk = compiled(fast.trunk, backend, graphs=x.is_cuda)
    networks: dict[str, tuple[nn.Module, bool]] = {
        "published": (published, False), "lean": (lean, False), "lean, bf16": (lean, True),
        "lean, bf16, compiled" + (", CUDA graphs" if x.is_cuda else ""): (fast, True),
    }  # fmt: skip
    calls, far, products = {}, {}, {}
    with exact_fp32():
        expected = published(x)
    for name, (network, bfloat16) in networks.items():
        calls[name] = called(network, x, bfloat16)
        with exact_fp32():
            far[name] = float((calls[name]().float() - expected).abs().max() / expected.abs().max())
        products[name] = count_products_of(calls["lean" if name.startswith("lean") else name])
    wait = torch.cuda.synchronize if x.is_cuda else None
    sizes = (4096, 8192) if x.is_cuda else (64,)
    best = best_products(("fp32", "bf16"), torch.get_num_threads(), device.type, seconds=1.0, sizes=sizes)
    timings, roofs = compare_under_roofs(calls, best, seconds, threads=torch.get_num_threads(), synchronise=wait)
    return [
        line(
            "use", bodies, x, name, far[name], REDUCED if networks[name][1] else EXACT, timing,
            roofs.get("bf16" if networks[name][1] else "fp32"), products[name],
        )
        for name, timing in timings.items()
    ]  # fmt: skip


def called(network: nn.Module, x: Tensor, bfloat16: bool) -> Callable[[], Tensor]:
    """A call of a network on clips; its answer is a copy, since the next replay of a CUDA graph writes over it."""

    def call() -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            return network(x).clone()

    return call


def _what(one: dict[str, Any]) -> str:
    return f"{one['what']}, {one['clips']} clips of {one['bodies']} of 2 bodies: {one['variant']}"


def _found(one: dict[str, Any]) -> str:
    of_best = f", {share(one)} of the best product" if one.get("roof") else ""
    return f"{1e3 * one['seconds']:.2f} ms, {times_faster(one)} times faster, off by {one['difference']:.0e}{of_best}"
