"""One writer, nothing that blocks the next try, nothing that is not finite, nobody's recordings, and true refusals."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from forked import reset_accelerate
from running import arguments, launch, records, weights
from safetensors.torch import load, load_file, save
from torch.utils.data import get_worker_info

from mmcl.common.errors import UserError
from mmcl.common.leftovers import beside
from mmcl.data.dataset import ClipDataset, Sample
from mmcl.data.sampler import Key
from mmcl.data.store import open_store
from mmcl.engine.loop import Loop
from mmcl.engine.meters import MetricsFile
from mmcl.engine.parsing import parse
from mmcl.engine.random_states import random_states, restore_random_states
from mmcl.engine.run_folder import LOCK, WRITER, check_run
from mmcl.engine.setup import build_task, open_data
from mmcl.engine.summary import describe_run
from mmcl.engine.writer import sole_writer
from mmcl.evaluate import main as evaluate
from mmcl.export import main as export
from mmcl.models.probe import made_up_clips
from mmcl.models.recorded_scores import check_probe
from mmcl.skeletons.layout import layout_names, load_layout
from mmcl.tasks.supervised import Supervised
from mmcl.train import train

SHORT = ["--schedule.epochs=2", "--engine.checkpoint_steps=1"]


@pytest.fixture(autouse=True)
def fresh() -> None:
    reset_accelerate()


def run(store: Path, out: Path, *more: str) -> int:
    reset_accelerate()
    return train(parse(arguments(store, out, *SHORT, *more)))


@pytest.fixture(scope="module")
def stopped(demo_store, tmp_path_factory) -> Path:
    """A run that was asked to stop after its fourth step."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_asked_to_stop", lambda loop, _: loop.position.steps == 4)
        assert run(demo_store, out) == 130
    return out


@pytest.fixture
def copy(stopped, tmp_path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def record_of(folder: Path) -> dict[str, object]:
    """What a run says that it is made of."""
    return json.loads((folder / "model.json").read_text())["record"]


def test_a_run_does_not_go_on_with_a_layout_file_that_has_changed(demo_store, tmp_path, monkeypatch) -> None:
    """Weights would be learned on two orders of joints, and model.json would know of the first."""
    own, out = tmp_path / "own.yaml", tmp_path / "run"
    facts = {**load_layout("kinect_v1_20").to_dict(), "name": "own"}
    own.write_text(yaml.safe_dump(facts))
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_asked_to_stop", lambda loop, _: loop.position.steps == 4)
        assert run(demo_store, out, f"--data.layout={own}") == 130
    before = [file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()]
    own.write_text(yaml.safe_dump({**facts, "joints": facts["joints"][::-1]}))
    with pytest.raises(UserError, match="layout 'own' is not what it was"):
        run(demo_store, out, f"--data.layout={own}", "--resume=true")
    assert [file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()] == before
    own.write_text(yaml.safe_dump(facts))
    assert run(demo_store, out, f"--data.layout={own}", "--resume=true") == 0


def hold(folder: str, words: list[str], ready: str) -> None:
    with sole_writer(parse(words)):
        Path(ready).touch()
        time.sleep(60)


def test_a_second_writer_is_told_who_writes(demo_store, tmp_path) -> None:
    words = arguments(demo_store, tmp_path / "run", *SHORT)
    context = multiprocessing.get_context("forkserver")
    holder = context.Process(target=hold, args=(str(tmp_path / "run"), words, str(tmp_path / "ready")))
    holder.start()
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "ready").exists() and time.monotonic() < until:
            time.sleep(0.05)
        with pytest.raises(UserError, match=rf"is being written by process {holder.pid} on .* since .*another --out"):
            train(parse(words))
    finally:
        holder.kill()
        holder.join()
    assert run(demo_store, tmp_path / "run") == 0  # what was killed holds nothing
    assert not (tmp_path / "run" / ".writer.json").exists()


def test_who_is_refused_leaves_the_folder_and_the_lock_of_who_has_just_begun(demo_store, tmp_path) -> None:
    """The first one holds the lock and has written nothing yet, not even its name."""
    out = tmp_path / "run"
    config = parse(arguments(demo_store, out, *SHORT))
    out.mkdir()
    with FileLock(out / LOCK):
        for _ in range(2):  # the second time, too
            with pytest.raises(UserError, match="is being written by another process"), sole_writer(config):
                pass
            assert [path.name for path in out.iterdir()] == [LOCK]
    with sole_writer(config):
        pass
    assert not out.exists()


