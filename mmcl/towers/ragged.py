"""A file of named arrays, of which the first grows while it is written and all are memory-mapped when it is read.

Layout: the arrays one after the other, each from a multiple of 64 bytes on; then their descriptions as JSON; then the
length of these in eight bytes. NumPy has no bfloat16, so kinds are PyTorch's names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

STORED = {"bfloat16": "uint16", "float32": "float32", "int64": "int64", "int32": "int32"}
ALIGNED = 64


class RaggedWriter:
    """Writes rows (n, …) to the first array as they come, the other arrays at the end.

    Args:
        file: opened for writing, empty.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.rows = file, 0
        self.entries: dict[str, dict[str, Any]] = {}

    def append(self, rows: Tensor) -> None:
        """Add rows to the first array."""
        self.file.write(_bytes(rows))
        self.rows += len(rows)

    def finish(self, name: str, sample: Tensor, **others: Tensor) -> None:
        """Describe the first array, by a row like those it is made of, and write the others."""
        self._note(name, sample.dtype, (self.rows, *sample.shape[1:]), 0)
        for key, tensor in others.items():
            self.file.write(b"\0" * (-self.file.tell() % ALIGNED))
            self._note(key, tensor.dtype, tuple(tensor.shape), self.file.tell())
            self.file.write(_bytes(tensor))
        description = json.dumps(self.entries).encode()
        self.file.write(description + len(description).to_bytes(8, "little"))

    def _note(self, name: str, dtype: torch.dtype, shape: tuple[int, ...], start: int) -> None:
        self.entries[name] = {"kind": str(dtype).removeprefix("torch."), "shape": shape, "start": start}


class RaggedFile:
    """Read access; pickles as its path. ``file[name, first:last]`` is a copy of rows of an array, as a tensor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            file.seek(-8, 2)
            length = int.from_bytes(file.read(8), "little")
            file.seek(-8 - length, 2)
            self._entries = json.loads(file.read(length))
        self._maps = {name: self._map(**entry) for name, entry in self._entries.items()}

    def _map(self, kind: str, shape: list[int], start: int) -> np.ndarray:
        if 0 in shape:  # nothing of a file can not be mapped
            return np.empty(shape, STORED[kind])
        return np.memmap(self.path, STORED[kind], "r", start, tuple(shape))

    def __reduce__(self) -> tuple[Any, ...]:
        return RaggedFile, (self.path,)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, where: tuple[str, Any]) -> Tensor:
        name, rows = where
        tensor = torch.from_numpy(np.array(self._maps[name][rows]))
        return tensor.view(getattr(torch, self._entries[name]["kind"]))


def _bytes(tensor: Tensor) -> bytes:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
