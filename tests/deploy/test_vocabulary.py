"""Classes that were never trained, judged by text from a bundle with torch, safetensors and numpy alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from making import write_onnx
from safetensors.torch import load_file, save_file

import mmcl
from mmcl.common.errors import UserError
from mmcl.deploy.predictor import Predictor
from mmcl.deploy.verify import verify_bundle, write_probe
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_parameters
from mmcl.models.bundle import describe, write_bundle
from mmcl.models.model import Model
from mmcl.models.projection import ProjectionHead, ProjectionOptions
from mmcl.models.vocabulary import Vocabulary
from mmcl.models.vocabulary_file import write_vocabulary
from mmcl.predict import main as predict
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

LAYOUT = load_layout("utd_mhad_20")
TRAINED = ["wave", "sit down", "jump"]
TABLE = ["wave", "sit down", "Throw a ball", "juggle"]  # the last two were never trained
TEXT = {"source": "sentence", "model": "no_such_folder/minilm", "clip_model": None, "clip_pretrained": None}
TEMPERATURE, D = 0.07, 12
ALLOWED = (  # those of the second line are what torch itself asks for
    "mmcl", "torch", "numpy", "safetensors",
    "torchgen", "functorch", "typing_extensions", "sympy", "mpmath", "filelock", "networkx", "jinja2", "markupsafe",
)  # fmt: skip
ALONE = f"""
import sys
class Gate:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names | {set(ALLOWED)!r} and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Gate())
"""


@pytest.fixture(scope="module")
def parts():
    """An encoder, what comes before it, and a vocabulary with a table, all random."""
    torch.manual_seed(0)
    encoder = build_encoder("tcn", LAYOUT, len(TRAINED), {"width": 16, "persons": 2}).eval()
    preprocess = Preprocess(LAYOUT, LAYOUT, 2, PreprocessOptions(window=16))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    head = ProjectionHead(encoder.feature_width, D, ProjectionOptions(TEMPERATURE))
    head.text = TEXT
    rows = torch.nn.functional.normalize(torch.randn(len(TABLE), D), dim=-1)
    return encoder, preprocess, Vocabulary(head, ["{name}"], TABLE, rows)


def write(folder: Path, parts, vocabulary: Vocabulary | None) -> Path:
    encoder, preprocess, _ = parts
    folder.mkdir()
    description = describe("tcn", encoder, preprocess, TRAINED, vocabulary=vocabulary)
    write_bundle(folder, Model(description, encoder, preprocess, vocabulary))
    return folder


@pytest.fixture(scope="module")
def written(parts, tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("written") / "bundle", parts, parts[2])


@pytest.fixture
def bundle(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "bundle"))


@pytest.fixture
def clip(tmp_path) -> Path:
    np.save(tmp_path / "clip.npy", np.random.default_rng(0).normal(size=(30, 20, 3)))
    return tmp_path / "clip.npy"


def answers(capsys, *words: str) -> dict[str, float]:
    """Probability by name, as ``mmcl predict --json`` prints it."""
    capsys.readouterr()
    assert predict([*words, "--json", "--top", "9"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert "open_vocabulary" in record and all("label" not in entry for entry in record["predictions"])
    return {entry["name"]: entry["probability"] for entry in record["predictions"]}


def test_scores_are_cosine_over_temperature(bundle, parts) -> None:
    model, joints, lengths = mmcl.load(bundle), torch.randn(3, 2, 40, 20, 3), torch.tensor([40, 22, 9])
    rows = torch.randn(5, D)
    with torch.no_grad():
        found = model.open_scores(joints, lengths, model.vocabulary.fit(rows)).numpy()
        features = model.features(joints, lengths)
        torch.testing.assert_close(model.encoder.head(features), model(joints, lengths), rtol=0, atol=0)
    tensors = {key: tensor.numpy() for key, tensor in load_file(bundle / "vocabulary.safetensors").items()}
    for n, feature in enumerate(features.numpy().astype(np.float64)):
        hidden = np.maximum(tensors["text_head.project.0.weight"] @ feature + tensors["text_head.project.0.bias"], 0)
        embedding = tensors["text_head.project.2.weight"] @ hidden + tensors["text_head.project.2.bias"]
        for k, row in enumerate(rows.numpy()):
            cosine = embedding @ row / (np.linalg.norm(embedding) * np.linalg.norm(row))
            assert found[n, k] == pytest.approx(cosine / TEMPERATURE, abs=1e-4)
    torch.testing.assert_close(model.text_head.embed(features).norm(dim=-1), torch.ones(3))


def test_what_is_written_is_what_is_read(bundle, parts, tmp_path) -> None:
    vocabulary, config = mmcl.load(bundle).vocabulary, json.loads((bundle / "config.json").read_text())
    assert vocabulary.names == TABLE and config["vocabulary"] == vocabulary.facts == parts[2].facts
    assert torch.equal(vocabulary.rows_of(["  JUGGLE ", "sit  Down"]), parts[2].classes[[3, 1]])
    card = (bundle / "README.md").read_text()
    assert "**Throw a ball**, **juggle**" in card and "**wave**" not in card and TEXT["model"] in card
    bare = mmcl.load(write(tmp_path / "bare", parts, Vocabulary(parts[2].head, ["{name}"])))
    assert bare.vocabulary.names == [] and bare.description.vocabulary["names"] is None
    plain = write(tmp_path / "plain", parts, None)
    assert not (plain / "vocabulary.safetensors").exists() and "vocabulary" not in (plain / "README.md").read_text()
    joints = torch.randn(2, 1, 20, 20, 3)
    assert mmcl.load(plain).vocabulary is None
    torch.testing.assert_close(mmcl.load(plain)(joints), mmcl.load(bundle)(joints), rtol=0, atol=0)


def test_a_class_never_trained_wins_with_nothing_but_torch_numpy_and_safetensors(bundle, clip, capsys) -> None:
    model = mmcl.load(bundle)
    joints = torch.from_numpy(np.load(clip)).float()[None, None]
    vocabulary = model.vocabulary
    with torch.no_grad():  # a table in which the class never trained lies where this clip does
        vocabulary.classes[TABLE.index("juggle")] = vocabulary.head.embed(model.features(joints))[0]
    write_vocabulary(bundle, vocabulary)
    words = [str(bundle), str(clip), "--classes", "wave, juggle,  throw a BALL"]
    code = ALONE + f"from mmcl.predict import main\nsys.exit(main({[*words, '--json', '--top', '3']!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["open_vocabulary"] == ["wave", "juggle", "throw a BALL"]
    assert record["predictions"][0]["name"] == "juggle"
    found = {entry["name"]: entry["probability"] for entry in record["predictions"]}
    assert found == pytest.approx(answers(capsys, *words)) and sum(found.values()) == pytest.approx(1, abs=1e-5)
    refused = ALONE + "import yaml"
    assert subprocess.run([sys.executable, "-c", refused], capture_output=True).returncode == 1


def test_order_and_other_classes_of_the_table_change_nothing(bundle, clip, capsys, parts) -> None:
    files = [str(bundle), str(clip)]
    three = answers(capsys, *files, "--classes", "wave,juggle,sit down")
    assert three == answers(capsys, *files, "--classes", "sit down,wave,juggle")
    every = answers(capsys, *files, "--classes", "own")
    assert set(every) == set(TABLE)
    kept = sum(every[name] for name in three)
    assert three == pytest.approx({name: every[name] / kept for name in three}, abs=1e-4)
    model, joints, order = mmcl.load(bundle), torch.randn(2, 1, 20, 20, 3), torch.tensor([2, 0, 3, 1])
    scores = model.open_scores(joints, None, model.vocabulary.classes)
    torch.testing.assert_close(model.open_scores(joints, None, model.vocabulary.classes[order]), scores[:, order])


def test_predictor_from_python_and_the_printed_mark(bundle, clip, capsys) -> None:
    predictor = Predictor(bundle)
    trained = predictor.classify_file(clip)
    assert sorted(name for _, name, _ in trained) == sorted(TRAINED)
    predictor.judge_only(["juggle", "wave"])
    label, name, probability = predictor.classify_file(clip)[0]
    assert ["juggle", "wave"][label] == name and probability >= 0.5
    predictor.judge_only(["alike", "same"], rows=torch.ones(2, D))
    assert [p for _, _, p in predictor.classify_file(clip)] == pytest.approx([0.5, 0.5])
    assert predict([str(bundle), str(clip), "--classes", "juggle,wave"]) == 0
    assert f"{name} {probability:.3f}  (open vocabulary, 2 classes)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        ("wave,jugle", r"no text of 'jugle' in the bundle's table of 4 classes \(nearest: juggle\); .*mmcl export"),
        ("wave,xyzzy", r"it has wave, sit down, Throw a ball, juggle"),
        ("wave,xyzzy", r"cannot be computed here: no such folder: no_such_folder/minilm|hub"),
        ("wave", "at least two different names"),
        ("wave, WAVE", "at least two different names"),
        ("none.yaml", "no prompts 'none.yaml'"),
    ],
)
def test_names_that_cannot_be_judged_are_named(bundle, clip, classes, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        predict([str(bundle), str(clip), "--classes", classes])


def test_bundles_without_table_or_projection_say_what_to_do(parts, clip, tmp_path) -> None:
    bare = write(tmp_path / "bare", parts, Vocabulary(parts[2].head, ["{name}"]))
    with pytest.raises(UserError, match="no table of class texts .*mmcl export --run RUN --out DIR --classes"):
        predict([str(bare), str(clip), "--classes", "wave,juggle"])
    with pytest.raises(UserError, match="no table of class texts"):
        predict([str(bare), str(clip), "--classes", "own"])
    with pytest.raises(UserError, match="no table .*mmcl export --classes"):
        Predictor(bare).judge_only(["wave", "juggle"])
    plain = write(tmp_path / "plain", parts, None)
    with pytest.raises(UserError, match=r"plain has no projection into a space of texts.*--task.text.weight"):
        predict([str(plain), str(clip), "--classes", "wave,juggle"])
    with pytest.raises(UserError, match="no projection into a space of texts"):
        mmcl.load(plain).open_scores(torch.zeros(1, 1, 20, 20, 3), None, torch.zeros(2, D))


def test_damaged_vocabularies_are_named(bundle) -> None:
    config, path = json.loads((bundle / "config.json").read_text()), bundle / "vocabulary.safetensors"
    for key, value in [
        ("width", 13), ("head", {"name": "projection", "options": {"temperature": 0}}), ("names", ["one"]),
        ("head", {"name": "projection", "options": {"temperature": "warm"}}), ("head", {"name": "oracle"}),
        ("names", None), ("names", ["a", "b", "A", "c"]), ("text", None), ("words", [{"called": "wave"}]),
        ("words", 3), ("templates", None), ("text", {}), ("text", []), ("text", {"source": "moon"}),
        ("text", {"source": "clip"}), ("text", {**TEXT, "beside": [{}]}), ("text", {**TEXT, "beside": 3}),
        ("templates", [1, 2]), ("templates", "x"), ("templates", {"a": 1}), ("templates", [""]), ("words", "x"),
        ("words", [1, 2]),
    ]:  # fmt: skip
        (bundle / "config.json").write_text(json.dumps({**config, "vocabulary": {**config["vocabulary"], key: value}}))
        with pytest.raises(UserError, match=r"vocabulary\.safetensors is damaged or of another version"):
            mmcl.load(bundle)
    (bundle / "config.json").write_text(json.dumps(config))
    tensors = load_file(path)
    weight = "text_head.project.0.weight"
    narrow = {**tensors, weight: tensors[weight][:, 1:].contiguous()}
    for broken in (narrow, {"classes": tensors["classes"]}, {**tensors, weight: tensors[weight] * torch.nan}):
        save_file(broken, path)
        with pytest.raises(UserError, match="damaged or of another version"):
            mmcl.load(bundle)
    path.write_bytes(b"half a file")
    with pytest.raises(UserError, match="damaged"):
        mmcl.load(bundle)
    path.unlink()
    with pytest.raises(UserError, match="speaks of a vocabulary, and vocabulary.safetensors is missing"):
        mmcl.load(bundle)


def test_onnx_gives_the_embedding_and_verification_compares_it(bundle, parts, tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, joints, lengths = mmcl.load(bundle), torch.randn(2, 2, 30, 20, 3), torch.tensor([30, 21])
    probe = tmp_path / "probe.safetensors"
    write_probe(probe, model, {"joints": joints, "lengths": lengths})
    write_onnx(bundle, probe)
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])
    x = torch.randn(3, 2, 17, 20, 3)
    (found,) = session.run(["embedding"], {"joints": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), model.text_head.embed(model.features(x)), atol=1e-4, rtol=0)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["vocabulary"])["names"] == TABLE
    assert "unit-length" in json.loads(facts["outputs"])["embedding"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == count_parameters(parts[0]) + count_parameters(parts[2].head)
    assert verify_bundle(bundle, probe, parameters).difference <= 1e-12
    recorded = load_file(probe)
    save_file({**recorded, "embeddings": recorded["embeddings"] + 1e-6}, probe)
    with pytest.raises(UserError, match="embeddings differ from the trained network's"):
        verify_bundle(bundle, probe, parameters)
