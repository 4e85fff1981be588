"""A run that learned with class texts, exported: its table, its projection, and classes it never saw."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from forked_verbs import call_verb
from safetensors.torch import load_file, save_file

import mmcl
from mmcl.common.errors import UserError
from mmcl.data.prompts import load_prompts
from mmcl.data.store import open_store
from mmcl.deploy import texts
from mmcl.export import main as export
from mmcl.models.folder import open_model
from mmcl.predict import main as predict
from mmcl.towers.sentence import SentenceTower
from mmcl.zero_shot import main as zero_shot

WITHHELD = [1, 6]
NAMES = load_prompts("demo").names
TOLD = {name: f"somebody shows us {name} at length" for name in NAMES}  # otherwise than the demo's own prompts do
TEMPLATES = ["{name}, which is {description}", "{description}"]
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
    """One epoch on ten of the demo's twelve classes, described in words of our own."""
    folder = tmp_path_factory.mktemp("open")
    rule = {"open": {"dataset": "demo", "base": "demo/cross_subject", "unseen": WITHHELD}}
    (folder / "own.yaml").write_text(json.dumps(rule))
    told = [{"name": name, "description": words} for name, words in TOLD.items()]
    (folder / "told.yaml").write_text(yaml.safe_dump({"classes": told, "templates": TEMPLATES}))
    words = [
        *SMALL, f"--data.prompts={folder / 'told.yaml'}", f"--data.path={demo_store}",
        f"--data.protocol={folder / 'own.yaml'}", f"--out={folder / 'run'}",
        f"--task.text.model={tiny_bert(folder / 'bert')}",
    ]  # fmt: skip
    done = call_verb("train", *words)
    assert done.returncode == 0, done.stderr
    (folder / "told.yaml").unlink()  # from here on, the run goes by what it has recorded
    return folder / "run"


@pytest.fixture(scope="module")
def bundle(run) -> Path:
    assert export(["--run", str(run), "--out", str(run.parent / "bundle"), "--classes", "own,juggle"]) == 0
    return run.parent / "bundle"


def test_the_table_is_the_mean_of_each_class_s_texts_withheld_ones_included(run, bundle) -> None:
    vocabulary, tower = mmcl.load(bundle).vocabulary, SentenceTower(str(run.parent / "bert"))
    assert vocabulary.names == [*NAMES, "juggle"]
    for name, row in zip(vocabulary.names, vocabulary.classes, strict=True):
        texts = [t.replace("{name}", name).replace("{description}", TOLD.get(name, name)) for t in TEMPLATES]
        mean = sum(tower.encode_text([text])[0] for text in texts)
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=0)
    card = (bundle / "README.md").read_text()
    assert all(f"**{name}**" in card for name in (*(NAMES[label] for label in WITHHELD), "juggle"))
    assert f"**{NAMES[0]}**" not in card and str(run.parent / "bert") in card


def test_the_bundle_embeds_as_the_trained_network_does(run, bundle, demo_store) -> None:
    model, learned = mmcl.load(bundle), load_file(run / "checkpoints" / "last" / "learned.safetensors")
    assert model.class_names == [name for label, name in enumerate(NAMES) if label not in WITHHELD]
    joint = torch.nn.Sequential(torch.nn.Linear(32, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16))
    joint.load_state_dict({key[18:]: tensor for key, tensor in learned.items() if key.startswith("text_head.project.")})
    trained = open_model(run, layout=open_store(demo_store).layout)
    joints, rows = torch.randn(4, 1, 30, 25, 3), model.vocabulary.rows_of(["juggle", NAMES[1]])
    fitted = model.vocabulary.fit(["juggle", NAMES[1]])
    with torch.no_grad():
        embedding = F.normalize(joint(trained.features(joints)), dim=-1)
        expected = embedding @ rows.T / 0.1
        torch.testing.assert_close(model.open_scores(joints, None, fitted), expected, atol=1e-4, rtol=0)
        fitted = trained.vocabulary.fit(rows)
        torch.testing.assert_close(trained.open_scores(joints, None, fitted), expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def bare(run) -> Path:
    assert export(["--run", str(run), "--out", str(run.parent / "bare")]) == 0
    assert mmcl.load(run.parent / "bare").vocabulary.names == []
    return run.parent / "bare"


@pytest.fixture
def answer(tmp_path, capsys):
    """Probability by name of one clip, as ``mmcl predict --json`` prints it."""
    np.save(tmp_path / "clip.npy", np.random.default_rng(0).normal(size=(30, 25, 3)))

    def ask(bundle: Path, classes: str | list[object]) -> dict[str, float]:
        if not isinstance(classes, str):
            (tmp_path / "asked.yaml").write_text(yaml.safe_dump({"classes": classes}))
            classes = str(tmp_path / "asked.yaml")
        capsys.readouterr()
        assert predict([str(bundle), str(tmp_path / "clip.npy"), "--classes", classes, "--json", "--top", "20"]) == 0
        return {entry["name"]: entry["probability"] for entry in json.loads(capsys.readouterr().out)["predictions"]}

    return ask


def test_names_outside_the_table_are_computed_where_the_text_model_is(
    bundle, bare, answer, tmp_path, capsys, monkeypatch
) -> None:
    asked = f"{NAMES[1]},juggle"
    assert answer(bare, asked) == pytest.approx(answer(bundle, asked), abs=1e-5)
    assert answer(bare, "own") == pytest.approx(answer(bundle, ",".join(NAMES)), abs=1e-5)
    assert predict([str(bundle), str(tmp_path / "clip.npy"), "--classes", f"{NAMES[1]},juggel"]) == 0
    assert "'juggel' in the bundle's table of 13 classes (nearest: juggle): computed" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="table of 13 classes.*mmcl export --run RUN.*computed here: .*transformers"):
        answer(bundle, f"{NAMES[1]},climb")
    assert set(answer(bundle, asked)) == {NAMES[1], "juggle"}


