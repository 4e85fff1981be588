"""What the LLM sees of a few training clips, and what it answers: pictures and words for whoever watches a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcl.data.dataset import load_crops
from mmcl.tasks.colearn.answers import FOLDER, add_answers
from mmcl.tasks.context import Context
from mmcl.towers.chat import ChatEncoder
from mmcl.towers.llm import LLMTower
from mmcl.towers.strip import strip

if TYPE_CHECKING:
    from PIL.Image import Image

TOKENS = 32  # that an answer has at most


class Specimens:
    """Some training clips that an LLM is asked about now and then, in words; nothing of it is learned from.

    Args:
        context: gives the training clips.
        chat: how the LLM is shown pictures.
        questions: the instructions.
        count: how many clips, evenly spread over the training side.
        shown_clip: clip -> the clip whose pictures it gets, or None.
    """

    def __init__(
        self, context: Context, chat: ChatEncoder, questions: Sequence[str], count: int, shown_clip: np.ndarray | None
    ) -> None:
        store, clips = context.store, context.training_clips
        chosen = clips[np.linspace(0, len(clips) - 1, min(count, len(clips))).astype(int)]
        self.clips: list[int] = [int(clip) for clip in chosen]
        self.store, self.chat, self.questions, self.shown_clip = store, chat, questions, shown_clip
        self.answers: list[str] | None = None  # of a tower that says the same throughout a run

    def pictures(self) -> list[list[Image]]:
        """The clips' pictures."""
        shown = self.clips if self.shown_clip is None else [int(self.shown_clip[clip]) for clip in self.clips]
        return [load_crops(self.store, clip) for clip in shown]

    def ask(self, tower: LLMTower) -> list[str]:
        """The tower's answers to all questions about one clip after the other."""
        rows = self.pictures()
        return [tower.say([row], question, TOKENS)[0] for row in rows for question in self.questions]

    def show(self, folder: Path, epochs: int, answers: Sequence[str]) -> list[str]:
        """Write pictures and answers into a run folder; lines for the log.

        Args:
            folder: of the run.
            epochs: that are done.
            answers: from :meth:`ask`.
        """
        place = folder / FOLDER
        place.mkdir(exist_ok=True)
        asked = [(clip, question) for clip in self.clips for question in self.questions]
        new = [self._row(clip, question, epochs, said) for (clip, question), said in zip(asked, answers, strict=True)]
        add_answers(folder, new)
        for clip, row in zip(self.clips, self.pictures(), strict=True):
            if not (place / _picture(clip)).is_file():
                strip(self.chat.seen(row)).save(place / _picture(clip))
        return [f"the LLM says of {row['clip']} ({row['class']}), epoch {epochs}: {row['answer']!r}" for row in new]

    def _row(self, clip: int, question: str, epochs: int, said: str) -> dict[str, Any]:
        store = self.store
        return {
            "clip": store.ids[clip], "class": store.class_names[store.labels[clip]], "epoch": epochs,
            "question": question, "answer": said, "picture": f"{FOLDER}/{_picture(clip)}",
        }  # fmt: skip


def _picture(clip: int) -> str:
    return f"clip_{clip:06d}.png"
