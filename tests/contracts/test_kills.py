"""kill -9 in every place where a run can die, and the resumed run ends in the very bits of an uninterrupted one.

One run is killed again and again, each time somewhere else, and goes on each time: if one resume were inexact, the end
would be another one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.cases import command, install, look_again
from engine.running import records, weights

from mmcl.engine.checkpoint import Checkpoints
from mmcl.engine.loop import Loop
from mmcl.engine.parsing import parse
from mmcl.tasks import TASKS
from mmcl.train import train

CONTEXT = multiprocessing.get_context("forkserver")


def kill_at(place: str, stage: int, task: type) -> None:
    """Have this process killed in a place of a stage."""

    def wrap(owner: type, name: str, here: Any, before: bool = False) -> None:
        original = getattr(owner, name)

        def watched(self: Any, *words: Any, **more: Any) -> Any:
            dies = here(self, *words)
            if dies and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(self, *words, **more)
            if dies or here(self, *words):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, watched)

    def ends(loop: Loop, *_: Any) -> bool:
        return loop.position.stage == stage and loop.position.epoch == loop.current.epochs

    def stands_before(checkpoints: Checkpoints, *words: Any) -> bool:
        position = checkpoints.position
        return "best" not in words and (position.stage, position.epoch, position.step) == (stage, 0, 0)

    def in_second_epoch(loop: Loop, *_: Any) -> bool:
        return (loop.position.stage, loop.position.epoch, loop.position.step) == (stage, 1, 1)

    if place == "mid-stage":
        wrap(Loop, "_asked_to_stop", in_second_epoch)
    elif place in ("inside begin", "inside end"):
        wrap(task, place.split()[1], lambda self, now, *_: now.name == self.stages()[stage].name)
    elif place == "before end":
        wrap(Loop, "leave", ends, before=True)
    elif place == "after end":
        wrap(Loop, "_validate", ends)
    elif place in ("between stages", "after the last"):
        wrap(Checkpoints, "save", stands_before)


def run(words: list[str], place: str, stage: int) -> None:
    """A process that trains, and may be killed."""
    torch.set_num_threads(1)
    torch.manual_seed(os.getpid())
    look_again()
    config = parse(words)
    kill_at(place, stage, TASKS[config.task_name])
    os._exit(train(config))


PLACES = {
    "bank": [
        ("mid-stage", 0), ("before end", 0), ("inside end", 0), ("after end", 0), ("between stages", 1),
        ("inside begin", 1), ("mid-stage", 1), ("inside end", 1), ("after the last", 2),
    ],
    "adversary": [("inside begin", 0), ("mid-stage", 0), ("inside end", 0), ("after the last", 1)],
    "token": [("mid-stage", 0), ("after end", 0)],
    "sa_dvae": [("mid-stage", 0), ("before end", 0), ("between stages", 1), ("mid-stage", 1)],
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("kills")
    with pytest.MonkeyPatch.context() as patch:
        install(folder / "site", patch)
        yield folder
    look_again()


@pytest.mark.parametrize("name", list(PLACES))
def test_killed_everywhere_it_ends_in_the_same_bits(name, base, demo_store) -> None:
    case = ("encoder" if name == "token" else "task", name)
    more = ["--engine.precision=fp32", "--data.shots=0", "--data.validation={subject: [3]}", "--data.batch_size=3"]

    def start(out: Path, place: str, stage: int) -> int:
        words = command(case, demo_store, out, base / "towers", *more, "--resume=true")
        process = CONTEXT.Process(target=run, args=(words, place, stage))
        process.start()
        process.join(200)
        assert process.exitcode is not None
        return process.exitcode

    straight, killed = base / f"{name}-straight", base / f"{name}-killed"
    assert start(straight, "nowhere", 0) == 0
    for place, stage in PLACES[name]:
        assert start(killed, place, stage) == -signal.SIGKILL, (place, stage)
    assert not (killed / "summary.json").exists()
    assert start(killed, "nowhere", 0) == 0
    for which in ("last", "best"):
        expected, found = weights(straight, which), weights(killed, which)
        assert [key for key, tensor in expected.items() if not torch.equal(tensor, found[key])] == []
    for kind in ("train", "validation"):
        one, two = records(straight, kind), records(killed, kind)
        assert [(line["step"], line.get("loss"), line.get("top1")) for line in one] == [
            (line["step"], line.get("loss"), line.get("top1")) for line in two
        ]
    states = [torch.load(folder / "checkpoints/last/training.pt", weights_only=True) for folder in (straight, killed)]
    assert str(states[0]) == str(states[1])
