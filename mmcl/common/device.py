"""Which device a script works on, and what it is good at."""

from __future__ import annotations

import torch

from mmcl.common.errors import UserError


def pick_device(name: str | None = None) -> torch.device:
    """The device asked for, or a GPU where there is one.

    Raises:
        UserError: this machine, or this PyTorch, does not have it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name} is not to be had here ({str(error).splitlines()[0]})") from error
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether products in bf16 are worth while: oneDNN has them for AVX-512, AMX and Arm, torch's own loops crawl."""
    return device.type != "cpu" or (
        torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
