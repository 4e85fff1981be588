"""A part of ``mmcl bench gpu``: a function with a time of its own, in a process of its own.

A part that fails, hangs or breaks its device takes no other part with it: what it found comes back through a file, line
by line, and what it printed is the reason where it found nothing.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.common.printing import one_line

IMPORTED = ["mmcl.engine.loop", "mmcl.engine.parsing", "mmcl.towers.llm", "open_clip", "peft", "transformers"]
Lines = list[dict[str, Any]]


class Skipped(Exception):
    """Something that the part needs is not installed here."""


@dataclass(frozen=True)
class Place:
    """Where parts are measured.

    Attributes:
        device: ``cuda``, or ``cpu`` to try them.
        tiny: whether networks are so small that nothing but the code is tried.
        folder: for data, towers and runs, the same for all parts.
        bundle: with ONNX graphs; None for one with random weights.
    """

    device: str
    tiny: bool
    folder: Path
    bundle: Path | None = None


@dataclass(frozen=True)
class Part:
    """What is measured.

    Attributes:
        name: of the part.
        about: what it measures, in a few words.
        seconds: it is ended after that.
        measure: called with the place, and seconds that all its rounds together may take; gives lines, each with
            ``what``, ``found`` (both words) and numbers. A line that it gives early is kept if the part is ended.
    """

    name: str
    about: str
    seconds: float
    measure: Callable[[Place, float], Iterable[dict[str, Any]]]


def perform(part: Part, place: Place, limit: float) -> dict[str, Any]:
    """Measure a part in a process of its own, which is ended when ``limit`` seconds are over.

    Returns:
        ``status``: done, skipped, failed or too long; ``why``, empty where it is done; ``seconds``; ``lines``.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    result, log = (place.folder / f"{part.name}.{kind}" for kind in ("json", "log"))
    context: Any = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_child, args=(part, place, min(limit, part.seconds), result, log))
    began = time.perf_counter()
    process.start()
    process.join(min(limit, part.seconds))
    late = process.is_alive()
    if late and process.pid is not None:
        _end(process.pid)
        process.join()
    facts: dict[str, Any] = {"part": part.name, "about": part.about, "seconds": time.perf_counter() - began}
    facts |= json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {"status": "begun", "lines": []}
    if facts["status"] != "begun":
        return facts
    if late:
        return facts | {"status": "too long", "why": f"ended after {facts['seconds']:.0f} s: {_last_words(log)}"}
    return facts | {"status": "failed", "why": f"ended with status {process.exitcode}: {_last_words(log)}"}


def _child(part: Part, place: Place, seconds: float, result: Path, log: Path) -> None:
    os.setsid()  # whatever it starts ends with it
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    if place.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def keep(lines: Lines) -> None:
        write_json(result, {"status": "begun", "lines": lines})

    write_json(result, outcome(part, place, 0.0 if place.tiny else seconds / 8, keep))


def outcome(
    part: Part, place: Place, seconds: float, keep: Callable[[Lines], None] = lambda lines: None
) -> dict[str, Any]:
    """What a part found, and why it found no more: ``status``, ``why``, ``lines``.

    Args:
        part: which.
        place: where.
        seconds: that all its rounds together may take.
        keep: called with the lines so far whenever there is a new one.
    """
    lines: Lines = []
    try:
        for line in part.measure(place, seconds):
            lines.append(line)
            keep(lines)
        return {"status": "done", "why": "", "lines": lines}
    except Skipped as reason:
        return {"status": "skipped", "why": str(reason), "lines": lines}
    except UserError as error:
        return {"status": "failed", "why": one_line(str(error)), "lines": lines}
    except Exception as error:  # whatever it is, it is a line of the table
        traceback.print_exc()
        return {"status": "failed", "why": one_line(f"{type(error).__name__}: {error}"), "lines": lines}


def _end(pid: int) -> None:
    """End a process and all that it started, in whatever session: DeepSpeed's launcher begins one of its own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it leads no group yet
        os.kill(pid, signal.SIGKILL)


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return one_line(next((line for line in reversed(lines) if line.strip()), "it said nothing"))
