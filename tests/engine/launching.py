"""What ``accelerate launch --config_file`` makes of a configuration that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from mmcl.engine.recipes import RECIPES

CONFIGURATIONS = sorted((RECIPES / "accelerate").glob("*.yaml"))


def environment(configuration: Path, monkeypatch) -> tuple[Any, dict[str, str]]:
    """The launcher's arguments, and the environment of its processes."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    words = ["--config_file", str(configuration), "mmcl/train.py"]
    given, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    given.deepspeed_fields_from_accelerate_config = (
        ""  # which ones a file of DeepSpeed's own must not repeat: none is given
    )
    monkeypatch.undo()
    variables = prepare_deepspeed_cmd_env(given)[1] if given.use_deepspeed else prepare_multi_gpu_env(given)
    wanted = ("FSDP_", "ACCELERATE_USE_", "ACCELERATE_MIXED", "ACCELERATE_DEEPSPEED", "ACCELERATE_GRADIENT")
    return given, {key: value for key, value in variables.items() if key.startswith(wanted)}
