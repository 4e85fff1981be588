"""What any task may call: scores of raw joints, random numbers that resume, clips recalled, adversaries, frozen towers.

The contract in :mod:`mmcl.tasks.base` says what the engine asks of a task; here is what a task may ask for, so that
whoever writes one finds all of it in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mmcl.common.draws import Draws, named_seed
from mmcl.data.dataset import ClipDataset, collate, to_device
from mmcl.data.sampler import Key
from mmcl.tasks.context import Context


class Toolbox(nn.Module):
    """An encoder with what prepares its clips, and functions that keep to what :class:`~mmcl.tasks.base.Task` promises.

    Args:
        context: of the task.

    Attributes:
        frozen_towers: what :meth:`hold` took in without making it a submodule.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.encoder = context.encoder
        self.preprocess = context.preprocess
        self.augmentation = context.augmentation
        self.store, self.seed = context.store, context.seed
        self.frozen_towers: list[nn.Module] = []  # attributes, but no submodules

    def scores(self, joints: Tensor, lengths: Tensor) -> Tensor:
        """Class scores (N, K) of raw joints (N, M, T, V, C): exactly what the exported bundle computes."""
        return self.preprocess.averaged(self.encoder, joints, lengths)

    def features(self, joints: Tensor, lengths: Tensor) -> Tensor:
        """The encoder's features (N, D) of raw joints (N, M, T, V, C)."""
        return self.preprocess.averaged(self.encoder.features, joints, lengths)

    def augmented(self, batch: dict[str, Any]) -> Tensor:
        """Preprocessed encoder input (N, M, T, V, C) of a training batch, augmented where the stage says so."""
        return self.augmented_masked(batch)[0]

    def augmented_masked(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """What :meth:`augmented` gives, and (N, M, T, V) bool, which joints are there.

        Always in float32: under autocast, coordinates would lose the digits that motion streams are made of. Where the
        batch has ``crop_keys``, they choose what of each clip is looked at.
        """
        joints, augmentation = batch["joints"], self.augmentation if batch.get("augment", True) else None
        with torch.autocast(joints.device.type, enabled=False):
            return self.preprocess.masked(
                joints, batch["lengths"], batch["keys"], augmentation, crop_keys=batch.get("crop_keys")
            )

    def noise(self, batch: Mapping[str, Any], name: str) -> Draws:
        """Random numbers of each clip of a batch: a pure function of run seed, epoch, clip and name.

        They do not depend on how clips are spread over micro-batches and processes.
        """
        return Draws(batch["keys"], name)

    def dice(self, batch: Mapping[str, Any], name: str) -> Draws:
        """Random numbers that all clips of a step share: a pure function of run seed, step and name."""
        return Draws(batch["step_key"], name, shared=True)

    def generator(self, name: str) -> torch.Generator:
        """A generator on the CPU for ``begin`` and ``end`` of a stage: a pure function of run seed and name."""
        return torch.Generator().manual_seed(named_seed(self.seed, name))

    def recall(self, clips: Sequence[int] | np.ndarray | Tensor, epoch: int) -> dict[str, Any]:
        """A batch of any clips of the store, for memories that keep clip numbers: recordings are in no checkpoint.

        Args:
            clips: (n,) positions in the store.
            epoch: ``batch["epoch"]``; with it, ``keys`` are those that the clips have in this epoch.

        Returns:
            ``joints``, ``lengths``, ``keys`` and ``clips`` on the task's device.
        """
        numbers = clips.tolist() if isinstance(clips, Tensor) else [int(clip) for clip in clips]
        dataset = ClipDataset(self.store, self.seed)
        batch = collate([dataset[Key(epoch, clip)] for clip in numbers])
        del batch["labels"]  # they count among all of the store's classes here
        parameter = next(self.encoder.parameters())
        batch["joints"] = batch["joints"].to(self.preprocess.dtype)
        return to_device(batch, parameter.device)

    def applied(self, function: Callable[..., Any], *tensors: Any) -> Any:
        """Call a function that uses the task's weights outside ``forward``, on rows that are no clips of the store.

        Sharded weights are gathered on the way in, as they are for ``forward``.
        """
        return function(*tensors)

    def fixed(self, module: nn.Module, *inputs: Tensor) -> Any:
        """Call a module as it is, in evaluation mode: gradients pass through it, and none reaches its weights.

        So an adversary is met in ``forward``: its weights are detached, and its batch statistics copied, since it may
        be trained in the same forward pass.
        """
        state = {name: parameter.detach() for name, parameter in module.named_parameters()}
        state |= {name: buffer.clone() for name, buffer in module.named_buffers()}
        modes = {part: part.training for part in module.modules()}
        try:
            return functional_call(module.eval(), state, inputs)
        finally:
            for part, mode in modes.items():
                part.training = mode

    def idle(self, *modules: nn.Module | None) -> Tensor:
        """Zero that depends on every trained parameter of these modules, to be added to a loss that does not.

        Parameters that are sharded need no such thing, and are left out.
        """
        zero = next(self.encoder.parameters()).new_zeros(())
        for module in modules:
            for parameter in module.parameters() if module is not None else ():
                if parameter.requires_grad and not hasattr(parameter, "full_tensor"):
                    # An empty slice: nothing to compute, and no infinite weight can turn zero into not-a-number.
                    zero = zero + parameter.flatten()[:0].sum()
        return zero

    def hold(self, name: str, tower: nn.Module) -> None:
        """Make a tower the attribute ``name``: as a submodule if anything of it is trained, else as a frozen tower.

        A frozen tower is in evaluation mode for good, moves with the task from device to device, and is in nothing
        that goes through its modules: parameters, state, what is wrapped, broadcast, reduced or sharded.
        """
        if any(parameter.requires_grad for parameter in tower.parameters()):
            setattr(self, name, tower)
        else:
            self.frozen_towers.append(tower.eval())
            object.__setattr__(self, name, tower)  # past nn.Module, which would take it in

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Toolbox:
        super()._apply(fn, recurse)
        for tower in self.frozen_towers:
            tower._apply(fn)
        return self
