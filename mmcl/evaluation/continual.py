"""Judging a run that learned its classes part after part: what it knew of every part after every part."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmcl.common.documents import read_mapping
from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.metrics import score_metrics
from mmcl.evaluation.readouts import random_encoder
from mmcl.evaluation.reporting.pictures import draw_stream
from mmcl.evaluation.stream_matrix import part_accuracies, stream_metrics
from mmcl.models.bundle import read_tensors
from mmcl.models.folder import open_model
from mmcl.models.model import Model
from mmcl.models.run_checkpoints import LEARNED
from mmcl.tasks.continual.replay import DROPPED

PICTURE = "parts.png"
_KEPT = re.compile(r"(part|probe)(\d+)")  # checkpoints that task continual keeps, one a part


@dataclass(frozen=True)
class ContinualEvaluationOptions:
    """Options of :class:`ContinualEvaluation`.

    Attributes:
        released: count forgetting as the released code of CHARON does, see
            :func:`mmcl.evaluation.stream_matrix.stream_metrics`.
        seed: of the untrained network that forward transfer is measured against.
    """

    released: bool = False
    seed: int = 0


class ContinualEvaluation(Evaluation):
    """The checkpoints that task ``continual`` kept, each judged on every part of the classes."""

    options_type: ClassVar[type] = ContinualEvaluationOptions

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """The numbers of ``stream_metrics``, class- and task-incremental, and those of top-1 after the last part.

        Arrays: ``class_incremental`` and ``task_incremental`` (J, P), accuracy on part i after part j; scores and
        labels of the last kept checkpoint.

        Raises:
            UserError: no run with kept checkpoints, a protocol whose classes arrive all at once, or not those of the
                run.
        """
        if not data.sides.stream:
            raise UserError(f"{data.protocol} lets all classes arrive at once: evaluation continual needs its parts")
        outputs = data.outputs(model.class_names)
        parts = tuple(outputs[part] for part in data.sides.stream)
        kept = kept_checkpoints(model.path)
        clips, labels = data.clips, data.targets(data.clips, model.class_names)
        rows, scores = [], np.empty(0)
        for number, folder in kept:
            _check_arrived(folder, number, parts, len(kept) == 1)
            known = open_model(folder, layout=data.store.layout, device=model.device)
            scores = apply(known, clips)
            rows.append(part_accuracies(scores, labels, parts))
        any_class, own_part = (np.stack(table) for table in zip(*rows, strict=True))
        encoder = random_encoder(model, self.options.seed)
        chance = apply(lambda joints, lengths: encoder(model.preprocess(joints, lengths)), clips)
        ways = zip(("", "task_incremental"), (any_class, own_part), part_accuracies(chance, labels, parts), strict=True)
        found = {name: stream_metrics(table, start, self.options.released) for name, table, start in ways}
        metrics = {**score_metrics(scores, labels), **found[""], "task_incremental": found["task_incremental"]}
        arrays = {"class_incremental": any_class, "task_incremental": own_part, "scores": scores.astype(np.float32),
                  "labels": labels, "class_names": np.array(model.class_names)}  # fmt: skip
        facts = {"parts": len(parts), "kept": [folder.name for _, folder in kept], **_cost(kept[-1][1], model)}
        facts |= {"cost_by_part": cost_by_part(kept, model)}
        if 1 < len(kept) < len(parts):
            facts["note"] = f"the run has learned {len(kept)} of {len(parts)} parts: averages are over those"
        return Verdict(metrics, "final_average", data.ids(clips), scores.argmax(axis=1) == labels, arrays, facts)

    def draw(self, verdict: Verdict, folder: Path, store: ClipStore | None) -> list[str]:
        """The matrix, and the accuracy on what has been learned so far."""
        any_class, own_part = verdict.arrays["class_incremental"], verdict.arrays["task_incremental"]
        draw_stream(folder / PICTURE, any_class, own_part)
        head = "| after part | " + " | ".join(str(part + 1) for part in range(any_class.shape[1])) + " |"
        lines = [
            f"| {row + 1} | " + " | ".join("" if np.isnan(value) else f"{value:.1%}" for value in values) + " |"
            for row, values in enumerate(any_class)
        ]
        table = "\n".join([head, "|---" * (any_class.shape[1] + 1) + "|", *lines])
        return ["## Accuracy on every part, any class being an answer", table, f"![Accuracy by part]({PICTURE})"]


def kept_checkpoints(run: Path | None) -> list[tuple[int, Path]]:
    """Number of the part, and folder, of the checkpoints that a run of task ``continual`` kept, in order.

    Where a part has a probing stage, what was known after that counts.

    Raises:
        UserError: none is there.
    """
    found: dict[int, Path] = {}
    for folder in sorted((run / "checkpoints").glob("p*")) if run is not None else []:
        if (match := _KEPT.fullmatch(folder.name)) and (folder / LEARNED).is_file():
            found[int(match[2])] = folder  # sorted: probe3 comes behind part3
    if not found or sorted(found) != list(range(len(found))):
        raise UserError(
            f"{run} has no checkpoint of every part that it learned: evaluation continual needs the run folder of "
            "`mmcl train --task.name=continual`, not a bundle"
        )
    return sorted(found.items())


def cost_by_part(kept: list[tuple[int, Path]], model: Model) -> list[dict[str, Any]]:
    """Of each part: seconds that its steps took, probing among them, and what the memory held and took afterwards.

    Seconds are those of ``metrics.jsonl``, where its lines say them; what lies between stages is not in them.
    """
    file = kept[0][1].parent.parent / "metrics.jsonl"
    seconds: dict[int, float] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        entry = json.loads(line)
        if (stage := _KEPT.fullmatch(str(entry.get("stage")))) and "seconds" in entry:
            seconds[int(stage[2])] = seconds.get(int(stage[2]), 0.0) + entry["seconds"]
    return [
        {"part": number + 1, "training_seconds": round(seconds[number], 2) if number in seconds else None,
         **_cost(folder, model)}
        for number, folder in kept
    ]  # fmt: skip


def _check_arrived(folder: Path, number: int, parts: tuple[np.ndarray, ...], single: bool) -> None:
    """Whether a checkpoint has learned just the parts up to its own; where it is the only one, it may know all."""
    arrived = read_tensors(folder / LEARNED).get("arrived")
    known = set() if arrived is None else set(arrived.nonzero().flatten().tolist())
    expected = {int(output) for part in parts[: number + 1] for output in part}
    everything = {int(output) for part in parts for output in part}
    if known != expected and not (single and known == everything):
        raise UserError(f"{folder} has learned other classes than the first {number + 1} parts: judge the run by the "
                        "protocol that it was trained by")  # fmt: skip


def _cost(folder: Path, model: Model) -> dict[str, Any]:
    """What the memory held at the end, and its size in bytes as it would be stored on its own."""
    places = read_tensors(folder / LEARNED).get("memory.clips")
    if places is None:
        return {"memory_clips": 0, "memory_bytes": 0}
    held = int((places != DROPPED).sum())
    task = read_mapping(folder.parent.parent / "config.yaml").get("task") or {}
    interval = int(task.get("interval", 1)) if task.get("method") == "charon" else 1
    frames = -(-model.preprocess.options.window // max(interval, 1))
    one = model.preprocess.persons * frames * model.encoder.layout.joint_count * model.preprocess.channels * 4
    return {"memory_clips": held, "memory_frames_a_clip": frames, "memory_bytes": held * one}
