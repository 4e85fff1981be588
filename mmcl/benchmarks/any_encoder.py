"""``mmcl bench encoder --encoder NAME``: any encoder in use, against a plain formulation of the released network.

All have the same weights, and are called in turns in one process, one clip at a time: ``published``, as the released
code is written, where there is such a formulation; ``encoder``, as ``mmcl train`` trains it; ``lean``, the form for use
only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from mmcl.benchmarks.machine import machine
from mmcl.benchmarks.plain.form import has_plain_form, published_network
from mmcl.benchmarks.roof import NO_PRODUCTS, Product, Roof, best_products, compare_under_roofs
from mmcl.benchmarks.timing import Timing, compare
from mmcl.encoders.base import Encoder
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_parameters, count_products_of
from mmcl.skeletons.layout import Layout

CLASSES = 60
EXACT = 1e-4  # largest difference of scores to the baseline's, relative to the largest score


def measure_encoder(
    name: str, options: Mapping[str, Any], layout: Layout, frames: int, threads: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Compare an encoder's forms, for clips with one body and with as many as there are slots.

    Args:
        name: in ``ENCODERS``.
        options: of the encoder.
        layout: of the skeletons.
        frames: T.
        threads: of torch; every number in turn.
        seconds: for each comparison.

    Raises:
        UserError: no such encoder, or options that are wrong.
    """
    torch.manual_seed(0)
    encoder = build_encoder(name, layout, CLASSES, options)
    enliven(encoder, random_clips(encoder, 4, frames, encoder.options.persons))
    facts: dict[str, Any] = {
        "machine": machine("torch"), "encoder": name, "parameters": count_parameters(encoder), "frames": frames,
        "persons": encoder.options.persons, "joints": layout.joint_count, "lines": [],
        "baseline": "published" if has_plain_form(encoder) else "encoder",
    }  # fmt: skip
    for count in threads:
        best = best_products(("fp32",), count)
        for bodies in sorted({1, encoder.options.persons}):
            print(f"… {count} thread(s), {bodies} of {encoder.options.persons} bodies", file=sys.stderr, flush=True)
            x = random_clips(encoder, 1, frames, bodies)
            facts["lines"] += compare_in_use(encoder, x, bodies, seconds, count, best)
    return facts


def enliven(encoder: Encoder, x: Tensor) -> None:
    """Give every parameter numbers that matter, and batch norms the statistics of clips; the encoder is in evaluation.

    A fresh one would prove little: whatever starts at zero is zero, and batch norms pass their input on.
    """
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias") or not parameter.any():
            nn.init.uniform_(parameter, -0.3, 0.3)
    norms = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        nn.init.normal_(norm.weight, 1.0, 0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        encoder.train()(x)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    encoder.eval()


def random_clips(encoder: Encoder, count: int, frames: int, bodies: int) -> Tensor:
    """(count, M, frames, V, C) of which the first ``bodies`` of each clip are there."""
    x = torch.randn(encoder.example(frames, count).shape, generator=torch.Generator().manual_seed(bodies))
    x[:, bodies:] = 0.0
    return x


def compare_in_use(
    encoder: Encoder, x: Tensor, bodies: int, seconds: float, threads: int, best: Mapping[str, Product] = NO_PRODUCTS
) -> list[dict[str, Any]]:
    """Lines of the table for the forms of an encoder on some clips; with shares of the best product in ``fp32``.

    The first is the baseline: the encoder itself, where there is no plain form of it.
    """
    networks = {"published": published_network(encoder)} if has_plain_form(encoder) else {}
    networks |= {"encoder": encoder, "lean": encoder.lean(x.shape[2])}
    baseline = next(iter(networks.values()))
    found = {name: difference(network, baseline, x) for name, network in networks.items()}

    def call(network: nn.Module) -> Callable[[], Tensor]:
        return lambda: network(x)

    with torch.no_grad():
        calls = {name: call(network) for name, network in networks.items()}
        products = {name: count_products_of(each) for name, each in calls.items()} if best else {}
        timings, roofs = compare_under_roofs(calls, best, seconds, threads=threads)
    return [
        line("use", bodies, x, name, found[name], EXACT, timing, roofs.get("fp32"), products.get(name, 0))
        for name, timing in timings.items()
    ]


def compare_in_training(encoder: Encoder, x: Tensor, seconds: float, threads: int) -> list[dict[str, Any]]:
    """Lines of the table for training steps on clips whose bodies are all there, so that batch statistics are equal."""
    networks = {"published": published_network(deepcopy(encoder)), "encoder": deepcopy(encoder)}
    networks = {name: network.train() for name, network in networks.items()}
    found = {name: difference(network, networks["published"], x) for name, network in networks.items()}
    steps = {name: training_step(network, x) for name, network in networks.items()}
    timings = compare(steps, seconds, threads=threads, least=3, warm=1)
    return [line("training", x.shape[1], x, name, found[name], EXACT, timing) for name, timing in timings.items()]


def training_step(network: nn.Module, x: Tensor, bfloat16: bool = False) -> Callable[[], None]:
    """Forward, backward, SGD with momentum."""
    labels = torch.arange(len(x), device=x.device) % CLASSES
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            scores = network(x)
        nn.functional.cross_entropy(scores.float(), labels).backward()
        optimiser.step()

    return step


@torch.no_grad()
def difference(network: nn.Module, baseline: nn.Module, x: Tensor, bfloat16: bool = False) -> float:
    """Largest difference of scores, relative to the largest score of the baseline; neither network changes."""
    expected = deepcopy(baseline)(x)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
        found = deepcopy(network)(x)
    return float((found.float() - expected).abs().max() / expected.abs().max())


def line(
    what: str, bodies: int, x: Tensor, name: str, found: float, bound: float, timing: Timing,
    roof: Roof | None = None, products: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """What is reported of a variant; without a ratio where it does not compute the same.

    Args:
        what: was done.
        bodies: of a clip.
        x: the clips.
        name: of the variant.
        found: its difference from the baseline.
        bound: of that.
        timing: of the variant.
        roof: the best product that was measured beside it, if one was.
        products: multiplications of the variant.
    """
    facts = {"what": what, "clips": len(x), "bodies": bodies, "variant": name, "difference": found, "bound": bound}
    share = {} if roof is None else roof.facts(products, timing.seconds)
    return facts | asdict(timing) | share | ({} if found <= bound else {"ratio": None})
