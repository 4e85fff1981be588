"""Devices that are asked for by name."""

from __future__ import annotations

import pytest
import torch

from mmcl.common.device import pick_device
from mmcl.common.errors import UserError


def test_a_device_computes_or_is_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    for name in ("meta", "nonsense", "cuda:99", "xpu"):
        with pytest.raises(UserError, match=f"--device {name} is not to be had here"):
            pick_device(name)
