"""Replay: compression, reservoir, masked passes and losses, equal to the released CHARON over steps and probing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import check_double, load_doubles, load_json, under
from made_tasks import context_of
from released_mamp import as_batch
from released_sttformer import build_sttformer, load_official, own_name

from mmcl.common.draws import clip_keys, step_key
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.base import Apply
from mmcl.tasks.continual import recollection
from mmcl.tasks.continual import task as task_module
from mmcl.tasks.continual.options import ContinualOptions
from mmcl.tasks.continual.recollection import Rows
from mmcl.tasks.continual.replay import (
    DROPPED,
    ReplayMemory,
    completion_loss,
    compress,
    inflate,
    logit_loss,
    masked_pass,
    replay_loss,
    reservoir_places,
)
from mmcl.tasks.continual.task import Continual


def test_inflation_equals_the_released_one():
    arrays = load_doubles("charon", "compress_inflate")
    x = as_batch(arrays["in/x"])
    intervals = [int(key[1:].partition("/")[0]) for key in arrays if key.endswith("inflated_official")]
    assert intervals and len(intervals) == sum(key.endswith("/compressed_frames") for key in arrays)
    for interval in intervals:
        kept = compress(x, interval)
        assert kept.shape[2] == arrays[f"s{interval}/compressed_frames"]
        found = inflate(kept, x.shape[2], interval, released=True)
        check_double(found, as_batch(arrays[f"s{interval}/inflated_official"]), f"{interval}", relative=1e-6)
        if interval > 1:  # where frames lie right, the error is smaller
            error = F.mse_loss(inflate(kept, x.shape[2], interval)[:, :, : (kept.shape[2] - 1) * interval],
                               x[:, :, : (kept.shape[2] - 1) * interval])  # fmt: skip
            assert error < arrays[f"s{interval}/mse_official"]


@pytest.mark.parametrize(("frames", "interval"), [(20, 5), (21, 5), (17, 4), (9, 1)])
def test_inflation_in_phase(frames, interval):
    time = torch.arange(frames, dtype=torch.float64)
    x = (0.5 + 2.0 * time)[None, None, :, None, None].expand(2, 1, frames, 3, 3)
    kept = compress(x, interval)
    assert kept.shape[2] == -(-frames // interval)
    expected = (0.5 + 2.0 * time).clamp(max=0.5 + 2.0 * (kept.shape[2] - 1) * interval)  # the last is held
    torch.testing.assert_close(inflate(kept, frames, interval)[1, 0, :, 2, 1], expected)
    if interval == 1:
        assert torch.equal(inflate(kept, frames, 1), x)


def test_reservoir_equals_the_released_one():
    arrays = load_doubles("charon", "reservoir")
    size, expected = int(arrays["capacity"]), arrays["target_index_per_offer"].tolist()
    draws = np.random.RandomState(int(arrays["numpy_seed"]))
    values = [0 if offer < size else draws.randint(0, offer + 1) for offer in range(len(expected))]
    assert reservoir_places(0, size, torch.tensor(values)) == expected
    memory = ReplayMemory(size, 2)
    memory.put(expected, torch.arange(len(expected)), torch.zeros(len(expected)), torch.zeros(len(expected), 2))
    assert memory.clips.tolist() == arrays["final_slot_content"].tolist() and memory.seen == len(expected)


def test_every_offer_is_held_with_the_same_probability():
    size, offers, runs = 20, 200, 400
    draws, held = torch.Generator().manual_seed(0), torch.zeros(offers)
    for _ in range(runs):
        memory = ReplayMemory(size, 1)
        for part in torch.arange(offers).split(50):
            memory.offer(part, part, torch.zeros(len(part), 1), torch.rand(len(part), generator=draws))
        assert torch.equal(memory.clips, memory.labels) and len(memory) == size
        held[memory.clips] += 1
    expected = runs * size / offers
    chi_square = ((held - expected) ** 2 / (expected * (1 - size / offers))).sum() * (offers - 1) / offers
    assert abs(chi_square - (offers - 1)) < 4 * (2 * (offers - 1)) ** 0.5


def test_places_are_chosen_among_those_that_are_filled_and_none_twice():
    memory = ReplayMemory(10, 3)
    assert not len(memory) and not len(memory.choose(4, torch.rand(10)))
    memory.offer(torch.arange(6), torch.arange(6), torch.ones(6, 3), torch.rand(6))
    assert memory.clips.tolist() == [0, 1, 2, 3, 4, 5, *[DROPPED] * 4]
    chosen = memory.choose(4, torch.rand(10))
    assert len(set(chosen.tolist())) == 4 and chosen.max() < 6
    assert sorted(memory.choose(8, torch.rand(10)).tolist()) == list(range(6))


class Charon:
    """The released training step by step: the task's own steps, numpy's generator for draws, joints in the memory."""

    def __init__(self, arrays, facts, patch) -> None:
        self.arrays, self.facts, self.patch = arrays, facts, patch
        self.encoder, self.decoder = build_sttformer(facts)
        load_official(self.encoder, self.decoder, under(arrays, "sd/"))
        interval, classes = facts["sampling_interval"], facts["kwargs"]["num_classes"]
        context = context_of(self.encoder, facts["kwargs"]["num_frames"], list(range(classes)))
        context = replace(context, stream=tuple(np.array_split(np.arange(classes), 2)))
        weights = {key: facts[key] for key in ("alpha", "beta", "gamma")}
        options = ContinualOptions(interval=interval, ratio=facts["masking_ratio"], released=True, **weights)
        self.task = Continual(context, options)
        self.task.decoder = self.decoder
        self.memory = self.task.memory = ReplayMemory(int(arrays["buffer/capacity"]), classes).double()
        self.joints: dict[int, torch.Tensor] = {}  # by clip number; compressed
        self.random = np.random.RandomState(int(arrays["in/numpy_seed"]))
        self.optimiser = torch.optim.SGD([*self.encoder.parameters(), *self.decoder.parameters()], lr=facts["lr"])

    def remembered(self):
        """A batch of the memory, drawn as the released code draws it: joints, labels, logits, places."""
        held = len(self.memory)
        places = torch.from_numpy(self.random.choice(held, size=min(self.facts["memory_batch"], held), replace=False))
        return *self.recall(places), places

    def recall(self, places):
        kept = torch.stack([self.joints[int(clip)] for clip in self.memory.clips[places]])
        x = inflate(kept, self.facts["kwargs"]["num_frames"], self.facts["sampling_interval"], released=True)
        return x, self.memory.labels[places], self.memory.logits[places]

    def spread(self, x, noise):
        """Served noise, whose rows are first persons, then second ones, on the persons that are there."""
        bodies = self.encoder.bodies(x)
        order = torch.argsort(bodies.rows % x.shape[1], stable=True)
        every = torch.zeros(x.shape[0] * x.shape[1], noise.shape[1]).index_copy(0, bodies.rows[order], noise.float())
        return every.unflatten(0, x.shape[:2])

    def forward(self, stage, x, labels, given):
        """The task's own step on these clips and on what the memory is asked for, with the noise that was served."""
        rows, noise = [], {}
        for name in ("logits", "labels") if len(self.memory) else ():
            joints, classes, logits, places = self.remembered()
            if f"memory_choice{len(rows)}" in given:
                check_double(places, given[f"memory_choice{len(rows)}"], "places")
            rows.append(Rows(name, joints, classes, places, logits))
        if "mask_noise0" in given:
            for number, (name, clips) in enumerate([("stream", x), *((one.name, one.x) for one in rows)]):
                noise[f"mask {name}"] = self.spread(clips, given[f"mask_noise{number}"])
        self.patch.setattr(task_module, "uniform", lambda keys, name, shape: noise[name])
        self.patch.setattr(self.task, "augmented", lambda batch: x)
        self.patch.setattr(self.task.recollection, "batches", lambda memory, batch, count: rows)
        clips = torch.arange(len(x))
        return self.task({"stage": stage, "labels": labels, "clips": clips, "keys": clips})

    def step(self, name):
        """One training step, compared with the released one."""
        given, gamma = under(self.arrays, f"{name}/"), self.facts["gamma"]
        self.optimiser.zero_grad()
        found = self.forward("part0", as_batch(given["in/x"]), given["in/y"], given)
        errors, entropies = given["mse_terms_in_call_order"], given["ce_terms_in_call_order"]
        expected = {"loss": given["total"], "loss_stream": entropies[0] + gamma * errors[0]}
        if len(self.memory):
            expected |= {"loss_logits": errors[1] + gamma * errors[2], "loss_labels": entropies[1] + gamma * errors[3]}
        assert set(expected) == {key for key in found if key.startswith("loss")}
        for key, value in expected.items():
            check_double(found[key], value, key)
        found["loss"].backward()
        self.compare_gradients(given)
        self.optimiser.step()
        check_double(self.encoder.classifier.weight, given["classifier_weight_after"], "classifier")

    def compare_gradients(self, given):
        parts = {"encoder": dict(self.encoder.named_parameters()), "decoder": dict(self.decoder.named_parameters())}
        for official, gradient in under(given, "grad/").items():
            part, name = own_name(official)
            check_double(parts[part][name].grad.view_as(gradient), gradient, official)
        norm = torch.stack([tensor.grad.norm() for part in parts.values() for tensor in part.values()]).norm()
        check_double(norm, given["grad_l2_norm_all"], "norm of all gradients")

    def probe(self):
        """Epochs on the classifier alone with frozen statistics, in which the memory is filled; then fresh logits."""
        self.encoder.eval()
        optimiser = torch.optim.SGD(self.encoder.classifier.parameters(), lr=self.facts["lr"])
        count = sum(key.startswith("probe_loader/") and key.endswith("/y") for key in self.arrays)
        batches = [under(self.arrays, f"probe_loader/batch{number}/") for number in range(count)]
        losses = []
        for number in range(self.facts["probing_epochs"] * len(batches)):
            batch = batches[number % len(batches)]
            x, labels = as_batch(batch["x"]), batch["y"]
            found = self.forward("probe0", x, labels, {})
            loss, scores = found["loss"], found["scores"]
            losses.append(loss.detach())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            self.offer(x, labels, scores.detach())
        check_double(torch.stack(losses), self.arrays["probe/losses"], "losses of probing")
        held = torch.arange(len(self.memory))
        self.memory.logits[held] = self.encoder(self.recall(held)[0]).detach()
        self.encoder.train()

    def offer(self, x, labels, scores):
        """Offer a batch to the memory with the released draws: one only where the memory is full."""
        seen, size = int(self.memory.seen), len(self.memory.clips)
        draws = torch.tensor([0 if offer < size else self.random.randint(0, offer + 1)
                              for offer in range(seen, seen + len(x))])  # fmt: skip
        clips = torch.arange(seen, seen + len(x))
        for clip, joints in zip(clips.tolist(), compress(x, self.facts["sampling_interval"]), strict=True):
            self.joints[clip] = joints
        self.memory.put(reservoir_places(seen, size, draws), clips, labels, scores)


