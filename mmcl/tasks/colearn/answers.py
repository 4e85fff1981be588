"""What the LLM of a run has answered so far: a file in the run folder, which reports show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.common.files import write_json

FOLDER, ANSWERS = "llm", "answers.json"  # in the run folder
COLUMNS = ("clip", "class", "epoch", "question", "answer", "picture")
KEPT = 200  # the latest of them


def add_answers(run: Path, new: Sequence[dict[str, Any]]) -> None:
    """Add rows of :data:`COLUMNS`; one about the same clip, question and epoch, from before a kill, gives way."""
    again = {_key(row) for row in new}
    write_json(run / FOLDER / ANSWERS, [*(row for row in read_answers(run) if _key(row) not in again), *new][-KEPT:])


def read_answers(run: Path) -> list[dict[str, Any]]:
    """All rows; none where the run has no LLM that answers, or the file is damaged."""
    file = run / FOLDER / ANSWERS
    try:
        rows = read_json(file) if file.is_file() else []
    except UserError:
        return []
    good = isinstance(rows, list) and all(isinstance(row, dict) and row.keys() >= set(COLUMNS) for row in rows)
    return [{key: row[key] if key == "epoch" else str(row[key]) for key in COLUMNS} for row in rows] if good else []


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return str(row["clip"]), str(row["question"]), str(row["epoch"])
