"""What a machine can do at best: products of large square matrices, and the share of their speed that a form reaches.

A share says how much there is to gain without fewer multiplications. It counts the multiplications in convolutions and
matrix products of a form as it runs, each as two operations; all else that takes time (copies, additions, activations)
makes it smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from mmcl.benchmarks.timing import Timing, compare
from mmcl.common.device import computes_bf16

SIZES = (512, 1024, 1536)  # rows and columns
CHOOSING = 1.0  # seconds in which the best product of a precision is found
LEAST = 3  # calls of each product at least
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Product:
    """A product of two square matrices.

    Attributes:
        name: what computes it.
        size: rows and columns.
        call: computes it once.
    """

    name: str
    size: int
    call: Callable[[], object]


NO_PRODUCTS: Mapping[str, Product] = {}


@dataclass(frozen=True)
class Roof:
    """The best product of a precision, as it was measured beside what it is a measure of.

    Attributes:
        precision: fp32, bf16, fp16 or int8.
        product: what computed it.
        size: rows and columns of its matrices.
        threads: that it was computed on.
        rate: operations a second, two for each multiplication.
    """

    precision: str
    product: str
    size: int
    threads: int
    rate: float

    def share(self, products: float, seconds: float) -> float:
        """The part of this rate that so many multiplications in so many seconds are."""
        return 2 * products / seconds / self.rate

    def facts(self, products: float, seconds: float) -> dict[str, Any]:
        """What a line of a table says of a form: its multiplications, its share, and of what that is one."""
        return {"products": products, "share": self.share(products, seconds), "roof": asdict(self)}


def best_products(
    precisions: Iterable[str], threads: int, device: str = "cpu", seconds: float = CHOOSING,
    sizes: Sequence[int] = SIZES,
) -> dict[str, Product]:  # fmt: skip
    """Precision -> the quickest product for its size; precisions that the device has no quick products in are left out.

    Args:
        precisions: keys of :data:`TYPES`, or int8.
        threads: of torch and of onnxruntime.
        device: of torch.
        seconds: to find each of them.
        sizes: that are tried.
    """
    found = {}
    for precision in precisions:
        tried = {str(number): each for number, each in enumerate(_products(precision, threads, device, sizes))}
        if tried:
            wait = torch.cuda.synchronize if device.startswith("cuda") else None
            calls = {name: each.call for name, each in tried.items()}
            times = compare(calls, seconds, threads=threads, least=LEAST, warm=1, synchronise=wait)
            best = max(tried, key=lambda name: tried[name].size ** 3 / times[name].low)
            found[precision] = tried[best]
    return found


def compare_under_roofs(
    variants: Mapping[str, Callable[[], object]], best: Mapping[str, Product], seconds: float, *, threads: int,
    **how: Any,
) -> tuple[dict[str, Timing], dict[str, Roof]]:  # fmt: skip
    """Time variants and the best products in turns, so that a busy machine slows them alike.

    Args:
        variants: as :func:`~mmcl.benchmarks.timing.compare` takes them.
        best: of :func:`best_products`.
        seconds: for the variants; the products take time of their own on top of it.
        threads: of torch.
        how: the other arguments of ``compare``.

    Returns:
        A timing for each variant, and a roof for each precision.
    """
    roofs = {f"best product in {precision}": each.call for precision, each in best.items()}
    times = compare({**variants, **roofs}, seconds, threads=threads, **how)
    found = {
        precision: Roof(precision, each.name, each.size, threads, 2 * each.size**3 / times[name].seconds)
        for name, (precision, each) in zip(roofs, best.items(), strict=True)
    }
    return {name: times[name] for name in variants}, found


def _products(precision: str, threads: int, device: str, sizes: Sequence[int]) -> Iterator[Product]:
    """What can compute a product in a precision, at each size."""
    where = torch.device(device)
    if precision == "bf16" and not computes_bf16(where):
        return
    for size in sizes:
        if precision == "int8":
            a, b = (torch.randint(-60, 60, (size, size), dtype=torch.int8, device=where) for _ in range(2))
            yield Product("torch._int_mm", size, lambda a=a, b=b: torch._int_mm(a, b))  # type: ignore[misc]
        else:
            c, d = (torch.randn(size, size, device=where).to(TYPES[precision]) for _ in range(2))
            yield Product("torch.mm", size, lambda c=c, d=d: c @ d)  # type: ignore[misc]
    if where.type == "cpu" and precision in ("fp32", "int8") and find_spec("onnx") and find_spec("onnxruntime"):
        yield from _in_onnxruntime(precision, threads, sizes)


def _in_onnxruntime(precision: str, threads: int, sizes: Sequence[int]) -> Iterator[Product]:
    """The product that the graphs' own runtime computes: in int8, of unsigned with signed numbers, as they do."""
    from onnx import TensorProto, helper

    from mmcl.models.session import open_session

    kind = "MatMul" if precision == "fp32" else "MatMulInteger"
    types = [TensorProto.FLOAT] * 3 if kind == "MatMul" else [TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32]
    ends = [helper.make_tensor_value_info(name, each, ["n", "n"]) for name, each in zip("abc", types, strict=True)]
    graph = helper.make_graph([helper.make_node(kind, ["a", "b"], ["c"])], kind, ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session, draw = open_session(model.SerializeToString(), threads), np.random.default_rng(0)
    for size in sizes:
        feeds = {
            name: draw.integers(0, 60, (size, size)).astype(helper.tensor_dtype_to_np_dtype(each))
            for name, each in zip("ab", types[:2], strict=True)
        }
        yield Product(f"onnxruntime {kind}", size, lambda feeds=feeds: session.run(None, feeds))  # type: ignore[misc]


def roofs_in_words(lines: Iterable[Mapping[str, Any]]) -> str:
    """What the shares of some lines are shares of: each precision's product, and its rate on each number of threads."""
    said: dict[tuple[str, str], dict[int, list[float]]] = {}
    for roof in (line["roof"] for line in lines if line.get("roof")):
        named = f"{roof['product']} of {roof['size']} x {roof['size']}"
        said.setdefault((roof["precision"], named), {}).setdefault(roof["threads"], []).append(roof["rate"] / 1e9)
    parts = []
    for (precision, named), rates in said.items():
        speeds = ", ".join(f"{_span(values)} on {threads} thread(s)" for threads, values in sorted(rates.items()))
        parts.append(f"{precision} {named}, {speeds}")
    return f"Best products here, in 1e9 operations a second: {'; '.join(parts)}." if parts else ""


def _span(values: list[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"
