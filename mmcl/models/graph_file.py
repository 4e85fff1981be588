"""What an ONNX file is made of, before onnxruntime opens it: Python alone, a few milliseconds.

A bundle's graph is a straight line of operations. One that loops could run for ever, and one that branches or defines
functions of its own could hide such a loop, so none of these is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmcl.common.errors import UserError

MOST_BYTES, MOST_NODES = 2 << 30, 100_000
# Numbers of protobuf fields, from onnx.proto.
_GRAPH, _TRAINING, _FUNCTIONS = 7, 20, 25  # of a model
_NODE = 1  # of a graph
_OPERATION, _ATTRIBUTE = 4, 5  # of a node
_SUBGRAPHS = (6, 11)  # of an attribute
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


def check_graph_file(path: Path) -> None:
    """Whether a file may be opened by onnxruntime.

    Raises:
        UserError: it is no ONNX file, damaged, or has loops, branches or functions of its own.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: larger than {MOST_BYTES >> 30} GiB, which no graph of a bundle is")
        data = memoryview(path.read_bytes())
        graphs, nodes = 0, 0
        for number, part in _fields(data):
            if number in (_TRAINING, _FUNCTIONS):
                raise UserError(f"{path}: it defines functions of its own, which no graph of a bundle does: refused")
            if number != _GRAPH:
                continue
            graphs += 1
            for field, node in _fields(part):
                if field == _NODE:
                    nodes += 1
                    _check_node(node, path)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if graphs != 1 or not 0 < nodes <= MOST_NODES:
        raise UserError(f"{path} is damaged: it holds {graphs} graphs and {nodes} operations")


def _check_node(node: memoryview, path: Path) -> None:
    name = ""
    for field, part in _fields(node):
        if field == _OPERATION:
            name = bytes(part).decode("utf-8", "replace")
        if field == _ATTRIBUTE and any(number in _SUBGRAPHS for number, _ in _fields(part)):
            raise UserError(f"{path}: its operation '{name:.40}' holds a graph of its own, which may loop: refused")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field of a protobuf message; of numbers, the content is empty."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
            yield number, message[:0]
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FIXED_64, _FIXED_32):
            length = 8 if kind == _FIXED_64 else 4
        else:
            raise ValueError(f"no protobuf at byte {at}")
        if at + length > len(message):
            raise ValueError("cut off")
        yield number, message[at : at + length] if kind == _BYTES else message[:0]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number without end")