@pytest.mark.parametrize("moment", ["first step", "second step"])
def test_what_fails_before_a_checkpoint_does_not_block_the_corrected_command(
    demo_store, tmp_path, monkeypatch, moment
) -> None:
    def fails(task: Supervised, batch: dict) -> dict:
        if moment == "first step" or batch["step"]:
            raise RuntimeError("something broke")
        return forward(task, batch)

    forward, out = Supervised.forward, tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="something broke"):
        patch.setattr(Supervised, "forward", fails)
        run(demo_store, out, "--engine.checkpoint_steps=0", "--engine.trackers=[tensorboard]", "--encoder.width=16")
    assert (out / "config.yaml").is_file()  # to see what it was
    assert run(demo_store, out, "--data.batch_size=4") == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["encoder"]["width"] == 8
    assert [line["step"] for line in records(out)] == list(range(1, 13))


def test_a_refused_run_leaves_no_folder_and_a_foreign_folder_alone(demo_store, tmp_path) -> None:
    with pytest.raises(UserError, match="no protocol"):
        run(demo_store, tmp_path / "run", "--data.protocol=nosuch")
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is no run folder"):
        run(demo_store, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "written", [("/.writer.json",), ("texts.yaml",), ("/texts.yaml",), ("texts.yaml", "/config.yaml")]
)
def test_a_run_that_was_killed_while_it_began_is_begun_again(tmp_path, written) -> None:
    """Each of its files is written beside its place (here with a slash) and then renamed."""
    config, out = parse(arguments(tmp_path / "store", tmp_path / "run")), tmp_path / "run"
    out.mkdir()
    for name in (LOCK, *written):
        path = out / name.removeprefix("/")
        (beside(path) if name.startswith("/") else path).touch()
    check_run(config)
    with sole_writer(config):
        assert {path.name for path in out.iterdir()} == {LOCK, WRITER}
    assert not out.exists()


def test_texts_of_somebody_s_own_are_left_alone(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "texts.yaml").write_text("precious")
    with pytest.raises(UserError, match="is no run folder"):
        check_run(parse(arguments(tmp_path / "store", tmp_path / "run")))


def test_what_a_killed_run_was_writing_goes_when_it_goes_on(copy, demo_store) -> None:
    for name in ("model.json", "summary.json"):
        beside(copy / name).touch()
    with sole_writer(parse(arguments(demo_store, copy, *SHORT, "--resume=true"))):
        assert not list(copy.glob("*.tmp")) and not list(copy.glob(".*.tmp"))
        assert (copy / "config.yaml").is_file()


def spoil_weight(loop: Loop) -> None:
    next(loop.task.encoder.parameters()).data.fill_(float("nan"))


def spoil_buffer(loop: Loop) -> None:
    next(loop.task.encoder.buffers()).fill_(float("inf"))


def spoil_momentum(loop: Loop) -> None:
    part = loop.optimiser.parts[0]
    part.state[part.param_groups[0]["params"][0]]["momentum_buffer"].fill_(float("inf"))


@pytest.mark.parametrize("spoil", [spoil_weight, spoil_buffer, spoil_momentum])
def test_nothing_that_is_not_finite_is_saved_also_by_a_stop_between_two_lines_of_the_log(
    demo_store, tmp_path, monkeypatch, spoil: Callable[[Loop], None]
) -> None:
    def asked(loop: Loop, stops: list[int]) -> bool:
        if loop.position.steps == 2:
            spoil(loop)
        return loop.position.steps == 2

    out = tmp_path / "run"
    monkeypatch.setattr(Loop, "_asked_to_stop", asked)
    with pytest.raises(UserError, match=rf"diverged by step 2: 1 of \d+ tensors .*{out}/checkpoints/last is of step 1"):
        run(demo_store, out, "--engine.log_every=100")
    assert all(tensor.isfinite().all() for tensor in weights(out).values())
    assert not list((out / "checkpoints").glob(".*"))
    with pytest.raises(UserError, match="nothing was saved before"):
        run(demo_store, tmp_path / "other", "--engine.checkpoint_steps=0")


