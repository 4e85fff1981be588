"""What a network costs: how often each weight is multiplied, and how long one clip takes on this machine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from mmcl.benchmarks.timing import Timing, compare
from mmcl.encoders.base import Encoder
from mmcl.models.model import Model
from mmcl.models.probe import made_up_clips


@torch.no_grad()
def uses(encoder: Encoder, layers: Mapping[str, nn.Module], frames: int) -> dict[str, float]:
    """How often each number of a layer is multiplied in one clip.

    A layer whose weight is read instead of being called is not seen, and counts as never used: factors save it nothing.

    Args:
        encoder: in evaluation mode.
        layers: some of its layers, by name.
        frames: T of the clip.
    """
    found = dict.fromkeys(layers, 0.0)

    def note(name: str, layer: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            assert isinstance(layer.weight, torch.Tensor)
            found[name] += output.numel() / len(layer.weight)

        return hook

    handles = [layer.register_forward_hook(note(name, layer)) for name, layer in layers.items()]
    try:
        encoder(torch.ones_like(encoder.example(frames)))  # of zeros, absent persons would not be computed
    finally:
        for handle in handles:
            handle.remove()
    return found


def latencies(models: Sequence[Model], seconds: float) -> list[Timing]:
    """How long one made-up clip takes in each model, measured in turns.

    Args:
        models: on one device, of one layout; the first is the one that the others are compared with.
        seconds: for all calls.
    """
    clip, device = _clip(models[0]).to(models[0].device), models[0].device.type
    calls: dict[str, Callable[[], object]] = {
        str(number): partial(model, clip) for number, model in enumerate(models)
    }  # fmt: skip
    return list(compare(calls, seconds, synchronise=torch.cuda.synchronize if device == "cuda" else None).values())


def graph_latencies(models: Sequence[Model], seconds: float) -> list[Timing]:
    """The same through ONNX Runtime on the CPU, with as many threads as torch has.

    Raises:
        UserError: the onnx extra is not installed.
    """
    from mmcl.deploy.onnx import INPUT, export_graph, require_onnx
    from mmcl.models.session import open_session

    require_onnx()
    clip, threads = _clip(models[0]).numpy(), torch.get_num_threads()
    calls: dict[str, Callable[[], object]] = {}
    for number, model in enumerate(models):
        session = open_session(export_graph(copy.deepcopy(model).cpu()).SerializeToString(), threads)
        calls[str(number)] = partial(session.run, ["scores"], {INPUT: clip})
    return list(compare(calls, seconds).values())


def _clip(model: Model) -> torch.Tensor:
    """A made-up clip of a model's layout, of one body."""
    clip: torch.Tensor = made_up_clips(model.layout, model.preprocess.columns)["joints"][:1]
    return clip
