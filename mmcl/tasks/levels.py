"""Learning rates that grow from an encoder's first level to its last."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from mmcl.encoders.base import Encoder
from mmcl.tasks.stages import ParameterGroup


def layer_scales(levels: int, decay: float) -> list[float]:
    """Factors on the learning rate for the levels of ``Encoder.depth()``: 1 for the last, ``decay`` for the one before.

    BEiT's layer-wise decay, as MAMP fine-tunes with and STARS tunes with.
    """
    return [decay ** (levels - 1 - level) for level in range(levels)]


def level_groups(encoder: Encoder, decay: float, clip: float = 0.0) -> list[ParameterGroup]:
    """A group ``level0``, ``level1``, … for each level of an encoder, without its head, by the run's own optimiser.

    Args:
        encoder: of any kind.
        decay: factor on the learning rate from one level to the one before.
        clip: largest norm of the gradient of each tensor; 0 does not clip.
    """
    levels = encoder.depth()
    return [
        ParameterGroup(f"level{number}", _parameters(level), scale=scale, clip=clip)
        for number, (level, scale) in enumerate(zip(levels, layer_scales(len(levels), decay), strict=True))
    ]


def without_decay_of_rows(groups: list[ParameterGroup]) -> list[ParameterGroup]:
    """The groups, each with its tensors of at most one dimension (biases, norms) in a group without weight decay.

    So MAMP's released fine-tuning splits them. A group that has no such tensor, or no other, stays one.
    """
    found = []
    for group in groups:
        rows = [parameter for parameter in group.parameters if parameter.ndim <= 1]
        rest = [parameter for parameter in group.parameters if parameter.ndim > 1]
        if rest:
            found.append(replace(group, parameters=rest))
        if rows:
            found.append(
                replace(group, name=f"{group.name}_rows" if rest else group.name, parameters=rows, decays=False)
            )
    return found


def head_parameters(encoder: Encoder) -> list[nn.Parameter]:
    """All parameters of an encoder's head."""
    return [tensor for name, tensor in encoder.named_parameters() if encoder.in_head(name)]


def _parameters(level: list[nn.Module | nn.Parameter]) -> list[nn.Parameter]:
    return [
        parameter for part in level for parameter in (part.parameters() if isinstance(part, nn.Module) else (part,))
    ]