def test_steps_probing_and_refreshed_logits_of_the_released_charon(monkeypatch):
    arrays, facts = load_doubles("charon", "observe_probe_refresh"), load_json("charon", "observe_config")
    charon = Charon(arrays, facts, monkeypatch)
    steps = [key.partition("/")[0] for key in arrays if key.endswith("/total")]
    assert {name.partition("_")[0] for name in steps} == {"task0", "task1"}
    for name in steps:
        if name.startswith("task0"):
            charon.step(name)
    before = {name: tensor.clone() for name, tensor in charon.encoder.state_dict().items()}
    charon.probe()
    changed = [name for name, tensor in charon.encoder.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["classifier.weight", "classifier.bias"]
    check_double(charon.encoder.classifier.weight, arrays["probe/classifier_weight_after"], "classifier")
    check_double(charon.encoder.classifier.bias, arrays["probe/classifier_bias_after"], "classifier")
    memory = charon.memory
    held = len(memory)
    assert memory.seen == arrays["memory/num_seen"] and held == min(len(memory.clips), int(memory.seen))
    check_double(memory.labels[:held], arrays["memory/labels"][:held], "labels")
    stored = torch.stack([charon.joints[int(clip)] for clip in memory.clips[:held]])
    check_double(stored, as_batch(arrays["memory/stored_clips"][:held]), "joints")
    check_double(memory.logits[:held], arrays["memory/logits_after_refresh"][:held], "logits")
    for name in steps:
        if name.startswith("task1"):
            charon.step(name)
    parts = {"encoder": dict(charon.encoder.state_dict()), "decoder": dict(charon.decoder.state_dict())}
    for official, value in under(arrays, "final/").items():
        if found := own_name(official):
            check_double(parts[found[0]][found[1]].view_as(value), value, official)


def test_an_absent_person_is_completed_by_zeros_and_the_loss_reaches_all_parts():
    torch.manual_seed(0)
    config = {"kwargs": {"num_heads": 2, "len_parts": 3, "num_channels": 3, "num_joints": 4, "num_classes": 5},
              "encoder": [[6, 6, 3], [6, 8, 4]], "decoder": [[8, 6, 3]]}  # fmt: skip
    encoder, decoder = build_sttformer(config, released=False)
    x = torch.randn(3, 2, 10, 4, 3, dtype=torch.float64)
    x[1, 1] = x[2] = 0.0
    features, completed = masked_pass(encoder, decoder, x, torch.rand(3, 2, 4), 0.99)
    scores = encoder.head(features)
    assert scores.shape == (3, 5) and completed.shape == x.shape
    assert not completed[1, 1].any() and not completed[2].any() and completed[0, 1].any()
    (F.cross_entropy(scores, torch.tensor([0, 1, 2])) + completion_loss(completed, x)).backward()
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad is not None, name


def test_terms_of_the_replay_loss():
    scores, stored = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 2.0]])
    assert logit_loss(scores, stored).item() == pytest.approx((1 + 4) / 4)
    one, two, three = torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0)
    assert replay_loss(one, two, three).item() == pytest.approx(1 + 0.3 * 2 + 0.8 * 3)
    assert replay_loss(one, None, three, beta=0.5).item() == pytest.approx(2.5) and replay_loss(one, None, None) == 1


