"""Checkpoints of a run: what was learned, and the exact position, so that a resumed run ends in the same weights.

``checkpoints/last`` holds ``learned.safetensors`` (the task's tensors, without what is frozen in towers),
``training.pt`` (optimiser and gradient scaler), the random states of each process, the position, and
``probe.safetensors``: made-up clips with the scores that this very process gave them, which `mmcl export` compares the
bundle with. All tensors are whole, however a run shards them, and finite: what one number of processes saved, another
may resume, evaluate or export.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmcl.common.distributed import purpose
from mmcl.common.errors import UserError
from mmcl.common.files import recover_folder, replace_folder, room_for, write_json
from mmcl.common.torch_files import read_torch
from mmcl.engine.digests import FILES, check_digests, digests
from mmcl.engine.optimiser import RunOptimiser
from mmcl.engine.optimiser_states import tensors_in, whole
from mmcl.engine.position import Position, read_position
from mmcl.engine.random_states import random_file, random_states, restore_random_states
from mmcl.models.probe import made_up_clips
from mmcl.models.recorded_scores import check_probe
from mmcl.models.run_checkpoints import ENCODER, LEARNED, POSITION, PROBE, find_checkpoint
from mmcl.tasks.base import Task

TRAINING = "training.pt"


class Checkpoints:
    """Save and load a run's state.

    Args:
        folder: ``RUN/checkpoints``.
        accelerator: the processes.
        task: the task, before it is wrapped or sharded.
        position: kept up to date by the loop.
        seed: of the run.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, task: Task, position: Position, seed: int) -> None:
        self.folder, self.accelerator, self.task, self.position = folder, accelerator, task, position
        self.seed = seed
        # Copies are made while there is a whole encoder to copy.
        self.encoder = copy.deepcopy(task.encoder).cpu().eval()
        self.preprocess = copy.deepcopy(task.preprocess).cpu().eval()

    def exists(self, name: str = "last") -> bool:
        """Whether there is such a checkpoint; collective, because it puts one back that a kill left half renamed."""
        if self.accelerator.is_main_process:
            recover_folder(self.folder / name)
        self.accelerator.wait_for_everyone()
        return (self.folder / name).exists()

    def save(self, optimiser: RunOptimiser, name: str = "last") -> None:
        """Write a checkpoint; collective, every process calls it.

        Raises:
            UserError: something that would be saved is not finite. The checkpoint that was there stays.
        """
        temporary = self.folder / f".{name}.saving"
        learned = {key: whole(tensor.detach()) for key, tensor in self.task.state_dict().items()}
        training = {"optimiser": optimiser.state_dict(), "scaler": None}
        if self.accelerator.scaler is not None:
            training["scaler"] = self.accelerator.scaler.state_dict()
        self._check_finite({**learned, **dict(tensors_in(training["optimiser"], "optimiser"))})
        if self.accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)  # what a killed process may have left
            temporary.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        try:
            with room_for(self.folder / name):
                self._write(temporary, learned, training)
        except UserError:
            shutil.rmtree(temporary, ignore_errors=True)  # the room it took is what the older checkpoint may need
            raise
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            try:
                with room_for(self.folder / name):  # last, when the files of all processes are there
                    write_json(temporary / POSITION, {**self.position.state_dict(), FILES: digests(temporary)})
            except UserError:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            replace_folder(temporary, self.folder / name)
        self.accelerator.wait_for_everyone()

    def _write(self, folder: Path, learned: dict[str, Tensor], training: dict[str, Any]) -> None:
        """This process's share of a checkpoint's files."""
        torch.save(random_states(), folder / random_file(self.accelerator.process_index))
        if self.accelerator.is_main_process:
            learned = {key: tensor.cpu().contiguous().clone() for key, tensor in learned.items()}
            save_file(learned, folder / LEARNED)
            torch.save(training, folder / TRAINING)
            save_file(self._probe(learned), folder / PROBE)

    def _check_finite(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse to save what has diverged; the same on all processes, which hold the same whole tensors."""
        device = self.accelerator.device
        finite = torch.stack([tensor.isfinite().all().to(device) for tensor in tensors.values()]).tolist()
        bad = [name for name, good in zip(tensors, finite, strict=True) if not good]
        with purpose("checkpoint"):
            everywhere = self.accelerator.reduce(torch.tensor([float(len(bad))], device=device), reduction="sum")
        if everywhere.item():
            raise UserError(
                f"training has diverged by step {self.position.steps}: {len(bad)} of {len(tensors)} tensors are not "
                f"finite (the first: {bad[0] if bad else 'of another process'}), and are not saved; {self.advice()}"
            )

    def advice(self) -> str:
        """What is left of a run that has diverged, and what to try."""
        last = self.folder / "last"
        left = "nothing was saved before"
        if (last / POSITION).is_file():
            left = f"{last} is of step {read_position(last).get('steps')}"
        return (
            f"{left}; a smaller optimiser.rate, engine.clip_norm or a longer schedule.warmup_epochs may help, in "
            "another --out"
        )

    def _probe(self, learned: dict[str, Tensor]) -> dict[str, Tensor]:
        """Made-up clips with their scores by the network as it is now, on the CPU: a GPU's TF32 would differ at 1e-3.

        They are no recordings: a checkpoint may be passed on where a data set may not.
        """
        self._fill_encoder(learned)
        probe = made_up_clips(self.preprocess.source, channels=self.task.store.channels)
        with torch.no_grad():
            scores = self.preprocess.averaged(self.encoder, probe["joints"], probe["lengths"])
        return {**probe, "scores": scores.float()}

    def _fill_encoder(self, learned: dict[str, Tensor]) -> None:
        self.encoder.load_state_dict(
            {key.removeprefix(ENCODER): tensor for key, tensor in learned.items() if key.startswith(ENCODER)}
        )

    def load_learned(self, name: str = "last") -> None:
        """Restore what was learned, before the task is wrapped or sharded.

        Raises:
            UserError: there is no checkpoint, it is not what was saved, or it does not fit the task.
        """
        folder = find_checkpoint(self.folder, name)
        sealed = check_digests(folder)
        try:
            learned = load_file(folder / LEARNED)
            self.task.load_state_dict(learned)
        except (RuntimeError, OSError, SafetensorError) as error:
            raise UserError(f"{folder} is damaged or of another model: {error}") from error
        if bad := [key for key, tensor in learned.items() if not tensor.isfinite().all()]:  # none such is ever saved
            raise UserError(f"{folder} is damaged: {len(bad)} of {len(learned)} tensors are not finite ({bad[0]})")
        if not sealed and (folder / PROBE).is_file():
            self._fill_encoder(learned)
            check_probe(self.encoder, self.preprocess, folder)

    def load_random(self, name: str = "last") -> None:
        """Restore this process's random states; another number of processes than before draws anew.

        Raises:
            UserError: they are missing or damaged.
        """
        folder = find_checkpoint(self.folder, name)
        if read_position(folder)["processes"] == self.accelerator.num_processes:
            restore_random_states(folder / random_file(self.accelerator.process_index))
        else:
            set_seed(self.seed + self.position.steps, device_specific=True)

    def load_training(self, optimiser: RunOptimiser | None, name: str = "last") -> None:
        """Restore what the optimiser and the gradient scaler remember, once the task is wrapped or sharded.

        Args:
            optimiser: None where a stage begins with a new one; the scaler is that of the whole run.
            name: of the checkpoint.

        Raises:
            UserError: the file is missing, damaged, or of another optimiser.
        """
        file = find_checkpoint(self.folder, name) / TRAINING
        try:
            state = read_torch(file)
            if optimiser is not None:
                optimiser.load_state_dict(state["optimiser"])
                scaled = state["scaler"] is not None  # in fp16 the first steps may all be skipped
                if not (scaled or self.position.begins_stage() or optimiser.remembers(state["optimiser"])):
                    raise UserError("it holds no optimiser state")
            if self.accelerator.scaler is not None and state["scaler"] is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        except (UserError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"cannot resume: {file} is missing or damaged ({words:.100})") from error
