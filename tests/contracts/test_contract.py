"""The contract that every task and every encoder keeps, whoever wrote it. A new entry is tested by being registered.

Each is trained for six steps in double precision on one process; the same again on two, and killed on the way.
"""

from __future__ import annotations

import shutil
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from contracts.cases import CASES, chosen, command, install, look_again, option_names
from engine.forked import free_port, join_processes, reset_accelerate
from engine.running import records, weights
from safetensors.torch import save_file

import mmcl
from mmcl.common.errors import UserError
from mmcl.data.store import open_store
from mmcl.encoders import ENCODERS
from mmcl.engine.loop import Loop
from mmcl.engine.parsing import parse, read_run_config
from mmcl.engine.setup import build_task, open_data
from mmcl.engine.steps import Stepper
from mmcl.export import main as export
from mmcl.models.folder import open_model
from mmcl.train import train

pytestmark = pytest.mark.parametrize("case", CASES, ids="-".join)
CLOSE = {"rtol": 1e-6, "atol": 1e-8}  # what six steps leave of sums in another order


@dataclass
class Straight:
    """A run that nothing happens to.

    Attributes:
        folder: of the run.
        trained: names of the parameters that some stage trains.
        reached: those that had a gradient other than zero.
    """

    folder: Path
    trained: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)

    def note(self, stepper: Stepper) -> None:
        for name, parameter in stepper.task.named_parameters():
            if parameter.requires_grad:
                self.trained.add(name)
                if parameter.grad is not None and bool(parameter.grad.any()):
                    self.reached.add(name)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Any:
    """A folder; while it is there, the throw-away entries are installed."""
    folder = tmp_path_factory.mktemp("contract")
    with pytest.MonkeyPatch.context() as patch:
        install(folder / "site", patch)
        yield folder
    look_again()


@pytest.fixture(scope="module")
def straight(base, demo_store) -> Any:
    """Function case -> its run; each is trained once."""
    done: dict[tuple[str, str], Straight] = {}

    def get(case: tuple[str, str]) -> Straight:
        if case not in done:
            run = done[case] = Straight(base / "one" / "-".join(case))
            clip = Stepper._clip

            def noted(stepper: Stepper, log: bool) -> dict[str, float]:
                run.note(stepper)
                return clip(stepper, log)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Stepper, "_clip", noted)
                assert train(parse(command(case, demo_store, run.folder, base / "towers"))) == 0
            reset_accelerate()
        return done[case]

    return get


def test_gradients_reach_every_parameter_that_is_trained(case, straight) -> None:
    run = straight(case)
    beside = ENCODERS[read_run_config(run.folder).encoder_name].beside_parts
    expected = {name for name in run.trained if name.removeprefix("encoder.").partition(".")[0] not in beside}
    assert expected and sorted(expected - run.reached) == []


def test_its_state_makes_the_same_network_again(case, straight) -> None:
    learned = weights(straight(case).folder)
    config = read_run_config(straight(case).folder)
    torch.manual_seed(99)
    task = build_task(config, open_data(config), torch.device("cpu")).double()
    task.load_state_dict(learned)  # strict: nothing is missing, nothing is left over
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, learned[name]), name
    assert any(name.startswith("encoder.") for name in learned)


class Killed(BaseException):
    """Ends a run on the spot, as a kill does."""


