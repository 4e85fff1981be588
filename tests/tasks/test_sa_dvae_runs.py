"""SA-DVAE from a backbone to a verdict, on the demo without some of its classes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluation.open_runs import PSEUDO, WITHHELD
from safetensors.torch import load_file

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.store import open_store
from mmcl.engine.configuring import configure
from mmcl.engine.steps import Stepper
from mmcl.models.folder import open_model
from mmcl.tasks.sa_dvae.backbone import BackboneRows
from mmcl.towers.text import SpaceOptions, encoder_of, space_facts, space_rows
from mmcl.train import train
from mmcl.zero_shot import main as zero_shot

SMALL = ["--data.batch_size=8", "--data.workers=0", "--schedule.warmup_epochs=0", "--engine.trackers=[]"]
SEEN = ["--preprocess.window=16", "--augmentation.crop_floor=16", "--encoder.width=8", "--encoder.depth=3",
        "--encoder.persons=1", "--schedule.epochs=1"]  # fmt: skip
VAES = ["--task.name=sa_dvae", "--task.meaning=6", "--task.manner=2", "--task.cycles=3", "--task.rate=0.01",
        "--task.critic_every=2", "--schedule.epochs=2", "--engine.log_every=1"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(demo_store, tower_folder, tmp_path_factory):
    """Folders of a run and of its gate's, with what their optimisers remembered at every step."""
    folder, steps = tmp_path_factory.mktemp("dvae"), []
    rule = {"dataset": "demo", "base": "demo/cross_subject", "unseen": WITHHELD, "pseudo_unseen": PSEUDO}
    (folder / "own.yaml").write_text(json.dumps({"open": {**rule, "calibrate": {"subject": 3}}}))
    call = Stepper.__call__

    def noted(stepper, *words):
        norms = call(stepper, *words)
        part = stepper.optimiser.parts[0]
        steps.append([float(part.state[group["params"][0]].get("step", 0)) for group in part.param_groups])
        return norms

    for name, protocol in (("run", ":open"), ("gate", ":open/gate")):
        where = [f"--data.path={demo_store}", f"--data.protocol={folder / 'own.yaml'}{protocol}"]
        assert train(configure([*SMALL, *SEEN, *where, f"--out={folder / f'{name}_seen'}"])) == 0
        words = [*SMALL, *VAES, *where, f"--task.clip.model={tower_folder('tiny-clip')}"]
        words += [f"--start.checkpoint={folder / f'{name}_seen'}", f"--out={folder / name}"]
        with pytest.MonkeyPatch.context() as patch:
            if name == "run":
                patch.setattr(Stepper, "__call__", noted)
            assert train(configure(words)) == 0
    return SimpleNamespace(run=folder / "run", gate=folder / "gate", seen=folder / "run_seen", steps=steps, words=words)


def tensors(path):
    return load_file(path / "learned.safetensors")


def test_the_backbone_stays_as_it_is_to_the_bit(runs) -> None:
    before, after = tensors(runs.seen / "checkpoints/last"), tensors(runs.run / "checkpoints/last")
    names = [name for name in before if name.startswith("encoder.")]
    assert names and all(torch.equal(before[name], after[name]) for name in names)


def test_optimisers_go_on_through_cycles_and_the_critic_keeps_its_beat(runs) -> None:
    """Two steps an epoch, two epochs a cycle, three cycles; the critic at every second step of a cycle."""
    vaes, critic = zip(*runs.steps, strict=True)
    assert vaes == tuple(range(1, 13))
    assert critic == (1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6)


def test_features_are_scaled_by_how_large_they_are_and_read_from_disk_the_second_time(runs, monkeypatch) -> None:
    config = configure(runs.words)
    store = open_store(config.data.path)
    clips = split(store, load_protocol(config.data.protocol)).train
    model = open_model(runs.gate)
    rows = torch.cat([model.features(torch.from_numpy(store.joints(int(clip)).copy())[None]) for clip in clips])
    scale = float(tensors(runs.gate / "checkpoints/last")["text_head.scale"])
    assert scale == pytest.approx(float(rows.std()), rel=1e-4)
    monkeypatch.setattr(BackboneRows, "_compute", lambda *_: pytest.fail("computed again"))
    again = [word for word in runs.words if not word.startswith("--out")]
    assert train(configure([*again, "--task.cycles=1", f"--out={runs.gate.parent / 'again'}"])) == 0


def test_the_classifier_that_is_kept_is_that_of_the_withheld_classes(runs) -> None:
    model, store = open_model(runs.run), open_store(configure(runs.words).data.path)
    head = model.text_head
    assert head.options.kept == len(WITHHELD) == len(head.kept_classifier)
    assert torch.equal(head.kept_classifier, head.fitted(head.kept_rows))
    names = [store.class_names[label] for label in WITHHELD]
    assert [entry["name"] for entry in model.vocabulary.words.classes()][WITHHELD[0]] == names[0]


