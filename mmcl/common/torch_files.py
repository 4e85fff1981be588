"""Files that ``torch.save`` wrote, by anybody: plain values and dense tensors come out, and no code runs."""

from __future__ import annotations

import math
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.limits import GIB, bounded_memory, is_no_memory

DEEPEST = 40
MOST_VALUES = 5_000_000


def read_torch(path: Path) -> Any:
    """What a file of ``torch.save`` holds, on the CPU.

    Mappings, lists, numbers, texts and dense tensors that lie in the file in full. Objects are refused, since loading
    them runs code of the file's; so are tensors that are much larger than their file, and what contains itself.

    Raises:
        UserError: no such file, damaged, or one of these.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    size = path.stat().st_size
    try:
        _check_packing(path, size)
        with bounded_memory(4 * size + GIB), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own, about what is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
        _check_values(content, size)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: not a file of plain tensors (pickled objects are refused because loading them runs code from "
            "the file); save the network's state dict with torch.save(model.state_dict(), FILE)"
        ) from error
    except Exception as error:  # what torch raises depends on where a file is damaged: a dozen kinds
        words = "it asks for more memory than such a file needs" if is_no_memory(error) else _line(error)
        raise UserError(f"{path}: not a file that torch can read, or a damaged one ({words})") from error
    return content


def _check_packing(path: Path, size: int) -> None:
    """Torch packs nothing: a packed member may unpack to anything."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > size:
        raise UserError(f"{path}: its members are packed, which torch.save never does: refused")


def _check_values(content: Any, size: int) -> None:
    """Raise ValueError where something contains itself, is no plain value, or is larger than its file.

    Tensors may share their numbers; those that each distinct storage holds are counted once.
    """
    waiting: list[tuple[Any, int]] = [(content, 0)]
    count, shown = 0, 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > DEEPEST or count > MOST_VALUES:
            raise ValueError("it contains itself, or is nested without end")
        if isinstance(value, Tensor):
            shown = max(shown, _check_tensor(value))
        elif isinstance(value, Mapping):
            waiting += [(entry, depth + 1) for entry in value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += [(entry, depth + 1) for entry in value]
    if shown > size:
        raise ValueError("a tensor is announced larger than the file")


def _check_tensor(tensor: Tensor) -> int:
    """Bytes of a tensor's numbers, each counted as often as it is shown."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise ValueError(f"a tensor of another kind than plain numbers ({tensor.layout}, {tensor.device})")
    return math.prod(tensor.shape) * tensor.element_size()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