def test_what_a_user_says_of_a_class_wins_over_the_table(run, bundle, answer, monkeypatch) -> None:
    described = [{"name": NAMES[1].upper(), "description": "quite another thing"}, NAMES[2]]
    found = answer(bundle, described)
    vocabulary, tower = mmcl.load(bundle).vocabulary, SentenceTower(str(run.parent / "bert"))
    with torch.no_grad():
        texts = tower.encode_text([f"{NAMES[1].upper()}, which is quite another thing", "quite another thing"])
    changed = vocabulary.rows_of([NAMES[1], NAMES[2]])
    assert not torch.allclose(changed[0], F.normalize(texts.mean(0), dim=0), atol=1e-3)
    changed[0] = F.normalize(texts.mean(0), dim=0)
    model, joints = mmcl.load(bundle), np.random.default_rng(0).normal(size=(30, 25, 3))
    with torch.no_grad():
        scores = model.open_scores(torch.from_numpy(joints).float()[None, None], None, changed)
    expected = dict(zip([NAMES[1].upper(), NAMES[2]], scores.softmax(-1)[0].tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-5)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=f"'{NAMES[1].upper()}' described otherwise than for the table.*transformers"):
        answer(bundle, described)
    # A name alone, and the very words that the table was made of, take its rows.
    table = answer(bundle, f"{NAMES[1]},{NAMES[2]}")
    assert answer(bundle, [NAMES[1], {"name": NAMES[2], "description": TOLD[NAMES[2]]}]) == table


def judged(out: Path, *words: str) -> tuple[dict[str, object], np.ndarray]:
    """Report and scores (n, K) of ``mmcl zero-shot``."""
    assert zero_shot([*words, "--out", str(out)]) == 0
    return json.loads((out / "report.json").read_text()), np.load(out / "scores.npz")["scores"]


def test_a_run_and_its_bundle_score_the_same_classes_alike(run, demo_store, tmp_path) -> None:
    some = tmp_path / "some"
    assert export(["--run", str(run), "--out", str(some), "--classes", f"{NAMES[1]},juggle"]) == 0
    words = ["--data", str(demo_store), "--classes", f"{NAMES[1]},{NAMES[6].upper()},juggle"]
    of_run, expected = judged(tmp_path / "1", "--checkpoint", str(run), *words)
    of_bundle, found = judged(tmp_path / "2", "--checkpoint", str(some), *words)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert of_run["texts_sha256"] == of_bundle["texts_sha256"] and of_run["n"] == of_bundle["n"] > 0
    assert "the model's record (2), --classes (1); 0 rows of the bundle's table, 3 computed" in of_run["texts"]
    assert "the model's record (3); 2 rows of the bundle's table, 1 computed" in of_bundle["texts"]
    tensors = load_file(some / "vocabulary.safetensors")
    tensors["classes"][0] *= -1  # what the table has is taken from there, and nothing else is
    save_file(tensors, some / "vocabulary.safetensors")
    found = judged(tmp_path / "3", "--checkpoint", str(some), *words)[1]
    np.testing.assert_allclose(found, expected * [-1, 1, 1], atol=1e-4)


def test_a_protocol_judges_bundles_by_the_words_of_their_run(
    run, bundle, bare, demo_store, tmp_path, monkeypatch
) -> None:
    words = ["--data", str(demo_store), "--protocol", str(run.parent / "own.yaml")]
    of_run, expected = judged(tmp_path / "run", "--checkpoint", str(run), *words)
    of_bare, found = judged(tmp_path / "bare", "--checkpoint", str(bare), *words)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    monkeypatch.setattr(texts, "_text_encoder", None)  # there is no computing any more
    of_bundle, found = judged(tmp_path / "bundle", "--checkpoint", str(bundle), *words)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len({report["texts_sha256"] for report in (of_run, of_bare, of_bundle)}) == 1
    assert "the model's record (12); 12 rows of the bundle's table, 0 computed" in of_bundle["texts"]


def test_mistakes_write_nothing(run, tmp_path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    checkpoint, out = copy / "checkpoints" / "last" / "learned.safetensors", tmp_path / "out"
    learned = load_file(checkpoint)
    with pytest.raises(UserError, match="at least two different names"):
        export(["--run", str(copy), "--out", str(out), "--classes", "juggle"])
    bias = "text_head.project.2.bias"
    save_file({**learned, bias: learned[bias] + torch.nan}, checkpoint)
    with pytest.raises(UserError, match="holds numbers that are not finite"):
        export(["--run", str(copy), "--out", str(out)])
    save_file({key: tensor for key, tensor in learned.items() if not key.startswith("text_head.")}, checkpoint)
    with pytest.raises(UserError, match="is damaged or of another version"):
        export(["--run", str(copy), "--out", str(out), "--classes", "own"])
    save_file(learned, checkpoint)
    facts = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**facts, "vocabulary": None}))
    with pytest.raises(UserError, match="run has no projection into a space of texts.*recipe utd_mhad_open"):
        export(["--run", str(copy), "--out", str(out), "--classes", "own"])
    assert not out.exists()
