"""Nothing that is not finite is saved, nobody's recordings are, and a damaged checkpoint is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from running import weights
from safetensors.torch import load, load_file, save
from short_runs import run

from mmcl.common.errors import UserError
from mmcl.data.store import open_store
from mmcl.engine.loop import Loop
from mmcl.engine.meters import MetricsFile
from mmcl.engine.random_states import random_states, restore_random_states
from mmcl.models.probe import made_up_clips
from mmcl.models.recorded_scores import check_probe
from mmcl.skeletons.layout import layout_names, load_layout

pytestmark = pytest.mark.usefixtures("fresh")


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