def test_a_checkpoint_holds_nobody_s_recordings(stopped, demo_store, tmp_path) -> None:
    store, folder = open_store(demo_store), stopped / "checkpoints" / "last"
    probe = load_file(folder / "probe.safetensors")
    assert torch.equal(probe["joints"], made_up_clips(store.layout)["joints"])
    for key, wrong in (("joints", torch.tensor(0.0)), ("lengths", torch.ones(1, 1, 9)), ("joints", probe["joints"][0])):
        (tmp_path / "probe.safetensors").write_bytes(save({**probe, key: wrong}))
        with pytest.raises(UserError, match="probe.safetensors is damaged: it holds no clips with their lengths"):
            check_probe(None, None, tmp_path)  # type: ignore[arg-type]  # neither is looked at
    raw = b"".join(path.read_bytes() for path in folder.iterdir())
    assert not any(np.ascontiguousarray(store.joints(clip)[0, 3]).tobytes() in raw for clip in range(len(store)))


@pytest.mark.parametrize(("words", "place"), [(623, 623), (624, 625), (624, -1)])
def test_a_random_state_that_leads_beyond_its_words_is_refused(words, place, tmp_path) -> None:
    states = random_states()
    name, keys, _, *rest = states["numpy"]
    torch.save({**states, "numpy": (name, keys[:words], place, *rest)}, tmp_path / "random_0.pt")
    with pytest.raises(UserError, match=f"624 words, not {words} at {place}"):
        restore_random_states(tmp_path / "random_0.pt")


@pytest.mark.parametrize("name", layout_names())
def test_made_up_clips_are_bodies_of_the_layout(name) -> None:
    layout = load_layout(name)
    clips = made_up_clips(layout)
    joints, lengths = clips["joints"], clips["lengths"]
    assert torch.equal(joints, made_up_clips(layout)["joints"]) and len(set(lengths.tolist())) > 1
    for child, parent in layout.edges:
        bones = (joints[:, 0, :40, child] - joints[:, 0, :40, parent]).norm(dim=-1)
        torch.testing.assert_close(bones, bones[:, :1].expand_as(bones), rtol=1e-4, atol=1e-5)  # keep it
        assert (bones > 0.1).all()
    assert (joints[0, :, lengths[0] :] == 0).all() and (joints[1, 1] == 0).all() and (joints[0, 1, 0] != 0).any()


