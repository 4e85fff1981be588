"""Stages, groups with a cadence, per-tensor clipping: each against what it says, computed in another way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from contracts.bank import Bank
from contracts.cases import command, install, look_again
from engine.forked import reset_accelerate
from engine.running import records, weights
from torch import nn

from mmcl.common.errors import UserError
from mmcl.data.sampler import StepBatches
from mmcl.encoders.building import build_encoder
from mmcl.engine.checks import check_groups
from mmcl.engine.config import OptimiserOptions
from mmcl.engine.loop import Loop
from mmcl.engine.meters import StepMeter
from mmcl.engine.optimiser import RunOptimiser
from mmcl.engine.parsing import parse
from mmcl.engine.plan import Plan, Trainable
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.stages import ParameterGroup, ScheduleOptions, Stage, Update, schedule_factor
from mmcl.train import train

STEPS = 7


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as patch:
        install(folder / "site", patch)
        yield folder
    look_again()


def tensors() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(2, 2))]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(parameter.shape, generator=generator) for parameter in tensors()]


def test_groups_move_as_optimisers_of_their_own_would_and_only_when_they_are_due() -> None:
    """The reference: one torch optimiser for each group, stepped at its own steps alone."""
    own = tensors()
    groups = [
        ParameterGroup("main", [own[0]], scale=0.5),
        ParameterGroup("rare", [own[1]], Update("adamw", 0.01, betas=(0.5, 0.9)), every=3),
        ParameterGroup("other", [own[2]], Update("adam", 0.02, weight_decay=0.1), every=2, first=3),
    ]
    options = OptimiserOptions("sgd", 0.1, momentum=0.9, nesterov=True, weight_decay=0.01, rates={"rare": 0.03})
    optimiser = RunOptimiser(groups, options, rate=0.5)
    expected, decay = tensors(), options.adamw_weight_decay
    reference = [
        (torch.optim.SGD([expected[0]], 0.025, 0.9, nesterov=True, weight_decay=0.01), 0.025, range(STEPS)),
        (torch.optim.AdamW([expected[1]], 0.015, (0.5, 0.9), weight_decay=decay), 0.015, (0, 3, 6)),
        (torch.optim.Adam([expected[2]], 0.01, weight_decay=0.1), 0.01, (3, 5)),
    ]
    for step in range(STEPS):
        before = [parameter.detach().clone() for parameter in own]
        due = optimiser.begin_step(step, 1.0 / (1 + step))
        assert due == tuple(group.name for group, (*_, steps) in zip(groups, reference, strict=True) if step in steps)
        for parameter, gradient in zip(own, gradients(step), strict=True):
            parameter.grad = gradient
        optimiser.forget_others()
        optimiser.step()
        optimiser.zero_grad()
        for number, (one, rate, steps) in enumerate(reference):
            if step not in steps:
                assert torch.equal(own[number], before[number])
                continue
            one.param_groups[0]["lr"] = rate / (1 + step)
            expected[number].grad = gradients(step)[number]
            one.step()
    for mine, theirs in zip(own, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    counts = [float(part.state[part.param_groups[0]["params"][0]].get("step", 0)) for part in optimiser.parts]
    assert counts == [0, 3, 2]  # Adam's own count: the steps that it took


def test_what_is_not_due_shortens_nobody_s_gradient() -> None:
    own = tensors()
    groups = [ParameterGroup("now", [own[0]]), ParameterGroup("later", [own[1]], every=2)]
    optimiser = RunOptimiser(groups, OptimiserOptions())
    optimiser.begin_step(1, 1.0)
    own[0].grad, own[1].grad = torch.full((3, 2), 0.1), torch.full((4,), 1e3)
    optimiser.forget_others()
    torch.nn.utils.clip_grad_norm_(own[:2], 0.2)
    assert float(own[0].grad.norm()) == pytest.approx(0.2, rel=1e-4) and own[1].grad is None
    assert optimiser.norms() == {"now": pytest.approx(0.2, rel=1e-4)}


def test_clipping_by_tensor_shortens_each_alone() -> None:
    own = tensors()
    optimiser = RunOptimiser([ParameterGroup("all", own, clip=1.0)], OptimiserOptions())
    long, short, none = torch.full((3, 2), 3.0), torch.full((4,), 0.1), None
    own[0].grad, own[1].grad, own[2].grad = long.clone(), short.clone(), none
    optimiser.clip_tensors()
    torch.testing.assert_close(own[0].grad, long / long.norm())
    assert torch.equal(own[1].grad, short) and own[2].grad is None


def test_rates_of_groups_without_one_of_their_own_are_refused() -> None:
    with pytest.raises(UserError, match="names main, whose rate is optimiser.rate"):
        RunOptimiser([ParameterGroup("main", tensors())], OptimiserOptions(rates={"main": 0.1}))


@pytest.mark.parametrize("name", ["step", "cosine"])
def test_a_stretched_schedule_is_the_same_curve_over_another_length(name) -> None:
    options = ScheduleOptions(name, epochs=10, warmup_epochs=0, milestones=[4, 8], floor=0.1)
    whole, twice = schedule_factor(options, 6), schedule_factor(options, 6, epochs=20)
    assert [twice(2 * step) for step in range(60)] == pytest.approx([whole(step) for step in range(60)])
    longer = ScheduleOptions(name, epochs=20, warmup_epochs=4, milestones=[8, 16])
    warm = ScheduleOptions(name, epochs=10, warmup_epochs=2, milestones=[4, 8])
    stretched, own = schedule_factor(warm, 6, epochs=20), schedule_factor(longer, 6)
    assert [stretched(step) for step in range(120)] == pytest.approx([own(step) for step in range(120)])


def planned(*stages: Stage) -> Plan:
    task: Any = SimpleNamespace(stages=lambda: list(stages))
    clips = np.arange(10, 30)
    return Plan(task, clips, StepBatches(clips, 4), ScheduleOptions(epochs=3))


def test_a_plan_fills_in_what_stages_leave_open() -> None:
    plan = planned(Stage("one"), Stage("two", clips=np.array([15, 11, 12, 13, 14, 11]), epochs=2))
    assert [(one.epochs, one.steps, one.first_epoch, one.first_step) for one in plan] == [(3, 5, 0, 0), (2, 1, 3, 15)]
    assert plan[1].clips.tolist() == [11, 12, 13, 14, 15] and (plan.epochs, plan.steps) == (5, 17)
    assert plan.digest != planned(Stage("one"), Stage("two", clips=np.arange(11, 17), epochs=2)).digest


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([Stage("a"), Stage("a")], "whose names differ"),
        ([], "whose names differ"),
        ([Stage("a", epochs=0)], "must have at least 1"),
        ([Stage("a", clips=np.array([3, 11, 12, 13]))], "not on the training side"),
    ],
)
def test_stages_that_contradict_themselves_are_the_author_s_mistake(stages, words) -> None:
    with pytest.raises(ValueError, match=words):
        planned(*stages)


def test_a_stage_with_too_few_clips_for_a_step_is_the_user_s() -> None:
    with pytest.raises(UserError, match="larger than the 2 training clips of stage 'few'"):
        planned(Stage("few", clips=np.array([11, 12])))


class Parts(nn.Module):
    """Stands in for a task: a frozen part, two trained ones, and a norm without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SimpleNamespace(named_parameters=list, named_children=list)
        self.tower = nn.Linear(2, 2).requires_grad_(False)
        self.body = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))
        self.plain = nn.BatchNorm1d(2, affine=False)

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        parts = {name: list(getattr(self, name).parameters()) for name in ("tower", "body", "head")}
        return [ParameterGroup(name, own) for name, own in parts.items()]


