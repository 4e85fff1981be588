"""Distillation: loss and gradient in closed form, teachers that see what the student sees, resuming, refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contracts.cases import command
from engine.forked import reset_accelerate
from engine.running import arguments, records, weights
from tasks.made_tasks import context_of
from tasks.made_teachers import made_teacher, write_teacher

from mmcl.common.draws import clip_keys
from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.store import ClipStore, open_store
from mmcl.encoders.building import build_encoder
from mmcl.engine.parsing import parse
from mmcl.engine.setup import build_task, open_data
from mmcl.models.description import GRAPHS, WEIGHTS
from mmcl.models.folder import open_model
from mmcl.models.record import Record
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.distil import DistilOptions, Teachers, distillation_loss
from mmcl.tasks.supervised import Supervised, SupervisedOptions
from mmcl.train import train

NAMES, CLIPS, FRAMES = ["wave", "throw", "sit"], 6, 40
VARIED = Augmentation(crop_min=0.5, crop_floor=16, rotation=0.5, scale=0.2, noise=0.01)


def test_loss_and_gradient_have_their_closed_form() -> None:
    scores = (3 * torch.randn(5, 4, dtype=torch.float64)).requires_grad_()
    teacher, T = torch.softmax(torch.randn(5, 4, dtype=torch.float64), dim=1), 2.5
    softened = [[math.exp(z / T) / sum(math.exp(other / T) for other in row) for z in row] for row in scores.tolist()]
    expected = sum(
        p * math.log(p / q) for row, own in zip(teacher.tolist(), softened, strict=True)
        for p, q in zip(row, own, strict=True)
    ) * T**2 / 5  # fmt: skip
    loss = distillation_loss(scores, teacher, T)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    torch.testing.assert_close(scores.grad, T * (torch.tensor(softened, dtype=torch.float64) - teacher) / 5)


def test_far_above_the_scores_it_matches_scores_whatever_the_temperature() -> None:
    """Hinton et al. 2015, section 2.1: the gradient tends to (z - v) / (N K) where scores have the mean 0."""
    scores, teacher = (x - x.mean(1, keepdim=True) for x in torch.randn(2, 5, 4, dtype=torch.float64))
    for T in (1e3, 1e4):
        own = scores.clone().requires_grad_()
        distillation_loss(own, torch.softmax(teacher / T, dim=1), T).backward()
        torch.testing.assert_close(own.grad, (scores - teacher) / 20, rtol=0, atol=2 / T)


def test_narrow_scores_are_widened_and_a_certain_teacher_is_no_infinity() -> None:
    scores, certain = torch.randn(5, 3).bfloat16(), F.one_hot(torch.tensor([0, 1, 2, 0, 1]), 3).float()
    loss = distillation_loss(scores, certain, 1.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(scores.float(), certain.argmax(1)))


def made_student() -> Supervised:
    torch.manual_seed(3)
    encoder = build_encoder("ctrgcn", load_layout("kinect_v2_25"), 3, {"width": 8, "depth": 3, "persons": 1})
    context = replace(context_of(encoder, 16, [0, 1, 2] * 2), augmentation=VARIED)
    return Supervised(context, SupervisedOptions())


def made_batch(epoch: int = 0, augment: bool = True) -> dict:
    joints = torch.randn(CLIPS, 1, FRAMES, 25, 3, generator=torch.Generator().manual_seed(1))
    keys = torch.from_numpy(clip_keys(0, epoch, range(CLIPS)))
    lengths = torch.tensor([FRAMES, 30, 35, 38, 31, FRAMES])
    clips = {"joints": joints, "lengths": lengths}
    return clips | {"keys": keys, "augment": augment, "labels": torch.tensor([0, 1, 2] * 2)}


def test_teachers_of_several_streams_are_averaged_each_through_its_own_preprocessing() -> None:
    kinds = [{"stream": "bone", "window": 12}, {"window": 20, "target": "kinect_v1_20"}, {"stream": "joint_motion"}]
    models = [made_teacher(NAMES, **kind, seed=seed) for seed, kind in enumerate(kinds)]
    options, batch = DistilOptions(["a", "b", "c"], temperature=3.0, ratios=[2.0, 1.0, 1.0]), made_batch(augment=False)
    found = Teachers(models, options)(batch, None, torch.float32)
    with torch.no_grad():  # as a user calls them, without the lean form
        said = [torch.softmax(model(batch["joints"], batch["lengths"], grad=True) / 3.0, dim=1) for model in models]
    torch.testing.assert_close(found, 0.5 * said[0] + 0.25 * said[1] + 0.25 * said[2])
    assert said[0].sub(said[1]).abs().max() > 0.05 and not found.requires_grad


def test_teachers_see_the_clips_as_they_are_varied_for_the_student() -> None:
    student, bone, batch = made_student(), made_teacher(NAMES, "bone"), made_batch()
    student.hold("teachers", Teachers([bone], DistilOptions("bone", weight=0.5, temperature=2.0)))
    x, parents = student.augmented(batch), list(load_layout("kinect_v2_25").bone_parents)
    with torch.no_grad():  # bones of the student's own input
        expected = torch.softmax(bone.encoder(x - x[:, :, :, parents]) / 2.0, dim=1)
    torch.testing.assert_close(student.teachers(batch, VARIED, torch.float32), expected)
    later = student.teachers(made_batch(epoch=1), VARIED, torch.float32)
    assert later.sub(expected).abs().max() > 1e-3
    student.train()
    plain = student(batch)
    taught = student.taught(batch, plain)
    loss = distillation_loss(plain["scores"], expected, 2.0)
    torch.testing.assert_close(taught["loss"], plain["loss"] + 0.5 * loss)
    torch.testing.assert_close(taught["loss_distil"], loss.detach())
    assert set(student.state_dict()) == set(made_student().state_dict()) and not list(student.teachers.parameters())


def test_a_task_that_detaches_its_scores_is_found_out() -> None:
    student = made_student()
    student.hold("teachers", Teachers([made_teacher(NAMES)], DistilOptions("joint")))
    with pytest.raises(ValueError, match="Supervised detaches the scores"):
        student.taught(made_batch(), {"loss": torch.zeros(()), "scores": torch.zeros(CLIPS, 3)})
    with pytest.raises(UserError, match="scores no clips"):
        student.taught(made_batch(), {"loss": torch.zeros(())})


@pytest.fixture(scope="module")
def store(demo_store) -> ClipStore:
    return open_store(demo_store)


def test_a_run_is_taught_resumes_with_the_same_teacher_and_refuses_another(demo_store, store, tmp_path) -> None:
    teacher, out, again = tmp_path / "bone", tmp_path / "run", ["--schedule.epochs=1", "--schedule.warmup_epochs=0"]
    write_teacher(teacher, made_teacher(store.class_names, "bone"))
    words = arguments(demo_store, out, *again, f"--distil.teacher={teacher}", "--distil.weight=2")
    assert train(parse(words)) == 0
    reset_accelerate()
    for line in records(out):
        assert line["loss"] == pytest.approx(line["loss_classes"] + 2 * line["loss_distil"], rel=1e-5)
    model = open_model(out)
    assert len(model.record.parents) == 1 and all(name.startswith("encoder.") for name in weights(out))
    assert str(teacher) in json.loads((out / "summary.json").read_text())["loaded"]["teacher 1"]
    resumed = parse([*words, "--resume=true"])
    build_task(resumed, open_data(resumed), torch.device("cpu"))
    write_teacher(teacher, made_teacher(store.class_names, "bone", seed=1))
    with pytest.raises(UserError, match="cannot resume .*distil.teacher .*bone is not what it was"):
        build_task(resumed, open_data(resumed), torch.device("cpu"))
    config = parse(arguments(demo_store, tmp_path / "next", f"--distil.teacher={out}"))  # a run teaches, too
    task = build_task(config, open_data(config), torch.device("cpu"))
    assert "ctrgcn, joint, " in task.helpers()["teacher 1"] and task.teachers.records[0].parents == model.record.parents


def refusal(demo_store: Path, out: Path, teacher: str, *more: str) -> str:
    config = parse(arguments(demo_store, out, f"--distil.teacher={teacher}", *more))
    with pytest.raises(UserError) as refused:
        build_task(config, open_data(config), torch.device("cpu"))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_teacher_that_knows_what_its_student_is_judged_by_is_refused(demo_store, store, tmp_path) -> None:
    sides = split(store, load_protocol("demo/cross_subject"), None)
    known = {
        "tested": Record.of(store, replace(sides, train=np.concatenate([sides.train, sides.test[:2]])), "own"),
        "chosen": Record.of(store, replace(sides, validation=sides.test[:3]), "own"),
        "trained": Record.of(store, sides, "own"),
    }
    known["second hand"] = Record.of(store, replace(sides, test=sides.train), "own", parents=[known["tested"]])
    paths = {
        name: write_teacher(tmp_path / name, made_teacher(store.class_names, record=record))
        for name, record in known.items()
    }
    learned = "has learned from 2"
    for name, words in (("tested", learned), ("second hand", learned), ("chosen", "may have been chosen by 3")):
        assert f"{words} of the {len(sides.test)} clips by which demo/cross_subject tests" in refusal(
            demo_store, tmp_path / "x", paths[name]
        )
    held = "--data.validation={subject: [3]}"
    assert "demo/cross_subject is validated" in refusal(demo_store, tmp_path / "x", paths["trained"], held)
    validated = split(store, load_protocol("demo/cross_subject"), {"subject": [3]})
    fair = write_teacher(tmp_path / "fair", made_teacher(store.class_names, record=Record.of(store, validated, "own")))
    config = parse(arguments(demo_store, tmp_path / "x", f"--distil.teacher={fair}", held))
    assert build_task(config, open_data(config), torch.device("cpu")).teachers is not None


def test_what_cannot_teach_or_be_taught_is_refused_in_one_line(demo_store, store, tmp_path, tower_folder) -> None:
    names = list(store.class_names)
    good = write_teacher(tmp_path / "good", made_teacher(names))
    other = write_teacher(tmp_path / "other", made_teacher(names[1:] + names[:1]))
    assert f"other classes than the run, or another order ({names[1]} instead of {names[0]})" in refusal(
        demo_store, tmp_path / "x", other
    )
    fewer = write_teacher(tmp_path / "fewer", made_teacher(names[:5]))
    assert f"(5 classes instead of {len(names)} classes)" in refusal(demo_store, tmp_path / "x", fewer)
    graphs = Path(write_teacher(tmp_path / "graphs", made_teacher(names)))
    (graphs / WEIGHTS).rename(graphs / GRAPHS["fp32"])
    assert "ONNX graphs alone" in refusal(demo_store, tmp_path / "x", str(graphs))
    towers = tmp_path / "towers"
    towers.mkdir()
    (towers / "tiny-clip").symlink_to(tower_folder("tiny-clip"))
    for name, words in {
        "masked_motion": "trains no classifier", "neighbour_contrast": "trains no classifier",
        "sa_dvae": "trains no classifier", "continual": "arrive in parts",
    }.items():  # fmt: skip
        config = parse(command(("task", name), demo_store, tmp_path / "x", towers, f"--distil.teacher={good}"))
        with pytest.raises(UserError, match=words):
            build_task(config, open_data(config), torch.device("cpu"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--distil.temperature=0"], "distil.temperature is 0"),
        (["--distil.weight=-1"], "distil.weight is -1"),
        (["--distil.teacher=[a, a]"], "names a model twice"),
        (["--distil.teacher=[a, b]", "--distil.ratios=[1]"], "one number for each of 2 teachers"),
        (["--distil.teacher=[a, b]", "--distil.ratios=[0, 0]"], "not all 0"),
        (["--distil.teachers=a"], "teachers"),
    ],
)
def test_options_out_of_range_name_the_key(demo_store, tmp_path, words, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        parse(arguments(demo_store, tmp_path / "x", *words))
