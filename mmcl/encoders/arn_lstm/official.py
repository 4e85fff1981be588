"""Weights of the released Keras models (drwangusm/ARN-LSTM-final, ``src/models``), under the names of :class:`ARNLSTM`.

Names are those of Keras: ``g_theta_inter_fc1/kernel:0``, ``arn_attention/Att1:0``, ``f_phi_fc1/bias:0``,
``lstm/lstm_cell/kernel:0`` (Keras numbers layers and cells: ``lstm_1/lstm_cell_1/kernel:0``), ``softmax/kernel:0``. In
models of several streams some come twice, and only their order says whose they are. Kernels are (inputs, outputs).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from mmcl.common.errors import UserError

STREAMS = {
    "inter": "inter", "p1_p2_all_bidirectional": "inter", "p1_p2_all": "inter_once", "inter_and_indivs": "inter_intra",
    "intra": "intra", "indivs": "intra", "p1_p1_all-p2_p2_all": "intra_together", "joint_stream": "joint",
    "temp_stream": "temporal",
}  # fmt: skip
_RELATION = re.compile(r"g_theta_(.+)_fc(\d+)$")
_DENSE = re.compile(r"f_phi_fc(\d+)$")
_CELL = re.compile(r"^lstm_cell_\d+/")
_TENSORS = {
    "kernel": "weight", "bias": "bias", "lstm_cell/kernel": "inputs.weight",
    "lstm_cell/recurrent_kernel": "states.weight", "lstm_cell/bias": "inputs.bias", "Att1": "project.weight",
    "Att2": "score.weight",
}  # fmt: skip


def convert(weights: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The state dict of an :class:`ARNLSTM` from the weights of a released model.

    Args:
        weights: names and tensors in the order of Keras's ``model.weights``; pairs where a name comes twice.

    Raises:
        UserError: a name that no released model has.
    """
    pairs = list(weights.items()) if isinstance(weights, Mapping) else list(weights)
    layers: list[tuple[str, list[tuple[str, Tensor]]]] = []
    for name, tensor in pairs:
        layer, _, kind = name.removesuffix(":0").partition("/")
        kind = _CELL.sub("lstm_cell/", kind)
        if kind not in _TENSORS:
            raise UserError(f"not a weight of a released ARN-LSTM: '{name}'")
        kind, first = _TENSORS[kind], kind in ("kernel", "Att1", "lstm_cell/kernel")
        if first:
            layers.append((layer, []))
        if not layers or layers[-1][0] != layer:
            raise UserError(f"weights of a released ARN-LSTM out of order: '{name}' does not follow its layer's kernel")
        layers[-1][1].append((kind, tensor))
    state: dict[str, Tensor] = {}
    for target, tensors in zip(_targets([layer for layer, _ in layers]), (found for _, found in layers), strict=True):
        for kind, tensor in tensors:
            state[f"{target}.{kind}"] = tensor.mT.contiguous() if tensor.dim() == 2 else tensor
    return state


def _targets(layers: list[str]) -> list[str]:
    """Where each layer of a released model goes: by its name, and by how often it comes."""
    times = {number: layers.count(f"f_phi_fc{number}") for number in (1, 2)}
    tails = max(1, times[2])  # more than one: streams that meet behind their dense layers
    firsts = times[1] > tails  # a first dense layer for each stream, then one for all
    stream, seen, targets = "", {"lstm": 0, "first": 0, "head": 0, "tail": -1}, []
    for layer in layers:
        if relation := _RELATION.match(layer):
            if relation[1] not in STREAMS:
                raise UserError(f"ARN-LSTM has no stream for the released relations '{relation[1]}'")
            stream = STREAMS[relation[1]]
            targets.append(f"streams.{stream}.relation.layers.{int(relation[2]) - 1}")
        elif layer.startswith("arn_attention"):
            targets.append(f"streams.{stream}.pool")
        elif dense := _DENSE.match(layer):
            number = int(dense[1])
            if number == 1 and firsts and seen["first"] < times[1] - 1:
                targets.append(f"firsts.{seen['first']}.dense.0")
                seen["first"] += 1
            else:
                seen["tail"] += number == 1
                targets.append(f"tails.{seen['tail']}.dense.{number - 1}")
        elif layer.startswith("lstm"):
            place = f"{seen['lstm']}.lstms.0" if tails > 1 else f"0.lstms.{seen['lstm']}"
            targets.append(f"tails.{place}")
            seen["lstm"] += 1
        elif layer.startswith(("softmax", "model", "dense")):
            several = layers.count("softmax") > 1
            targets.append(f"classifier.{seen['head']}" if several else "classifier")
            seen["head"] += 1
        else:
            raise UserError(f"not a layer of a released ARN-LSTM: '{layer}'")
    return targets
