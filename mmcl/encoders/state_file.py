"""Reading other people's checkpoint files: tensors only, nothing in the file is ever executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.torch_files import read_torch

DEEPEST = 4  # levels of such keys
NESTED_UNDER = ("state_dict", "model_state_dict", "model", "weights")


def load_state_file(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.pt``, ``.pth`` or ``.safetensors`` file onto the CPU.

    Tensors nested under a usual key ("state_dict", "model", …) are found there.

    Raises:
        UserError: no such file, another kind of file, a damaged one, one that needs pickled objects (refused), or one
            without tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint file at {path}")
    if path.suffix == ".safetensors":
        content: Any = _read_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        content = read_torch(path)
    else:
        raise UserError(f"{path}: a checkpoint is a .pt, .pth or .safetensors file")
    for _ in range(DEEPEST):
        if not isinstance(content, Mapping):
            break
        inner = next((content[key] for key in NESTED_UNDER if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    named = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name): tensor for name, tensor in named if isinstance(tensor, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no named tensors, so it is no state dict")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not a safetensors file, or a damaged one ({error})") from error