def test_a_stage_trains_what_it_names_and_thaws_nothing() -> None:
    task: Any = Parts()
    trainable = Trainable(task)
    assert [group.name for group in trainable.groups(Stage("head", train=("head", "tower")))] == ["head"]
    trainable.train(Stage("head", train=("head",)))
    assert {name for name, parameter in task.named_parameters() if parameter.requires_grad} == {
        "head.1.weight", "head.1.bias"
    }  # fmt: skip
    modes = {name: module.training for name, module in task.named_modules() if name}
    assert not any(mode for name, mode in modes.items() if name.startswith("body"))
    assert all(mode for name, mode in modes.items() if name.startswith(("head", "plain", "tower")))
    assert [group.name for group in trainable.groups(Stage("all"))] == ["body", "head"]
    assert not task.tower.weight.requires_grad and task.body[0].weight.requires_grad
    trainable.train(Stage("all"))
    assert all(module.training for module in task.modules())


class Whole(nn.Module):
    """Stands in for a task: an encoder that drops some of its input, in two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = build_encoder("tcn", load_layout("coco_17"), 2, {"width": 8, "members": 2})

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        named = list(self.encoder.named_parameters())
        sides = [[one for name, one in named if self.encoder.in_head(name) is head] for head in (False, True)]
        return [ParameterGroup("body", sides[0]), ParameterGroup("head", sides[1])]


def test_an_encoder_whose_head_is_trained_alone_holds_still() -> None:
    task: Any = Whole()
    trainable, still = Trainable(task), Stage("probe", train=("head",))
    for stage, dropped in ((still, False), (Stage("both", train=("body", "head")), True), (Stage("all"), True)):
        trainable.groups(stage)
        trainable.train(stage)
        assert task.encoder.input_dropout.training is dropped and task.encoder.dropout.training
    trainable.groups(still)
    trainable.train(still)
    x = torch.randn(4, 2, 16, 17, 3)
    assert torch.equal(task.encoder.features(x), task.encoder.features(x))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda groups: groups[:2], "leaves out head.1.bias"),
        (lambda groups: [*groups, ParameterGroup("more", groups[2].parameters)], "holds a parameter, or a name, twice"),
        (lambda groups: [*groups, ParameterGroup("head", [])], "holds a parameter, or a name, twice"),
    ],
)
def test_groups_that_do_not_part_the_parameters_are_the_author_s_mistake(change, words) -> None:
    task: Any = Parts()
    groups = task.parameter_groups
    task.parameter_groups = lambda stage: change(groups(stage))
    with pytest.raises(ValueError, match=words):
        Trainable(task).groups(Stage())


def test_what_an_author_names_must_be_there_and_be_something() -> None:
    task: Any = Parts()
    with pytest.raises(ValueError, match="trains tail, which is no parameter group"):
        Trainable(task).groups(Stage(train=("tail",)))
    with pytest.raises(ValueError, match="trains nothing"):
        Trainable(task).groups(Stage(train=("tower",)))


def test_a_loss_that_comes_every_third_step_is_logged_as_what_it_is() -> None:
    meter = StepMeter()
    for step in range(6):
        outputs = {"loss": torch.tensor(1.0)} | ({"loss_critic": torch.tensor(2.0 + step)} if step % 3 == 0 else {})
        meter.add(outputs, torch.zeros(2), 0.0)
    read = meter.read(Accelerator(cpu=True))
    reset_accelerate()
    assert (read["loss"], read["loss_critic"]) == (1.0, 3.5)


def test_what_sharding_cannot_do_is_refused() -> None:
    clipped, plain = [ParameterGroup("late", tensors(), clip=0.3)], [ParameterGroup("all", tensors())]
    sharded: Any = SimpleNamespace(is_fsdp2=True, distributed_type=DistributedType.FSDP)
    check_groups(sharded, clipped, 1)
    with pytest.raises(UserError, match="trains in 2 stages, which FSDP 2 cannot do"):
        check_groups(sharded, plain, 2)
    zero: Any = SimpleNamespace(is_fsdp2=False, distributed_type=DistributedType.DEEPSPEED)
    check_groups(zero, plain, 2)
    with pytest.raises(UserError, match="of late are clipped tensor by tensor, which DeepSpeed cannot do"):
        check_groups(zero, clipped, 1)


def test_a_critic_that_is_not_due_stays_bit_for_bit(base, demo_store, monkeypatch) -> None:
    seen: list[tuple[dict[str, torch.Tensor], list[Any]]] = []

    def look(loop: Loop, stops: list[int]) -> bool:
        critic = {k: v.clone() for k, v in loop.task.state_dict().items() if k.startswith("critic")}
        parts = {group["name"]: part for part in loop.optimiser.parts for group in part.param_groups}
        memory = [str(state) for state in parts["critic"].state.values()]
        seen.append((critic, memory))
        return False

    monkeypatch.setattr(Loop, "_asked_to_stop", look)
    out = base / "adversary"
    words = command(("task", "adversary"), demo_store, out, base / "towers", "--engine.precision=fp32")
    assert train(parse(words)) == 0
    reset_accelerate()
    for step in range(1, len(seen)):
        (before, memory), (after, later) = seen[step - 1 : step + 1]
        moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
        assert (moved == set(after)) if step % 3 == 0 else (not moved and later == memory), step
    lines = records(out)
    assert ["loss_critic" in line for line in lines] == [step % 3 == 0 for step in range(len(lines))]
    assert ["gradient_norm/critic" in line for line in lines] == [step % 3 == 0 for step in range(len(lines))]


def test_a_step_that_a_gradient_scaler_skipped_is_followed_by_nothing(base, demo_store, monkeypatch) -> None:
    """As fp16 does after an overflow: the queue takes in nothing."""
    called: list[int] = []
    after = Bank.after_step

    def noted(task: Bank, *words: Any) -> None:
        called.append(int(task.place))
        after(task, *words)

    steps = iter(range(100))
    monkeypatch.setattr(Bank, "after_step", noted)
    monkeypatch.setattr(Accelerator, "optimizer_step_was_skipped", property(lambda _: next(steps) == 1))
    assert train(parse(command(("task", "bank"), demo_store, base / "skipped", base / "towers"))) == 0
    reset_accelerate()
    assert called[:3] == [0, 4, 8] and len(called) == 9  # of ten steps, the second one is missing


def test_a_stage_leaves_what_it_does_not_train_bit_for_bit(base, demo_store, monkeypatch) -> None:
    states: list[dict[str, torch.Tensor]] = []
    enter, end = Loop.enter, Bank.end

    def at_start(loop: Loop) -> None:
        new = loop.stepper is None
        enter(loop)
        if new:
            states.append({name: tensor.clone() for name, tensor in loop.task.state_dict().items()})

    def at_end(task: Bank, *words: Any) -> None:
        states.append({name: tensor.clone() for name, tensor in task.state_dict().items()})
        end(task, *words)

    monkeypatch.setattr(Loop, "enter", at_start)
    monkeypatch.setattr(Bank, "end", at_end)
    out = base / "bank"
    assert train(parse(command(("task", "bank"), demo_store, out, base / "towers"))) == 0
    reset_accelerate()
    (begun, ended), (again, last) = states[:2], states[2:]

    def moved(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> set[str]:
        return {name for name, tensor in one.items() if not torch.equal(tensor, two[name])}

    first, second = moved(begun, ended), moved(again, last)
    assert {"queue", "place", "project.0.weight", "encoder.units.2.spatial.norm.weight"} & first
    assert not {name for name in first if name.startswith(("encoder.data_bn.", "encoder.classifier.", "bank"))}
    assert second == {"encoder.classifier.weight", "encoder.classifier.bias"}  # and no batch statistics
    assert moved(last, weights(out)) == {"bank"}  # filled anew in the end
    assert [line["stage"] for line in records(out)] == ["contrast"] * 4 + ["probe"] * 6
    assert Path(out / "summary.json").is_file()


class Dying(Exception):
    """A kill, as far as the run can tell."""


@pytest.mark.parametrize("where", ["leave", "enter"])
def test_a_gradient_scaler_is_the_run_s_also_where_a_stage_ends_or_begins(base, demo_store, monkeypatch, where) -> None:
    """Killed between two stages: the optimiser is new, the scale of the loss is not."""
    words, scales = command(("task", "bank"), demo_store, base / f"scaled_{where}", base / "towers"), []
    make, events = Loop.__init__, {name: getattr(Loop, name) for name in ("leave", "enter")}

    def made(loop: Loop, config: Any, accelerator: Any, *more: Any) -> None:
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024, growth_interval=2)
        make(loop, config, accelerator, *more)

    def entered(loop: Loop) -> None:
        new = loop.stepper is None
        die_between_stages(loop, "enter")
        events["enter"](loop)
        if new:
            scales.append(loop.accelerator.scaler.get_scale())
            loop.accelerator.scaler.load_state_dict({**loop.accelerator.scaler.state_dict(), "scale": 64.0})

    def left(loop: Loop) -> None:
        die_between_stages(loop, "leave")
        events["leave"](loop)

    def die_between_stages(loop: Loop, event: str) -> None:
        if event == where and not loop.resumes and loop.position.steps == loop.plan[1].first_step:
            raise Dying

    for name, change in (("__init__", made), ("enter", entered), ("leave", left)):
        monkeypatch.setattr(Loop, name, change)
    with pytest.raises(Dying):
        train(parse(words))
    reset_accelerate()
    assert train(parse([*words, "--resume=true"])) == 0
    reset_accelerate()
    assert scales[0] == 1024 and scales[1] not in (1024, 0)  # 64, as often doubled as steps allowed