def test_a_run_that_dies_in_an_epoch_and_while_it_ends_goes_on_bit_for_bit(
    case, straight, base, demo_store, monkeypatch
) -> None:
    expected, out = straight(case).folder, base / "killed" / "-".join(case)
    words = command(case, demo_store, out, base / "towers", "--resume=true")
    leave, asked = Loop.leave, Loop._asked_to_stop

    def die_in_the_second_epoch(loop: Loop, stops: list[int]) -> bool:
        if loop.position.steps == loop.plan.steps - 1:
            raise Killed
        return asked(loop, stops)

    def die_after_the_end(loop: Loop) -> None:
        loop._validate = die  # type: ignore[method-assign]
        leave(loop)

    for name, killer in (("_asked_to_stop", die_in_the_second_epoch), ("leave", die_after_the_end)):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Loop, name, killer)
            train(parse(words))
        reset_accelerate()
        torch.manual_seed(77)  # what a new process would draw
    assert train(parse(words)) == 0
    reset_accelerate()
    found = weights(out)
    assert [name for name, tensor in weights(expected).items() if not torch.equal(tensor, found[name])] == []
    assert [line["loss"] for line in records(out)] == [line["loss"] for line in records(expected)]


def die() -> None:
    raise Killed


def train_all(rank: int, port: int, cases: list[tuple[str, str]], folder: str, store: str, towers: str) -> None:
    """One of two processes: trains one case after the other."""
    join_processes(rank, 2, port)
    look_again()
    for case in cases:
        out = Path(folder) / "-".join(case)
        try:
            train(parse(command(case, Path(store), out, Path(towers))))
        except BaseException:
            out.mkdir(parents=True, exist_ok=True)
            (out / f"error-{rank}.txt").write_text(traceback.format_exc())
        reset_accelerate()


@pytest.fixture(scope="module")
def two_processes(request, base, demo_store, straight) -> Path:
    """Folder of the runs of two processes."""
    cases = chosen(request)
    for case in cases:
        straight(case)  # makes towers and caches
    words = (free_port(), cases, str(base / "two"), str(demo_store), str(base / "towers"))
    mp.start_processes(train_all, words, nprocs=2, start_method="forkserver")
    return base / "two"


def test_two_processes_take_the_steps_of_one(case, straight, two_processes) -> None:
    one, two = straight(case).folder, two_processes / "-".join(case)
    assert (two / "summary.json").is_file(), "\n".join(file.read_text() for file in two.glob("error-*.txt"))
    for a, b in zip(records(one), records(two), strict=True):
        losses = {key: value for key, value in a.items() if key.startswith("loss")}
        assert losses == pytest.approx({key: b[key] for key in losses}, rel=1e-8)
    found = weights(two)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(found[name], tensor, **CLOSE, msg=lambda words, name=name: f"{name}: {words}")


def test_what_is_used_and_exported_is_what_was_trained(case, straight, base) -> None:
    """Of an encoder, a bundle, which is verified in a process of its own; of a task, which leaves none, the run."""
    run, bundle = base / "single" / "-".join(case), base / "bundles" / "-".join(case)
    shutil.copytree(straight(case).folder, run)
    single = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights(run).items()}
    save_file(single, run / "checkpoints" / "last" / "learned.safetensors")
    if case[0] == "encoder":
        assert export(["--run", str(run), "--out", str(bundle)]) in (0, None)
    config = read_run_config(run)
    task = build_task(config, open_data(config), torch.device("cpu"))
    task.load_state_dict(weights(run))
    task.eval()
    store = open_store(config.data.path)
    model = mmcl.load(str(bundle)) if case[0] == "encoder" else open_model(run)
    for clip in range(0, len(store), 17):
        joints = torch.from_numpy(np.array(store.joints(clip)))[None]
        with torch.no_grad():
            expected = task.scores(joints, torch.tensor([joints.shape[2]]))
            torch.testing.assert_close(model(joints), expected, rtol=1e-4, atol=1e-4)


def test_options_that_are_none_are_refused(case, base, demo_store) -> None:
    words = command(case, demo_store, base / "never", base / "towers")
    with pytest.raises(UserError, match="nonsense"):
        parse([*words, f"--{case[0]}.nonsense=1"])
    for key in option_names(case):
        with pytest.raises(UserError):
            parse([*words, f"--{key}={{neither: [a, value]}}"])
    if case[0] == "encoder":
        with pytest.raises(UserError, match="persons"):
            parse([*words, "--encoder.persons=0"])
