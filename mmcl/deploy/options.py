"""What an export is asked to write beside the weights; needs neither torch nor onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass

from mmcl.common.errors import UserError
from mmcl.models.description import GRAPHS
from mmcl.models.rejection import FAMILIARITY

MIN_AGREEMENT = 0.98  # share of clips for which a graph must name the network's class
# Precision -> largest difference of a probability. An answer that the network prefers by more than twice as much cannot
# change: in int8 by more than a half. Measured on UTD-MHAD: fp16 0.001, int8 0.12 and 0.15 (docs/results/speed.md).
MAX_DIFFERENCE = {"fp32": 0.001, "fp16": 0.02, "int8": 0.25}


@dataclass(frozen=True)
class ExportOptions:
    """What an export writes beside the weights.

    Attributes:
        onnx: precisions of ONNX graphs, keys of :data:`mmcl.models.description.GRAPHS`.
        min_agreement: share of the judging clips for which a graph must name the same class as the network.
        max_difference: how far a probability may be from the network's on these clips; None for the precision's own
            bound, :data:`MAX_DIFFERENCE`.
        torch_export: also ``model.pt2``.
        reject: share of the right answers on held-out clips that a threshold for "none of these" may reject; None:
            no threshold is written.
        reject_by: the score that the threshold is of, a key of :data:`mmcl.models.rejection.LEAST`.
        drop_weights: leave ``model.safetensors`` out once all else is verified.
    """

    onnx: tuple[str, ...] = ()
    min_agreement: float = MIN_AGREEMENT
    max_difference: float | None = None
    torch_export: bool = False
    drop_weights: bool = False
    reject: float | None = None
    reject_by: str = FAMILIARITY


def parse_precisions(text: str) -> tuple[str, ...]:
    """``fp32,int8`` -> its parts, each once, in the order of :data:`mmcl.models.description.GRAPHS`.

    Raises:
        UserError: nothing, or something else than fp32, fp16, int8.
    """
    asked = {part.strip() for part in text.split(",")} - {""}
    if not asked or asked - set(GRAPHS):
        raise UserError(f"--onnx {text}: choose from {', '.join(GRAPHS)}, with commas between them")
    return tuple(precision for precision in GRAPHS if precision in asked)
