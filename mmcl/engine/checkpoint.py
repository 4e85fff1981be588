"""Checkpoints of a run: what was learned, and the exact position, so that a resumed run ends in the same weights.

``checkpoints/last`` holds ``learned.safetensors`` (the task's tensors, without what is frozen in towers),
optimiser, gradient scaler and random states (Accelerate), the position, and ``probe.safetensors``: a few clips with
the scores that this very process gave them, which `mmcl export` compares the bundle with. All tensors are whole,
however a run shards them: what one number of processes saved, another may resume, evaluate or export.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.checkpointing import load_accelerator_state, save_accelerator_state
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.files import recover_folder, replace_folder, write_json
from mmcl.engine.optimiser import whole
from mmcl.tasks.base import Task

LEARNED, PROBE, POSITION = "learned.safetensors", "probe.safetensors", "position.json"


class Position:
    """Where a run is: epochs finished, steps finished in the current one; best and last validation accuracy so far.

    Args:
        data: fingerprint of the clips it is trained on.
        stretches: in how many shares of their own the processes draw clips; 1 where they share one order.
    """

    def __init__(self, data: str, stretches: int = 1) -> None:
        self.epoch, self.step, self.best, self.data, self.stretches = 0, 0, -1.0, data, stretches
        self.last: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in ("epoch", "step", "best", "last", "data", "stretches")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave.

        Raises:
            UserError: the clips, or their shares, are no longer those the run was started on.
        """
        if state["data"] != self.data:
            raise UserError("cannot resume: the clip store's content has changed since the run was started")
        if state.get("stretches", 1) != self.stretches:
            raise UserError(
                f"cannot resume: with data.sharded the run was started on {state['stretches']} processes, and another "
                "number of them would draw other clips"
            )
        self.epoch, self.step, self.best = int(state["epoch"]), int(state["step"]), float(state["best"])
        self.last = state.get("last")


class Checkpoints:
    """Save and load a run's state.

    Args:
        folder: ``RUN/checkpoints``.
        accelerator: the processes.
        task: the task, before it is wrapped or sharded.
        position: kept up to date by the loop.
        probe: a small evaluation batch (joints, lengths), on the CPU.
    """

    def __init__(
        self, folder: Path, accelerator: Accelerator, task: Task, position: Position, probe: dict[str, Tensor]
    ) -> None:
        self.folder, self.accelerator, self.task = folder, accelerator, task
        self.position, self.probe = position, probe
        self.twin = copy.deepcopy(task.encoder).cpu().eval()  # made while there is a whole encoder to copy

    def exists(self, name: str = "last") -> bool:
        """Whether there is such a checkpoint; collective, because it puts one back that a kill left half renamed."""
        if self.accelerator.is_main_process:
            recover_folder(self.folder / name)
        self.accelerator.wait_for_everyone()
        return (self.folder / name / LEARNED).is_file()

    def save(self, optimiser: Any, name: str = "last") -> None:
        """Write a checkpoint; collective, every process calls it."""
        temporary = self.folder / f".{name}.saving"
        if self.accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)  # what a killed process may have left
            temporary.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        # Accelerate's save_state would write every tensor of the model, billions of frozen LLM weights included.
        save_accelerator_state(
            str(temporary), [], [optimiser], [], [], self.accelerator.process_index, self.accelerator.step,
            self.accelerator.scaler,
        )  # fmt: skip
        learned = {key: whole(tensor.detach()) for key, tensor in self.task.state_dict().items()}
        if self.accelerator.is_main_process:
            learned = {key: tensor.cpu().contiguous().clone() for key, tensor in learned.items()}
            save_file(learned, temporary / LEARNED)
            save_file(self._probe_scores(learned), temporary / PROBE)
            write_json(temporary / POSITION, self.position.state_dict())
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            replace_folder(temporary, self.folder / name)
        self.accelerator.wait_for_everyone()

    def _probe_scores(self, learned: dict[str, Tensor]) -> dict[str, Tensor]:
        """The probe with its scores by the network as it is now, on the CPU: a GPU's TF32 would differ at 1e-3."""
        self.twin.load_state_dict(_encoder_part(learned))
        preprocess = copy.deepcopy(self.task.preprocess).cpu().eval()
        with torch.no_grad():
            scores = self.twin(preprocess(self.probe["joints"], self.probe["lengths"]))
        return {**self.probe, "scores": scores}

    def load_learned(self, name: str = "last") -> None:
        """Restore what was learned, before the task is wrapped or sharded.

        Raises:
            UserError: there is no checkpoint, or it does not fit the task.
        """
        folder = find_checkpoint(self.folder, name)
        try:
            self.task.load_state_dict(load_file(folder / LEARNED))
        except (RuntimeError, SafetensorError) as error:
            raise UserError(f"{folder} is damaged or of another model: {error}") from error

    def load_state(self, optimiser: Any, name: str = "last") -> None:
        """Restore everything else: optimiser, gradient scaler, random states, position.

        Raises:
            UserError: there is no checkpoint, or its position cannot be gone on from.
        """
        folder, accelerator = find_checkpoint(self.folder, name), self.accelerator
        self.position.load_state_dict(json.loads((folder / POSITION).read_text(encoding="utf-8")))
        state = load_accelerator_state(
            str(folder), [], [optimiser], [], [], accelerator.process_index, accelerator.scaler
        )
        accelerator.step = state.get("step", accelerator.step)


def encoder_tensors(checkpoint: Path) -> tuple[dict[str, Tensor], int]:
    """The encoder's tensors in a checkpoint of a run, by their names in the encoder, and how many others there are."""
    learned = load_file(checkpoint / LEARNED)
    own = _encoder_part(learned)
    return own, len(learned) - len(own)


def _encoder_part(learned: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors among a task's, by their names in the encoder."""
    return {key.removeprefix("encoder."): tensor for key, tensor in learned.items() if key.startswith("encoder.")}


def trained_data(checkpoint: Path) -> str:
    """Fingerprint of the clips that a run was trained on."""
    return str(json.loads((checkpoint / POSITION).read_text(encoding="utf-8"))["data"])


def find_checkpoint(folder: Path, name: str = "last") -> Path:
    """The folder of one checkpoint of a run.

    Args:
        folder: ``RUN/checkpoints``.
        name: ``last`` or ``best``.

    Raises:
        UserError: it is not there.
    """
    path = folder / name
    if not path.exists() and (folder / f".{name}.old").is_dir():  # killed between two renames: the older one is whole
        path = folder / f".{name}.old"
    if not (path / LEARNED).is_file():
        raise UserError(
            f"no checkpoint at {path}: has the run saved one? (give the run folder, see `mmcl train --help`)"
        )
    return path
