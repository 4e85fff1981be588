"""Training steps as the released code takes them: what is changed of a task, whose losses stay the same.

Networks are those of the plain forms; what a task passes through its network in one pass, the released code passes in
several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from mmcl.benchmarks.plain import mamp, sttformer
from mmcl.benchmarks.plain.form import published_network
from mmcl.encoders.mamp.blocks import Block
from mmcl.encoders.sttformer.layers import TupleLayer
from mmcl.tasks.base import Task
from mmcl.tasks.long_tail.saliency import only

WRITTEN_OUT: Mapping[type, Callable[[Any, Tensor], Tensor]] = {
    Block: mamp.transform, TupleLayer: sttformer.transform,
}  # fmt: skip


def write_out(task: Task) -> None:
    """Have every block of MAMP, and every layer of STTFormer, of encoder and decoder, computed as its plain form."""
    for module in task.modules():
        if type(module) in WRITTEN_OUT:
            _exchange(module, "forward", partial(WRITTEN_OUT[type(module)], module))


def take_published_network(task: Task) -> None:
    """Have the plain form of the encoder trained in its place."""
    encoder = task.encoder
    network = published_network(encoder)
    for name in [name for name, _ in encoder.named_children()]:
        delattr(encoder, name)
    encoder.published = network
    _exchange(encoder, "forward", network.forward)


def estimate_apart(task: Any) -> None:
    """Shap-Mix: with the published network, and a pass for each of the two chances of a coalition."""
    take_published_network(task)

    def chances(x: Tensor, joints: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        task.encoder.eval()
        rows = [only(x, task.background, moving) for moving in (joints, context)]
        found = tuple(task.encoder(row).softmax(dim=1) for row in rows)
        task.encoder.train()
        return found

    _exchange(task, "_chances", chances)


def see_both_views(task: Any) -> None:
    """STARS' second stage: with MAMP's plain form, and both views through it, though they are the same."""
    write_out(task)
    features, contrast = task.encoder.features, task.contrast
    second: list[Tensor] = []

    def twice(x: Tensor) -> Tensor:
        second[:] = [features(x)]
        return features(x)

    def compared(first: Tensor, _: None, owners: Tensor, choice: Tensor | None = None) -> dict[str, Tensor]:
        return contrast(first, second[0], owners, choice)

    _exchange(task.encoder, "features", twice)
    _exchange(task, "contrast", compared)


def _exchange(module: nn.Module, name: str, function: Callable[..., Any]) -> None:
    setattr(module, name, function)
