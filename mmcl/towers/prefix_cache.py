"""With LoRA on: what enters the first adapted layer, computed once a clip and question and kept beside the clips."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmcl.data.dataset import load_crops
from mmcl.data.store import ClipStore
from mmcl.towers.cache import cache_path, check_room, row_numbers
from mmcl.towers.chat import IGNORED
from mmcl.towers.claim import claimed_file
from mmcl.towers.llm import LLMTower
from mmcl.towers.ragged import RaggedFile, RaggedWriter


@dataclass(frozen=True)
class Asked:
    """What the tower is asked about each clip.

    Attributes:
        question: the instruction.
        answers: for each clip covered, the answer it is taught; None where none is.
        batch_size: clips at once.
    """

    question: str
    answers: list[str] | None = None
    batch_size: int = 16


class PrefixCache:
    """Hidden states of a tower's constant part over the clips of a store, ragged: as long as each clip's input is.

    Args:
        store: where the clips are; the file lies in its ``features/`` folder.
        clips: positions of the clips covered, ascending.
        identity: of the constant part: :meth:`mmcl.towers.llm.LLMTower.prefix_fingerprint`.
        tower: cut, on the device it is to work on.
        asked: about every clip.
    """

    def __init__(self, store: ClipStore, clips: np.ndarray, identity: str, tower: LLMTower, asked: Asked) -> None:
        key = ["prefix", identity, asked.question, json.dumps(asked.answers)]
        self.path = cache_path(store, clips, key, ".prefix")
        self.hit = self.path.is_file()
        if not self.hit:
            _fill(self.path, store, clips, tower, asked)
        self.file = RaggedFile(self.path)
        self._row_of = row_numbers(clips, len(store))

    def __call__(self, clips: Sequence[int]) -> dict[str, Tensor]:
        """The tower's input for n clips: ``hidden`` (n, L, D), ``attention_mask``, maybe ``positions`` and ``labels``.

        Prompts are padded on the left, answers on the right, as :class:`~mmcl.towers.chat.ChatEncoder` does.
        """
        rows = [self._row(int(self._row_of[clip])) for clip in clips]
        before = max(row["prompt"] for row in rows)
        after = max(len(row["answer"]) for row in rows)
        spans = [slice(before - row["prompt"], before + len(row["answer"])) for row in rows]
        mask = torch.zeros(len(rows), before + after, dtype=torch.int64)
        for line, span in zip(mask, spans, strict=True):
            line[span] = 1
        entries = {"attention_mask": mask}
        for name in ("hidden", "positions"):
            if name in self.file:
                first = rows[0][name]
                entries[name] = first.new_zeros(len(rows), before + after, first.shape[1])
                for line, span, row in zip(entries[name], spans, rows, strict=True):
                    line[span] = row[name]
        if after:
            entries["labels"] = torch.full((len(rows), after), IGNORED)
            for line, row in zip(entries["labels"], rows, strict=True):
                line[: len(row["answer"])] = row["answer"]
        return entries

    def _row(self, number: int) -> dict[str, Any]:
        file = self.file
        first, last = file["tokens", number : number + 2].tolist()
        start, end = file["answered", number : number + 2].tolist()
        row: dict[str, Any] = {"hidden": file["hidden", first:last], "answer": file["answers", start:end].long()}
        if "positions" in file:
            row["positions"] = file["positions", first:last].long()
        return row | {"prompt": last - first - (end - start)}


@torch.no_grad()
def _fill(path: Path, store: ClipStore, clips: np.ndarray, tower: LLMTower, asked: Asked) -> None:
    with claimed_file(path) as temporary:
        if temporary is None:  # another run has made it meanwhile
            return
        tokens, answered = [0], [0]  # where each clip's rows begin
        positions: list[Tensor] = []
        answers: list[Tensor] = []
        sample = None
        with temporary.open("wb") as file:
            writer = RaggedWriter(file)
            for hidden, counted, answer in _rows(store, clips, tower, asked, path):
                sample = hidden
                writer.append(hidden)
                tokens.append(tokens[-1] + len(hidden))
                answers.append(answer.int())
                answered.append(answered[-1] + len(answer))
                if counted is not None:
                    positions.append(counted.int())
            if sample is not None:
                others = {"positions": torch.cat(positions)} if positions else {}
                writer.finish(
                    "hidden", sample, tokens=torch.tensor(tokens), answered=torch.tensor(answered),
                    answers=torch.cat(answers), **others,
                )  # fmt: skip


def _rows(
    store: ClipStore, clips: np.ndarray, tower: LLMTower, asked: Asked, path: Path
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Hidden states (L, D), positions (L, k) or None, and answer tokens (A,) of each clip, without padding."""
    size = asked.batch_size
    for start in tqdm(range(0, len(clips), size), desc="caching LLM prefix", unit="batch"):
        part = clips[start : start + size]
        answers = asked.answers[start : start + size] if asked.answers is not None else None
        inputs = tower.encode([load_crops(store, int(clip)) for clip in part], asked.question, answers)
        prefix, masks = tower.prefix(inputs), inputs["attention_mask"].bool()
        if start == 0:
            _announce(path, prefix.hidden[0].nbytes * float(masks.sum(1).float().mean()) / masks.shape[1], len(clips))
        hidden, positions = prefix.hidden.cpu(), None if prefix.positions is None else prefix.positions.cpu()
        labels = inputs.get("labels", torch.empty(len(part), 0, dtype=torch.int64))
        for row, mask in enumerate(masks):
            counted = None if positions is None else positions[row, mask]
            yield hidden[row, mask], counted, labels[row][labels[row] != IGNORED]


def _announce(path: Path, each: float, clips: int) -> None:
    """Say how large the file is going to be, by its first clips, before it is written.

    Raises:
        UserError: the disk has not that much room.
    """
    needed, choices = each * clips, "choose task.cache_prefix=false, task.llm.dtype=bf16, or fewer frames a clip"
    print(
        f"LLM prefix: {each / 2**20:.2f} MiB a clip, {needed / 2**30:.2f} GiB for {clips} clips, in {path.parent}",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    check_room(path, "the LLM's prefix", needed, choices)