@pytest.mark.parametrize("file", ["learned.safetensors", "training.pt", "probe.safetensors", "random_0.pt"])
def test_a_checkpoint_with_one_other_bit_is_not_resumed(copy, demo_store, file) -> None:
    last = copy / "checkpoints" / "last"
    content = bytearray((last / file).read_bytes())
    content[len(content) // 2] ^= 1
    (last / file).write_bytes(content)
    with pytest.raises(UserError, match=f"^cannot resume: .*{file} is damaged: its content is not what was saved"):
        run(demo_store, copy, "--resume=true")
    position = json.loads((last / "position.json").read_text())
    (last / "position.json").write_text(json.dumps(position | {"files": {"../x": "0"}}))
    with pytest.raises(UserError, match=r"^cannot resume: .*position\.json is damaged"):
        run(demo_store, copy, "--resume=true")


@pytest.fixture
def older(copy) -> Path:
    """The run as an earlier mmcl left it: no checkpoint holds digests of its files."""
    for file in copy.glob("checkpoints/*/position.json"):
        position = json.loads(file.read_text())
        assert position.pop("files").keys() == {path.name for path in file.parent.iterdir()} - {"position.json"}
        file.write_text(json.dumps(position))
    return copy


def test_an_older_checkpoint_is_resumed_if_its_network_has_the_scores_that_were_recorded(older, demo_store) -> None:
    file = older / "checkpoints" / "last" / "learned.safetensors"
    content = file.read_bytes()
    tensors = load(content)
    name = "encoder.classifier.weight"  # which no score can hide; topologies of strength 0 do hide theirs
    file.write_bytes(save({**tensors, name: tensors[name] * 1.5}))
    with pytest.raises(UserError, match="the network is not what it was when it was trained"):
        run(demo_store, older, "--resume=true")
    file.write_bytes(content)
    assert run(demo_store, older, "--resume=true") == 0


def test_an_older_checkpoint_whose_optimiser_remembers_nothing_is_not_resumed(older, demo_store) -> None:
    file = older / "checkpoints" / "last" / "training.pt"
    state = torch.load(file, weights_only=True)
    for entries in state["optimiser"]["states"].values():
        entries[:] = [{} for _ in entries]
    torch.save(state, file)
    with pytest.raises(UserError, match=r"cannot resume: .*training.pt .*it holds no optimiser state"):
        run(demo_store, older, "--resume=true")


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("random_0.pt", None, "random_0.pt is missing or damaged"),
        ("random_0.pt", b"", "random_0.pt is missing or damaged"),
        ("random_0.pt", b"\x80\x04K\x05.", "random_0.pt is missing or damaged"),
        ("training.pt", None, "training.pt is missing or damaged"),
        ("training.pt", b"foreign", "training.pt is missing or damaged"),
        ("position.json", None, "position.json is missing or damaged"),
        ("position.json", b"{", "position.json is missing or damaged"),
        ("position.json", b"[]", "position.json is damaged"),
        ("position.json", b"[" * 100_000, "position.json is missing or damaged"),
        ("learned.safetensors", b"cut", "is damaged or of another model"),
        ("learned.safetensors", None, "no checkpoint at"),
        ("learned.safetensors", Path.mkdir, "no checkpoint at"),
        (".", None, "no checkpoint at|is missing or damaged"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # which one of the damages has
@pytest.mark.parametrize("digests", [True, False])
def test_a_damaged_checkpoint_is_refused_in_one_line(request, demo_store, file, damage, words, digests) -> None:
    copy = request.getfixturevalue("copy" if digests else "older")
    if digests and not file.startswith(("position", ".")):
        words = f"{file} is (missing or )?damaged|no checkpoint at"
    path = copy / "checkpoints" / "last" / file
    if file == ".":
        shutil.rmtree(path)
        path.write_text("no folder")
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        path.unlink()
        if damage is not None:
            damage(path)
    with pytest.raises(UserError, match=words) as refused:
        run(demo_store, copy, "--resume=true")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["stage", "step", "metrics", "complete"])
def test_a_position_with_nonsense_in_it_is_refused(copy, demo_store, key) -> None:
    path = copy / "checkpoints" / "last" / "position.json"
    position = json.loads(path.read_text())
    for value in ("many", -1, None, [3]):
        path.write_text(json.dumps({**position, key: value}))
        with pytest.raises(UserError, match="position.json is damaged"):
            run(demo_store, copy, "--resume=true")


@pytest.mark.parametrize(
    "edited",
    [
        {"complete": True}, {"stage": 1, "epoch": 0, "step": 0}, {"stage": 5}, {"epoch": 999}, {"step": 999},
        {"epoch": 2}, {"epochs": 0}, {"steps": 99}, {"stage": 1, "epoch": 0, "step": 0, "complete": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_position_that_is_no_place_in_the_run_is_refused(copy, demo_store, edited) -> None:
    path = copy / "checkpoints" / "last" / "position.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **edited}))
    with pytest.raises(UserError, match="^cannot resume: .*position.json is damaged"):
        run(demo_store, copy, "--resume=true")


@pytest.mark.parametrize(
    ("there", "keep", "left"),
    [
        (b'{"a": 1}\n{"a": 2}\n', 18, 2),  # as it should be
        (b'{"a": 1}\n{"a": 2}\n{"a": 3}\n', 18, 2),  # the third is written again
        (b'{"a": 1}\n{"a"', 18, 1),  # cut
        (b'{"a": 1}\n{"a": 2}\n', 14, 2),  # a position that is no end of a line
        (b"", 18, 0),
        (None, 18, 0),
    ],
)  # fmt: skip
def test_numbers_of_a_run_that_goes_on_are_whole_lines(tmp_path, capsys, there, keep, left) -> None:
    path = tmp_path / "metrics.jsonl"
    if there is not None:
        path.write_bytes(there)
    length = MetricsFile(path, keep, writes=True).write({"b": 1})
    assert length == path.stat().st_size
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": n + 1} for n in range(left)] + [
        {"b": 1}
    ]
    assert ("is lost" in capsys.readouterr().err) == (len(there or b"") < keep)


@pytest.mark.parametrize("change", [lambda one: torch.zeros(3), lambda one: one * float("nan")], ids=["shape", "nan"])
def test_what_an_optimiser_cannot_remember_is_refused(older, demo_store, change) -> None:
    file = older / "checkpoints" / "last" / "training.pt"
    state = torch.load(file, weights_only=True)
    entry = next(iter(state["optimiser"]["states"].values()))[0]
    entry["momentum_buffer"] = change(entry["momentum_buffer"])
    torch.save(state, file)
    with pytest.raises(UserError, match="training.pt is missing or damaged .*momentum_buffer") as refused:
        run(demo_store, older, "--resume=true")
    assert len(str(refused.value).splitlines()) == 1


def test_learned_tensors_that_are_not_finite_are_refused(older, demo_store) -> None:
    file = older / "checkpoints" / "last" / "learned.safetensors"
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    file.write_bytes(save({**tensors, name: tensors[name] * float("nan")}))
    with pytest.raises(UserError, match="last is damaged: .* not finite"):
        run(demo_store, older, "--resume=true")


def test_a_run_is_not_begun_in_a_store(tmp_path) -> None:
    (tmp_path / "store.json").touch()
    out = tmp_path / "runs" / "first"
    with pytest.raises(UserError, match="lies in the clip store .*choose another --out"):
        check_run(parse(arguments(tmp_path, out)))
    assert not out.exists()


def test_what_changes_no_result_may_change(copy, demo_store, stopped, tmp_path) -> None:
    shutil.copytree(demo_store, tmp_path / "moved")
    free = ["--data.eval_batch_size=3", "--engine.validate_every=7", "--engine.log_every=2", "--data.workers=1"]
    assert run(tmp_path / "moved", copy, "--resume=true", *free) == 0
    straight = tmp_path / "straight"
    assert run(demo_store, straight, *free) == 0
    digests = {record_of(folder)["config"] for folder in (copy, straight)}  # that of the configuration begun with
    assert len(digests) == 1 and "" not in digests
    assert all(torch.equal(tensor, weights(copy)[name]) for name, tensor in weights(straight).items())
    assert yaml.safe_load((copy / "config.yaml").read_text())["data"]["path"] == str(tmp_path / "moved")
    assert not yaml.safe_load((copy / "config.yaml").read_text())["resume"]
    assert evaluate(["--checkpoint", str(copy)]) == 0
    with pytest.raises(UserError, match="encoder.width was 8 and is now 16"):
        run(demo_store, copy, "--resume=true", "--encoder.width=16")
    config = parse(arguments(demo_store, copy, *SHORT, "--optimiser.rate=0.2"))
    data = open_data(config)
    other = describe_run(config, data, build_task(config, data, torch.device("cpu")), None).record
    assert other is not None and other["config"] not in digests


def test_an_unfinished_run_is_exported_with_what_it_was_trained_on(copy, demo_store, tmp_path, capsys) -> None:
    """Where the store is another one by now, the bundle says what the weights have seen, not what is there today."""
    trained = record_of(copy)
    shutil.copytree(demo_store, tmp_path / "store")
    facts = json.loads((tmp_path / "store" / "store.json").read_text())
    (tmp_path / "store" / "store.json").write_text(json.dumps({**facts, "fingerprint": "0" * 64}))
    for name in ("config.yaml", "model.json"):
        (copy / name).write_text((copy / name).read_text().replace(str(demo_store), str(tmp_path / "store")))
    assert export(["--run", str(copy), "--out", str(tmp_path / "bundle")]) == 0
    assert "note: this run has not reached its last epoch" in capsys.readouterr().out
    bundle = json.loads((tmp_path / "bundle" / "config.json").read_text())
    assert bundle["record"]["store"] == trained["store"] == facts["fingerprint"] != "0" * 64
    assert bundle["record"]["trained"] == trained["trained"] and bundle["provenance"]["complete"] is False


@pytest.mark.parametrize(
    "edited",
    [
        {"train": {"subject": [1, 2]}, "test": {"subject": [4]}},  # another test side
        {"train": {"subject": [1, 4]}, "test": {"subject": [3]}},  # other training clips, as many
        {"train": {"subject": [3, 4]}, "test": {"subject": [1]}},  # sides exchanged
        {"base": "demo/cross_subject", "unseen": [0]},  # fewer classes
    ],
)  # fmt: skip
def test_a_protocol_that_was_edited_is_not_resumed_on(demo_store, tmp_path, monkeypatch, edited) -> None:
    rule, out = tmp_path / "own.yaml", tmp_path / "run"
    sides = {"train": {"subject": [1, 2]}, "test": {"subject": [3]}}
    rule.write_text(json.dumps({"own": {"dataset": "demo", **sides}}))
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_asked_to_stop", lambda loop, _: loop.position.steps == 2)
        assert run(demo_store, out, f"--data.protocol={rule}") == 130
    rule.write_text(json.dumps({"own": {"dataset": "demo", **edited}}))
    with pytest.raises(UserError, match="cannot resume: the protocol now gives other .* clips"):
        run(demo_store, out, f"--data.protocol={rule}", "--resume=true")
    rule.write_text(json.dumps({"own": {"dataset": "demo", **sides}}))
    assert run(demo_store, out, f"--data.protocol={rule}", "--resume=true") == 0


def test_a_run_of_an_earlier_mmcl_is_used_but_not_resumed(copy, demo_store, tmp_path) -> None:
    last = copy / "checkpoints" / "last"
    position = json.loads((last / "position.json").read_text())
    old = {"epoch": 2, "step": 0, "best": -1.0, "last": None, "data": position["data"], "stretches": 1}
    (last / "position.json").write_text(json.dumps(old))
    for name in ("training.pt", "random_0.pt"):
        (last / name).unlink()
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["data"]["sharded"] = False
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="an earlier mmcl began it; it can be evaluated and exported") as refused:
        run(demo_store, copy, "--resume=true")
    assert len(str(refused.value).splitlines()) == 1
    assert evaluate(["--checkpoint", str(copy)]) == 0
    assert export(["--run", str(copy), "--out", str(tmp_path / "bundle")]) in (0, None)
    assert (tmp_path / "bundle" / "model.safetensors").is_file()


def test_a_stop_of_the_whole_process_group_saves_and_leaves_nobody_behind(demo_store, tmp_path) -> None:
    """What ``timeout`` and batch systems send: loader workers get the signal, too."""
    out = tmp_path / "run"
    words = arguments(demo_store, out, "--data.workers=2", "--schedule.epochs=400", "--engine.log_every=1")
    process = launch(*words, group=True)
    until = time.monotonic() + 120
    while process.poll() is None and not (out / "metrics.jsonl").is_file() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    output = "".join(process.communicate(timeout=60))
    assert process.returncode == 130 and "Traceback" not in output, output
    assert "stopped after step" in output and (out / "checkpoints" / "last" / "position.json").is_file()
    until = time.monotonic() + 60
    with pytest.raises(ProcessLookupError):  # soon, no process of the group is left
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.02)


@pytest.mark.slow
def test_a_worker_that_hangs_holds_nobody_up(demo_store, tmp_path) -> None:
    """It reads ahead while the run is asked to stop; 20 seconds."""
    words = arguments(demo_store, tmp_path / "run", "--data.workers=1", "--engine.log_every=1")
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=hang_in_a_worker, args=(words,))
    process.start()
    process.join(90)
    ended = process.exitcode
    process.kill()
    assert ended == 130 and (tmp_path / "run" / "checkpoints" / "last" / "position.json").is_file()


def hang_in_a_worker(words: list[str]) -> None:
    load = ClipDataset.__getitem__

    def slow(dataset: ClipDataset, key: Key) -> Sample:
        if key.step == 2 and get_worker_info() is not None:
            time.sleep(1e6)
        return load(dataset, key)

    ClipDataset.__getitem__ = slow  # type: ignore[method-assign]
    Loop._asked_to_stop = lambda loop, _: loop.position.steps == 1  # type: ignore[method-assign]
    sys.exit(train(parse(words)))


def test_a_diverged_run_says_of_which_step_its_checkpoint_is(demo_store, tmp_path) -> None:
    words = ["--optimiser.rate=1e20", "--schedule.warmup_epochs=0", "--engine.log_every=100"]
    with pytest.raises(UserError, match=r"(loss is nan|diverged by step 2).*checkpoints/last is of step 1;"):
        run(demo_store, tmp_path / "run", *words)
