"""Counting what processes exchange: every collective of a process, by what it is for; and what a ring makes of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmcl.common.distributed import current_purpose

# operation of torch.distributed -> (what it is, which argument holds what this process puts in)
_OPERATIONS = {
    "allreduce_": ("all-reduce", 0),
    "allreduce_coalesced_": ("all-reduce", 0),
    "broadcast_": ("broadcast", 0),
    "allgather_": ("all-gather", 1),
    "_allgather_base_": ("all-gather", 1),
    "_reduce_scatter_base_": ("reduce-scatter", 1),
    "all_gather_into_tensor": ("all-gather", 0),
    "all_gather_into_tensor_out": ("all-gather", 0),
    "reduce_scatter_tensor": ("reduce-scatter", 0),
    "all_reduce": ("all-reduce", 0),
    "barrier": ("barrier", None),
}


class Traffic(TorchDispatchMode):
    """Counts the collectives that are started while it is on, those that DistributedDataParallel starts included.

    It goes by the purposes of :func:`mmcl.common.distributed.purpose`, and slows every operation down by microseconds.

    Attributes:
        calls: (purpose, what it is) -> how many.
        bytes: (purpose, what it is) -> bytes that this process put in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("c10d", "_c10d_functional"):
            found = _OPERATIONS.get(func.overloadpacket.__name__)
            if found is not None:
                kind, position = found
                key = (current_purpose(), kind)
                given = [] if position is None else tree_leaves(args[position])
                self.calls[key] += 1
                self.bytes[key] += sum(t.numel() * t.element_size() for t in given if isinstance(t, Tensor))
        return func(*args, **(kwargs or {}))

    def facts(self, processes: int, steps: int) -> dict[str, list[dict[str, Any]]]:
        """Purpose -> operations, each with calls, bytes put in and bytes sent on a ring, per step."""
        result: dict[str, list[dict[str, Any]]] = {}
        for (name, kind), calls in sorted(self.calls.items()):
            put_in = self.bytes[name, kind]
            result.setdefault(name, []).append(
                {
                    "operation": kind,
                    "calls": calls / steps,
                    "bytes": put_in / steps,
                    "ring_bytes": ring_bytes(kind, put_in, processes) / steps,
                }
            )
        return result


def ring_bytes(kind: str, put_in: float, processes: int) -> float:
    """Bytes that each process sends (and receives) for a collective on a ring.

    Args:
        kind: all-reduce, all-gather, reduce-scatter, broadcast or barrier.
        put_in: bytes of the tensor that a process puts in; of an all-gather, its own part.
        processes: how many.
    """
    others = processes - 1
    share = {"all-reduce": 2 * others / processes, "all-gather": others, "reduce-scatter": others / processes}
    return put_in * share.get(kind, others / processes)