def accuracy(path, store, clips, classes) -> float:
    """Zero-shot accuracy of a checkpoint, clip by clip, from its saved tensors and texts that are embedded anew."""
    model, saved = open_model(path), tensors(path)
    rows = model.text_head.fitted(text_rows(model, store, classes)).numpy()
    weight, bias = (saved[f"text_head.skeleton_encoder.mean.{kind}"].numpy()[:6] for kind in ("weight", "bias"))
    right = 0
    for clip in clips:
        feature = model.features(torch.from_numpy(store.joints(int(clip)).copy())[None]).numpy()[0]
        meaning = weight @ (feature / saved["text_head.scale"].numpy()) + bias
        right += classes[int((rows[:, :6] @ meaning + rows[:, 6]).argmax())] == store.labels[clip]
    return right / len(clips)


def text_rows(model, store, classes):
    words = model.vocabulary.words
    texts = [words.texts(words.names.index(store.class_names[label])) for label in classes]
    return space_rows(model.vocabulary.text, texts, lambda one: encoder_of(one, torch.device("cpu")))


def test_the_cycle_is_chosen_on_pseudo_unseen_classes_and_the_other_choice_is_named(runs, capsys, tmp_path) -> None:
    words = ["--checkpoint", str(runs.run), "--gate", str(runs.gate), "--cycles", "--out", str(tmp_path / "report")]
    assert zero_shot([*words, "--gate-temperature", "2.5", "--gate-threshold", "0.31"]) == 0
    printed, report = capsys.readouterr().out, json.loads((tmp_path / "report/report.json").read_text())
    config = configure(runs.words)
    store = open_store(config.data.path)
    gate = split(store, load_protocol(config.data.protocol))
    protocol = config.data.protocol.removesuffix("/gate")
    judged = split(store, load_protocol(protocol))
    sides = (("by_cycle_test", runs.run, judged, WITHHELD), ("by_cycle_pseudo_unseen", runs.gate, gate, PSEUDO))
    for key, run, sides_of, classes in sides:
        assert len(sides_of.unseen) and len(report[key]) == 3
        for name, value in report[key].items():
            assert value == pytest.approx(accuracy(run / "checkpoints" / name, store, sides_of.unseen, classes))
    best = max(report["by_cycle_pseudo_unseen"], key=report["by_cycle_pseudo_unseen"].get)
    assert report["cycle"].startswith(best) and report["top1"] == pytest.approx(report["by_cycle_test"][best])
    assert report["gate"]["run"] == str(runs.gate / "checkpoints" / best)
    assert {"seen", "unseen", "harmonic"} <= report["generalised"].keys()
    assert (report["gate"]["temperature"], report["gate"]["threshold"]) == (2.5, 0.31)
    assert "which is no result" in printed and f"cycle: {best}" in printed


def test_the_released_gate_wants_more_clips_than_the_demo_has_and_says_so(runs) -> None:
    with pytest.raises(UserError, match="the released gate holds a 6th of the clips out"):
        zero_shot(["--checkpoint", str(runs.run), "--gate", str(runs.gate), "--released-gate"])
    with pytest.raises(UserError, match="--released-gate needs --gate"):
        zero_shot(["--checkpoint", str(runs.run), "--released-gate"])
    with pytest.raises(UserError, match="has kept no cycles"):
        zero_shot(["--checkpoint", str(runs.seen), "--cycles"])


def test_several_towers_and_templates_lie_side_by_side() -> None:
    generator = torch.Generator().manual_seed(0)
    known = {name: {text: F.normalize(torch.randn(3, generator=generator), dim=0) for text in "abcd"} for name in "xy"}
    texts = [["a", "b"], ["c", "d"]]

    def encoder(facts):
        return lambda some: torch.stack([known[facts["model"]][text] for text in some])

    for joined in (False, True):
        space = space_facts(SpaceOptions(["x", "y"], joined), SimpleNamespace(model="", pretrained=None))
        found = space_rows(space, texts, encoder)
        for row, own in zip(found.numpy(), texts, strict=True):
            parts = [[known[name][text].numpy() for text in own] for name in "xy"]
            if joined:
                expected = np.concatenate([vector for part in parts for vector in part])
            else:
                means = [np.mean(part, axis=0) for part in parts]
                expected = np.concatenate([mean / np.linalg.norm(mean) for mean in means])
            np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)
    assert "beside" not in space_facts(SpaceOptions(["x"]), SimpleNamespace(model="", pretrained=None))


def test_options_out_of_range_are_refused(runs) -> None:
    for word, complaint in (
        ("--task.meaning=0", "task.meaning is 0"), ("--task.rate=0", "task.rate is 0"),
        ("--task.text.sources=[]", "task.text.sources needs"), ("--task.skeleton_weight=-1", "task.skeleton_weight"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=complaint):
            train(configure([*runs.words, word, f"--out={runs.gate.parent / 'never'}"]))
