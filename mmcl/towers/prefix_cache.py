"""With LoRA on: what enters the first adapted layer, computed once a clip and question and kept beside the clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from mmcl.data.dataset import load_crops
from mmcl.data.store import ClipStore
from mmcl.towers.cache import CacheJob, cached_rows
from mmcl.towers.chat import IGNORED
from mmcl.towers.llm import LLMTower

INSTEAD = "choose task.cache_prefix=false, task.llm.dtype=bf16, or fewer frames a clip"


@dataclass(frozen=True)
class Question:
    """What the tower is asked about each clip.

    Attributes:
        words: the instruction.
        answers: clip -> the answer that is taught with it; None where none is.
        batch_size: clips at once.
    """

    words: str
    answers: Mapping[int, str] | None = None
    batch_size: int = 16


class PrefixCache:
    """Hidden states of a tower's constant part over clips, each as long as its input is.

    Args:
        store: where the clips are; the rows lie in its ``features/`` folder.
        clips: positions of the clips covered.
        identity: of the constant part: :meth:`mmcl.towers.llm.LLMTower.prefix_fingerprint`.
        tower: cut, on the device it is to work on.
        question: about every clip.

    Attributes:
        missing: clips whose states had to be computed.
    """

    def __init__(
        self, store: ClipStore, clips: np.ndarray, identity: str, tower: LLMTower, question: Question
    ) -> None:  # fmt: skip
        taught = question.answers
        job = CacheJob(
            ["prefix", identity, question.words], lambda part: _rows(store, part, tower, question), "LLM prefix",
            question.batch_size, (lambda clip: "") if taught is None else (lambda clip: f"answer {taught[clip]}"),
            INSTEAD,
        )  # fmt: skip
        self.folder, self.places, self.missing = cached_rows(store, clips, job)

    def __call__(self, clips: Sequence[int]) -> dict[str, Tensor]:
        """The tower's input for n clips: ``hidden`` (n, L, D), ``attention_mask``, maybe ``positions`` and ``labels``.

        Prompts are padded on the left, answers on the right, as :class:`~mmcl.towers.chat.ChatEncoder` does.
        """
        rows = [load(self.folder.read(self.places[int(clip)]).tobytes()) for clip in clips]
        prompts = [len(row["hidden"]) - len(row["answer"]) for row in rows]
        before, after = max(prompts), max(len(row["answer"]) for row in rows)
        spans = [slice(before - p, before + len(row["answer"])) for p, row in zip(prompts, rows, strict=True)]
        mask = torch.zeros(len(rows), before + after, dtype=torch.int64)
        for line, span in zip(mask, spans, strict=True):
            line[span] = 1
        entries = {"attention_mask": mask}
        for name in ("hidden", "positions"):
            if name in rows[0]:
                first = rows[0][name]
                kind = first.dtype if name == "hidden" else torch.int64
                entries[name] = torch.zeros(len(rows), before + after, first.shape[1], dtype=kind)
                for line, span, row in zip(entries[name], spans, rows, strict=True):
                    line[span] = row[name]
        if after:
            entries["labels"] = torch.full((len(rows), after), IGNORED)
            for line, row in zip(entries["labels"], rows, strict=True):
                line[: len(row["answer"])] = row["answer"]
        return entries


def _rows(store: ClipStore, clips: Sequence[int], tower: LLMTower, question: Question) -> list[bytes]:
    """Of each clip hidden states (L, D), positions (L, k) where there are any, and answer tokens (A,), unpadded."""
    answers = None if question.answers is None else [question.answers[clip] for clip in clips]
    inputs = tower.encode([load_crops(store, clip) for clip in clips], question.words, answers)
    prefix, masks = tower.prefix(inputs), inputs["attention_mask"].bool().cpu()
    hidden, positions = prefix.hidden.cpu(), None if prefix.positions is None else prefix.positions.cpu()
    labels = inputs.get("labels", torch.empty(len(clips), 0, dtype=torch.int64)).cpu()
    rows = []
    for number, mask in enumerate(masks):
        row = {"hidden": hidden[number, mask], "answer": labels[number][labels[number] != IGNORED].int()}
        if positions is not None:
            row["positions"] = positions[number, mask].int()
        rows.append(save({name: tensor.contiguous() for name, tensor in row.items()}))
    return rows
