"""DeepSpeed's ZeRO, stages 1 and 2: each process keeps a share of the gradients and of what optimisers remember.

Weights stay whole on every process, so that evaluation and checkpoints are as ever. (FSDP 2 shares them out, too,
frozen ones included.) DeepSpeed steps inside the backward pass, and lays a group's parameters end to end: a process
updates one shard of that.
"""

from __future__ import annotations

import logging
import os
from copy import deepcopy
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from mmcl.common.errors import UserError
from mmcl.engine.config import TrainConfig
from mmcl.engine.optimiser import RunOptimiser
from mmcl.engine.optimiser_states import STEP, States

SEE = "see mmcl/recipes/accelerate/deepspeed_zero2.yaml"


def zero_wanted() -> bool:
    """Whether ``accelerate launch`` was asked for DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def check_zero(accelerator: Accelerator) -> None:
    """Whether this is a kind of ZeRO that the loop can train with.

    Raises:
        UserError: it is not; what is.
    """
    given = accelerator.state.deepspeed_plugin.deepspeed_config
    zero = given.get("zero_optimization", {})
    if zero.get("stage") not in (1, 2):
        raise UserError(f"mmcl train takes DeepSpeed's stages 1 and 2, not {zero.get('stage')}: to share out weights, "
                        "use mmcl/recipes/accelerate/fsdp2_llm.yaml")  # fmt: skip
    if any((zero.get(part) or {}).get("device", "none") != "none" for part in ("offload_optimizer", "offload_param")):
        raise UserError(f"mmcl train offloads nothing with DeepSpeed: {SEE}")
    for part in ("optimizer", "scheduler"):
        if part in given:
            raise UserError(f"the {part} is the run's own, not DeepSpeed's: take it out of the configuration ({SEE})")


def configure_zero(accelerator: Accelerator, config: TrainConfig) -> None:
    """Tell DeepSpeed what the run's configuration says."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    engine, processes = config.engine, accelerator.num_processes
    given = accelerator.state.deepspeed_plugin.deepspeed_config
    clips = max(1, config.data.batch_size // (processes * engine.accumulation))  # tells its log alone
    given |= {
        "gradient_accumulation_steps": engine.accumulation, "train_micro_batch_size_per_gpu": clips,
        "train_batch_size": clips * processes * engine.accumulation, "gradient_clipping": engine.clip_norm,
        # Autocast decides precision, as without DeepSpeed, and no module's gradients are sent with fewer bits.
        "fp16": {"enabled": False}, "bf16": {"enabled": False},
        "torch_autocast": {
            "enabled": engine.precision == "bf16", "dtype": "bfloat16", "lower_precision_safe_modules": [],
        },
    }  # fmt: skip


class ZeroStates(States):
    """What optimisers remember, put together from the shards of all processes (collective), or cut up again.

    Args:
        optimiser: before DeepSpeed has replaced its parameters by shards.
    """

    def __init__(self, optimiser: RunOptimiser) -> None:
        self.parameters = {group["name"]: list(group["params"]) for group in optimiser.param_groups}

    def read(self, part: Optimizer, group: dict[str, Any]) -> list[dict[str, Any]]:
        """States of the group's parameters, whole."""
        (shard,) = group["params"]
        found = part.state.get(shard, {})
        return [
            # A count is copied: parameters that share one tensor of it would be counted together when a run is resumed.
            {key: _whole(value, own) if _long(value, shard) else deepcopy(value) for key, value in found.items()}
            if own.requires_grad
            else {}
            for own in self.parameters[group["name"]]
        ]

    def write(self, part: Optimizer, group: dict[str, Any], entries: list[dict[str, Any]]) -> None:
        """Restore what :meth:`read` gave."""
        (shard,) = group["params"]
        own: dict[str, Any] = {}
        for parameter, entry in zip(self.parameters[group["name"]], entries, strict=True):
            for key, value in entry.items():
                if key == STEP or not isinstance(value, Tensor) or value.shape != parameter.shape:
                    own[key] = value
                    continue
                here = own.setdefault(key, torch.zeros_like(shard))
                if (places := _places(parameter)) is not None:
                    inside, along = places
                    here[along] = value.flatten()[inside].to(here)
        if own:
            part.state[shard] = own


def _long(value: Any, shard: Tensor) -> bool:
    """Whether there is a number of it for each weight."""
    return isinstance(value, Tensor) and value.shape == shard.shape


def _places(parameter: Tensor) -> tuple[slice, slice] | None:
    """Which part of a parameter this process updates, and where that lies in its shard; None where it is none."""
    found = getattr(parameter, "_hp_mapping", None)
    if found is None:
        return None
    return tuple(  # type: ignore[return-value]
        slice(address.start, address.start + address.numel)
        for address in (found.lp_fragment_address, found.hp_fragment_address)
    )


def _whole(values: Tensor, parameter: Tensor) -> Tensor:
    """One number for each weight of a parameter; collective."""
    whole = values.new_zeros(parameter.numel())
    if (places := _places(parameter)) is not None:
        inside, along = places
        whole[inside] = values[along]
    torch.distributed.all_reduce(whole)
    return whole.view(parameter.shape)
