"""A run that learned with class texts, exported: its table, its projection, and classes it never saw."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import mmcl
from mmcl.data.store import open_store
from mmcl.deploy.texts import named_classes
from mmcl.errors import UserError
from mmcl.evaluation.model import find_model, load_judged
from mmcl.export import main as export
from mmcl.predict import main as predict
from mmcl.prompts import Prompts, load_prompts
from mmcl.towers.text import SentenceTower

WITHHELD = [1, 6]
NAMES = load_prompts("demo").names
SMALL = [
    "--data.batch_size=8", "--data.workers=0", "--preprocess.window=16", "--augmentation.crop_floor=16",
    "--encoder.width=8", "--encoder.depth=3", "--schedule.epochs=1", "--schedule.warmup_epochs=0",
    "--engine.trackers=[]", "--task.name=colearn", "--task.alignment.weight=0", "--task.refinement.weight=0",
    "--task.text.weight=1", "--task.text.source=sentence",
]  # fmt: skip


def tiny_bert(folder: Path) -> Path:
    """A random sentence encoder that knows single letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = Tokenizer(models.WordLevel({"?": 0, **{chr(97 + i): i + 1 for i in range(26)}}, unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="?", unk_token="?").save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=27, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(demo_store, tmp_path_factory) -> Path:
    """One epoch on ten of the demo's twelve classes."""
    folder = tmp_path_factory.mktemp("open")
    rule = {"open": {"dataset": "demo", "base": "demo/cross_subject", "unseen": WITHHELD}}
    (folder / "own.yaml").write_text(json.dumps(rule))
    words = [
        *SMALL, f"--data.path={demo_store}", f"--data.protocol={folder / 'own.yaml'}", f"--out={folder / 'run'}",
        f"--task.text.model={tiny_bert(folder / 'bert')}",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "mmcl", "train", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def bundle(run) -> Path:
    assert export(["--run", str(run), "--out", str(run.parent / "bundle"), "--classes", "own,juggle"]) == 0
    return run.parent / "bundle"


def test_names_asked_for_keep_what_the_data_set_says_of_them(tmp_path) -> None:
    own = Prompts("made", ("wave", "sit down"), ("D0", "D1"), (), "", ("{name}",), ("M0", "M1"))
    asked = named_classes("juggle, own ,SIT  down", ["{name}: {description}, {motion}"], own)
    assert [asked.texts(label) for label in range(3)] == [
        ["juggle: juggle, juggle"],
        ["wave: D0, M0"],
        ["SIT down: D1, M1"],
    ]
    (tmp_path / "own.yaml").write_text(json.dumps({"classes": [{"name": "hop", "description": "H"}, "wave"]}))
    asked = named_classes(str(tmp_path / "own.yaml"), ["{name}: {motion}"], own)
    assert [asked.texts(label) for label in range(2)] == [["hop: H"], ["wave: wave"]]


def test_the_table_is_the_mean_of_each_class_s_texts_withheld_ones_included(run, bundle) -> None:
    vocabulary, tower = mmcl.load(bundle).vocabulary, SentenceTower(str(run.parent / "bert"))
    assert vocabulary.names == [*NAMES, "juggle"]
    prompts = load_prompts("demo")
    for name, row in zip(vocabulary.names, vocabulary.classes, strict=True):
        description = dict(zip(NAMES, prompts.descriptions, strict=True)).get(name, name)
        texts = [t.replace("{name}", name).replace("{description}", description) for t in prompts.templates]
        mean = sum(tower.encode_text([text])[0] for text in texts)
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=0)
    card = (bundle / "README.md").read_text()
    assert all(f"**{name}**" in card for name in (*(NAMES[label] for label in WITHHELD), "juggle"))
    assert f"**{NAMES[0]}**" not in card and str(run.parent / "bert") in card


def test_the_bundle_embeds_as_the_trained_network_does(run, bundle, demo_store) -> None:
    model, learned = mmcl.load(bundle), load_file(run / "checkpoints" / "last" / "learned.safetensors")
    assert model.class_names == [name for label, name in enumerate(NAMES) if label not in WITHHELD]
    joint = torch.nn.Sequential(torch.nn.Linear(32, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16))
    joint.load_state_dict({key[6:]: tensor for key, tensor in learned.items() if key.startswith("joint.")})
    trained = load_judged(find_model(run), open_store(demo_store).layout).model
    joints, rows = torch.randn(4, 1, 30, 25, 3), model.vocabulary.rows_of(["juggle", NAMES[1]])
    with torch.no_grad():
        embedding = F.normalize(joint(trained.features(joints)), dim=-1)
        expected = embedding @ rows.T / 0.1
        torch.testing.assert_close(model.open_scores(joints, None, rows), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(trained.open_scores(joints, None, rows), expected, atol=1e-4, rtol=0)


def test_names_outside_the_table_are_computed_where_the_text_model_is(run, bundle, capsys, monkeypatch) -> None:
    clip = bundle.parent / "clip.npy"
    np.save(clip, np.random.default_rng(0).normal(size=(30, 25, 3)))
    bare = run.parent / "bare"
    assert export(["--run", str(run), "--out", str(bare)]) == 0
    assert "no class texts" in capsys.readouterr().out and mmcl.load(bare).vocabulary.names == []

    def answer(folder: Path, classes: str) -> dict[str, float]:
        assert predict([str(folder), str(clip), "--classes", classes, "--json", "--top", "9"]) == 0
        return {entry["name"]: entry["probability"] for entry in json.loads(capsys.readouterr().out)["predictions"]}

    # `juggle` has no description, so a name alone makes its row; the others come with descriptions, from a file.
    (run.parent / "two.yaml").write_text(
        json.dumps({"classes": [{"name": NAMES[1], "description": load_prompts("demo").descriptions[1]}, "juggle"]})
    )
    computed = answer(bare, str(run.parent / "two.yaml"))
    assert computed == pytest.approx(answer(bundle, f"{NAMES[1]},juggle"), abs=1e-5)
    assert predict([str(bundle), str(clip), "--classes", f"{NAMES[1]},juggel"]) == 0
    assert "'juggel' in the bundle's table of 13 classes (nearest: juggle): computed" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="table of 13 classes.*mmcl export --run RUN.*computed here: .*transformers"):
        answer(bundle, f"{NAMES[1]},climb")
    assert set(answer(bundle, f"{NAMES[1]},juggle")) == {NAMES[1], "juggle"}


def test_mistakes_write_nothing(run, tmp_path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    checkpoint, out = copy / "checkpoints" / "last" / "learned.safetensors", tmp_path / "out"
    learned = load_file(checkpoint)
    with pytest.raises(UserError, match="at least two different names"):
        export(["--run", str(copy), "--out", str(out), "--classes", "juggle"])
    save_file({**learned, "joint.2.bias": learned["joint.2.bias"] + torch.nan}, checkpoint)
    with pytest.raises(UserError, match="embeddings differ from the trained network's"):
        export(["--run", str(copy), "--out", str(out)])
    save_file({key: tensor for key, tensor in learned.items() if not key.startswith("joint.")}, checkpoint)
    with pytest.raises(UserError, match="run has no projection into a space of texts.*recipe utd_mhad_open"):
        export(["--run", str(copy), "--out", str(out), "--classes", "own"])
    assert not out.exists()
