"""A run keeps the texts it was trained with: it is judged by them, and goes on with no others."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from running import arguments, train

from mmcl.common.errors import UserError
from mmcl.data.class_texts import Prompts
from mmcl.data.prompts import load_prompts, prompt_names, write_prompts
from mmcl.data.store import open_store
from mmcl.engine.parsing import parse
from mmcl.engine.run_folder import check_texts, read_run_config, recorded_texts, start_run
from mmcl.engine.setup import task_prompts
from mmcl.models.folder import open_model
from mmcl.towers.clip import ClipOptions, ClipTower
from mmcl.zero_shot import main as zero_shot

WITHHELD = [2, 7]
TEMPLATES = ["{name}", "{motion} ({name})"]


@pytest.fixture(scope="module")
def clip(tower_folder) -> str:
    return str(tower_folder("tiny-clip"))


@pytest.fixture(scope="module")
def words(demo_store, clip, tmp_path_factory) -> list[str]:
    """Command line of a control: texts of our own, exchanged among the classes."""
    folder = tmp_path_factory.mktemp("texts")
    rule = {"dataset": "demo", "base": "demo/cross_subject", "unseen": WITHHELD}
    (folder / "own.yaml").write_text(json.dumps({"open": rule}))
    names = load_prompts("demo").names
    told = [{"name": name, "motion": f"way {number}"} for number, name in enumerate(names)]
    (folder / "told.yaml").write_text(yaml.safe_dump({"classes": told, "templates": TEMPLATES}))
    return arguments(
        demo_store, folder / "run", f"--data.protocol={folder / 'own.yaml'}", f"--data.prompts={folder / 'told.yaml'}",
        "--data.shuffle_texts=true", "--schedule.epochs=1", "--schedule.warmup_epochs=0", "--schedule.milestones=[]",
        "--task.name=colearn", "--task.alignment.weight=0", "--task.refinement.weight=0", "--task.text.weight=1",
        f"--task.clip.model={clip}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(words) -> Path:
    train(*words)
    return Path(next(word for word in words if word.startswith("--out=")).removeprefix("--out="))


def copied(run: Path, words: list[str], tmp_path: Path, prompts: str) -> list[str]:
    """The command line that goes on with a copy of the run, by the same prompts file with another content."""
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "told.yaml").write_text(prompts)
    moved = [word.replace(str(run.parent / "told.yaml"), str(tmp_path / "told.yaml")) for word in words]
    config = (run / "config.yaml").read_text().replace(str(run.parent / "told.yaml"), str(tmp_path / "told.yaml"))
    (tmp_path / "run" / "config.yaml").write_text(config)
    return [*moved, f"--out={tmp_path / 'run'}", "--resume=true"]


def test_a_prompts_file_is_read_as_it_was_written(tmp_path) -> None:
    for name in prompt_names():
        write_prompts(tmp_path / "again.yaml", load_prompts(name))
        assert load_prompts(tmp_path / "again.yaml") == load_prompts(name)
    odd = Prompts(
        "1e3",
        ("no", "null", "ä: {b}\n\n c"),
        ("", "'\"#", " x "),
        (),
        "{name}: 7",
        ("- {motion}", "{name}\n"),
        called=("", "~", ""),
    )
    write_prompts(tmp_path / "odd.yaml", odd)
    assert load_prompts(tmp_path / "odd.yaml") == odd


def test_shuffled_texts_are_another_class_s_and_names_stay() -> None:
    for prompts in (load_prompts("demo"), load_prompts("utd_mhad")):
        for seed in range(3):
            mixed = prompts.shuffled(seed)
            assert mixed.names == prompts.names
            own = [tuple(prompts.texts(label)) for label in range(len(prompts.names))]
            given = [tuple(mixed.texts(label)) for label in range(len(prompts.names))]
            assert sorted(given) == sorted(own) and all(a != b for a, b in zip(given, own, strict=True))
            assert sorted(mixed.answers()) == sorted(prompts.answers()) != mixed.answers()


def test_the_run_folder_holds_the_texts_as_they_were_used(run, demo_store, tmp_path) -> None:
    record, told = recorded_texts(run), load_prompts(run.parent / "told.yaml")
    assert record is not None and list(record.names) == list(open_store(demo_store).class_names)
    ways = [record.texts(label) for label in range(len(record.names))]
    assert sorted(ways) == sorted([name, f"way {number} ({name})"] for number, name in enumerate(record.names))
    assert all(way[0] != name for way, name in zip(ways, record.names, strict=True))
    assert (record.templates, record.instructions) == (told.templates, told.instructions)
    config = read_run_config(run)
    start_run(type(config)(**{**vars(config), "out": str(tmp_path / "plain")}))  # of a task that asked for no text
    assert (tmp_path / "plain/config.yaml").is_file() and recorded_texts(tmp_path / "plain") is None


def test_judged_by_the_record_even_where_the_prompts_are_gone(run, words, clip, demo_store, tmp_path) -> None:
    copied(run, words, tmp_path, "gone soon")
    (tmp_path / "told.yaml").unlink()
    assert zero_shot(["--checkpoint", str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run/report-open/report.json").read_text())
    saved = np.load(tmp_path / "run/report-open/scores.npz")
    store, record = open_store(demo_store), recorded_texts(run)
    names = [store.class_names[label] for label in WITHHELD]
    assert saved["class_names"].tolist() == names and "control" in report
    tower, model = ClipTower(ClipOptions(model=clip), text=True), open_model(run, layout=store.layout)
    rows = np.stack([tower.encode_text(record.texts(label)).numpy().mean(0) for label in WITHHELD])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for name, found in zip(saved["ids"].tolist()[:3], saved["scores"], strict=False):
        joints = torch.tensor(store.joints(store.ids.index(name)))[None]
        with torch.no_grad():
            embedding = model.text_head.embed(model.features(joints))[0].numpy()
        assert found * 0.1 == pytest.approx(rows @ embedding, abs=2e-5)
    order = [label for label in range(len(store.class_names)) if label not in WITHHELD] + WITHHELD
    texts = [[store.class_names[label], record.texts(label)] for label in order]
    assert report["texts_sha256"] == hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]
    assert f"words: the model's record ({len(order)}); 0 rows" in report["texts"]


def test_a_run_whose_prompts_have_changed_is_not_resumed(run, words, demo_store, tmp_path) -> None:
    told = (run.parent / "told.yaml").read_text()
    again = copied(run, words, tmp_path, f"# said otherwise, and meant alike\n{told}")
    config, store = parse(again), open_store(demo_store)
    check_texts(config, task_prompts(config, store))
    (tmp_path / "told.yaml").write_text(told.replace("way 3", "way 3 and a half"))
    last = train(*again, status=2).splitlines()[-1]
    assert last.startswith("error: cannot resume") and ".motion was way 3" in last
    (tmp_path / "told.yaml").write_text(told.replace("({name})", "{name}"))
    with pytest.raises(
        UserError, match=r"templates was \['{name}', '{motion} \({name}\)'\] and is now .*texts.yaml says"
    ):
        check_texts(config, task_prompts(config, store))
    (tmp_path / "run" / "texts.yaml").unlink()  # as of a run from before the record
    check_texts(config, task_prompts(config, store))


def test_classes_of_ones_own_are_told_by_their_names_alone(demo_store) -> None:
    store = open_store(demo_store)
    mine = SimpleNamespace(dataset="mine", class_names=store.class_names, location="here")
    config = parse([f"--data.path={demo_store}", "--data.protocol=demo/cross_subject"])
    texts = task_prompts(config, mine)  # type: ignore[arg-type]
    assert texts.names == tuple(store.class_names) and set(texts.descriptions) == {""}
    assert texts.instructions and texts.templates == ("{name}",)
    with pytest.raises(UserError, match="no prompts 'other'.*ends in .yaml"):
        task_prompts(replace(config, data=replace(config.data, prompts="other")), mine)  # type: ignore[arg-type]