def test_logits_are_refreshed_on_what_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole clips, not their central 95 %: the same weights on a remembered clip that is not turned give its logits."""
    encoder = build_encoder("tcn", load_layout("kinect_v1_20"), 4, {"width": 8, "members": 1, "persons": 1})
    context = replace(context_of(encoder, 16, [0, 1, 2, 3]), stream=(np.array([0, 1]), np.array([2, 3])))
    task = Continual(context, ContinualOptions(memory=2, interval=2)).eval()
    joints, lengths, keys = torch.randn(4, 1, 40, 20, 3).cumsum(dim=2), torch.tensor([40, 33, 21, 40]), torch.arange(4)
    monkeypatch.setattr(task, "recall", lambda clips, epoch: {"joints": joints, "lengths": lengths, "keys": keys})
    task.recollection.augmentation = replace(task.recollection.augmentation, rotation=0.0)
    replayed, _ = task.recollection.clips(torch.arange(4), 0, "labels")
    torch.testing.assert_close(task.recollection.plain(joints, lengths), replayed)
    torch.testing.assert_close(task._memory_scores(joints, lengths), encoder(replayed))
    assert not torch.allclose(task.recollection.compressed(task.preprocess(joints, lengths)), replayed)


@pytest.mark.parametrize("released", [True, False])
def test_released_clips_are_cropped_once_and_remembered_as_they_were_trained_on(monkeypatch, released) -> None:
    encoder = build_encoder("tcn", load_layout("kinect_v1_20"), 4, {"width": 8, "members": 1, "persons": 1})
    context = replace(context_of(encoder, 30, [0, 1, 2, 3]), stream=(np.array([0, 1]), np.array([2, 3])))
    context = replace(context, augmentation=Augmentation(crop_floor=20, rotation=0.0, uneven=True))
    task = Continual(context, ContinualOptions(memory=2, interval=5, released=released))
    joints, clips = torch.randn(4, 1, 90, 20, 3).cumsum(dim=2), torch.arange(4)

    def batch(epoch: int) -> dict:
        return {"joints": joints, "lengths": torch.tensor([90, 70, 60, 90]), "clips": clips,
                "labels": torch.tensor([0, 1, 2, 3]), "stage": "part0", "epoch": epoch, "step": epoch, "micro": 0,
                "keys": torch.from_numpy(clip_keys(task.seed, epoch, clips.numpy())),
                "step_key": step_key(0, epoch)}  # fmt: skip

    monkeypatch.setattr(task, "recall", lambda clips, epoch: batch(epoch))
    trained_on: list[torch.Tensor] = []
    features = encoder.features
    monkeypatch.setattr(encoder, "features", lambda x: trained_on.append(x) or features(x))
    for epoch in (0, 1):
        task(batch(epoch))
    assert torch.equal(*trained_on) == released
    for epoch, purpose in ((0, "logits"), (1, "labels"), (0, "refresh")):
        x, _ = task.recollection.clips(clips, epoch, purpose)
        assert torch.equal(x, task.recollection.compressed(trained_on[0])) == released
    task.recollection.augmentation = replace(task.recollection.augmentation, rotation=0.3)
    turned = [task.recollection.clips(clips, 0, purpose)[0] for purpose in ("logits", "labels")]
    assert not torch.allclose(*turned)  # what turns them is drawn anew


def test_the_decoder_is_as_small_as_asked_for() -> None:
    layers = {"layers": [[16, 8], [32, 16]], "width": 16, "persons": 1}
    encoder = build_encoder("sttformer", load_layout("kinect_v1_20"), 2, layers)
    context = replace(context_of(encoder, 12, [0, 1]), stream=(np.array([0]), np.array([1])))
    task = Continual(context, ContinualOptions(decoder=((16, 16), (16, 8))))
    assert task.decoder is not None and task.decoder.coordinates.in_channels == 16 and len(task.decoder.layers) == 2
    for wrong in ((), ((16, 0),)):
        with pytest.raises(UserError, match="task.decoder is"):
            ContinualOptions(decoder=wrong).check()


def test_a_step_gets_as_many_clips_from_the_memory_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder("tcn", load_layout("kinect_v1_20"), 2, {"width": 8, "members": 1, "persons": 1})
    context = replace(context_of(encoder, 16, [0, 1] * 4), stream=(np.array([0]), np.array([1])))
    task = Continual(context, ContinualOptions(method="er", memory=8, memory_batch=5))
    task.memory.offer(torch.arange(8), torch.arange(8) % 2, torch.zeros(8, 2), torch.rand(8, dtype=torch.float64))
    monkeypatch.setattr(task.recollection, "clips", lambda clips, epoch, purpose: (torch.zeros(len(clips)), clips))
    for micros, processes in ((1, 1), (1, 2), (2, 1), (2, 2)):
        monkeypatch.setattr(recollection, "world_size", lambda processes=processes: processes)
        found = 0
        for micro in range(micros):
            batch = {"micro": micro, "micros": micros, "epoch": 0, "step": 0, "step_key": step_key(0, 0)}
            for process in range(processes):
                monkeypatch.setattr(recollection, "rank", lambda process=process: process)
                found += sum(len(rows.x) for rows in task.recollection.batches(task.memory, batch, 3))
        assert found == 5, (micros, processes)


def test_validation_asks_for_the_same_classes_all_through_a_part() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    encoder = build_encoder("tcn", load_layout("kinect_v1_20"), 4, {"width": 8, "members": 1, "persons": 1})
    context = replace(context_of(encoder, 16, labels.tolist()), stream=(np.array([0, 2]), np.array([1, 3])))
    task = Continual(context, ContinualOptions(method="finetune"))

    def knows(*classes: int) -> Apply:  # a network that is right for these classes alone
        answers = np.where(np.isin(labels, classes), labels, (labels + 1) % 4)
        return lambda function, clips: np.eye(4)[answers[clips]]

    said = []
    for stage, known in zip(task.stages(), ((0, 2), (1, 3)), strict=True):
        task.begin(stage, knows())
        said.append(task.validation(knows(*known), np.arange(8), labels)["top1"])
        task.end(stage, knows())
        said.append(task.validation(knows(*known), np.arange(8), labels)["top1"])
    assert said == [
        1.0,
        1.0,
        0.5,
        0.5,
    ]  # with the second part, the first is forgotten, in its first epoch as at its end
