"""Bundles of format 1 load and give what the mmcl that wrote them gave; strange descriptions are refused in one line.

``format_1.json`` was written by mmcl at format 1: a ``config.json``, the shapes of the tensors, and the scores of two
made-up clips. The numbers of the tensors follow a formula, so that no file of weights is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import mmcl
from mmcl.common.errors import UserError
from mmcl.models.bundle import write_bundle
from mmcl.models.description import parse_description, read_bundle

RECORDED = json.loads((Path(__file__).parent / "format_1.json").read_text())


def numbers(name: str, shape: list[int]) -> Tensor:
    """Numbers of a tensor by its name: statistics and scales of batch norms around 1, others around 0."""
    count = int(torch.tensor(shape).prod())
    x = torch.frac(torch.sin(torch.arange(count, dtype=torch.float64) * 12.9898 + sum(map(ord, name))) * 43758.5453)
    variance, scale = "running_var" in name, name.endswith("weight") and "bn" in name
    x = x * 0.5 + (1.0 if variance or scale else 0.0)
    return (x * (4.0 if "classifier.weight" in name else 1.0)).float().reshape(shape)


def write_format_1(folder: Path) -> Path:
    """The bundle as it lay on the disk."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(RECORDED["config"]))
    tensors = {
        name: torch.tensor(0) if name.endswith("num_batches_tracked") else numbers(name, shape)
        for name, shape in RECORDED["shapes"].items()
    }
    save_file(tensors, folder / "model.safetensors")
    head = {name: numbers(f"projection{name}", shape) for name, shape in RECORDED["vocabulary_shapes"].items()}
    texts = torch.nn.functional.normalize(numbers("texts", [3, 4]), dim=-1)
    head["origin"] = texts[:2].mean(dim=0)
    head["classes"] = torch.nn.functional.normalize(texts - head["origin"], dim=-1)  # as it was kept then
    save_file(head, folder / "vocabulary.safetensors")
    return folder


def clips() -> tuple[Tensor, Tensor]:
    steps = torch.arange(24 * 5 * 3, dtype=torch.float64)
    x = torch.stack([torch.sin(steps * 0.11), torch.cos(steps * 1.3) + steps / 300]).float().reshape(2, 1, 24, 5, 3)
    x[1, 0, 17:] = 0
    return x, torch.tensor([24, 17])


@pytest.fixture
def old(tmp_path) -> Path:
    return write_format_1(tmp_path / "old")


def test_a_bundle_of_format_1_gives_what_it_gave(old) -> None:
    model, expected = mmcl.load(old), torch.tensor(RECORDED["scores"])
    assert expected.std(dim=0).max() > 0.1  # the clips are told apart
    torch.testing.assert_close(model(*clips()), expected, rtol=1e-4, atol=1e-4)
    fitted = model.vocabulary.fit(["hop", "wave"])
    found = model.open_scores(*clips(), fitted)
    torch.testing.assert_close(found, torch.tensor(RECORDED["open_scores"]), rtol=1e-4, atol=1e-4)
    assert model.class_names == ["wave", "sit", "run"] and model.vocabulary.words.names == ("wave", "sit", "hop")
    assert [(one.protocol, one.store) for one in model.record.lineage()] == [("none/half", "f")]


def test_written_again_it_is_of_format_2_and_the_same(old, tmp_path) -> None:
    model = mmcl.load(old)
    (tmp_path / "new").mkdir()
    model.description = model.description.changed(vocabulary=model.vocabulary.facts)
    write_bundle(tmp_path / "new", model)
    assert json.loads((tmp_path / "new" / "config.json").read_text())["format"] == 2
    again = mmcl.load(tmp_path / "new")
    assert torch.equal(again(*clips()), model(*clips())) and again.description == model.description
    torch.testing.assert_close(again.vocabulary.fit(["sit", "hop"]), model.vocabulary.fit(["sit", "hop"]))


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "window as text": ({"preprocess": {"window": "16"}}, "window"),
    "window of a fraction": ({"preprocess": {"window": 16.5}}, "window"),
    "window without end": ({"preprocess": {"window": 10**9}}, "window"),
    "window of true": ({"preprocess": {"window": True}}, "window"),
    "unknown centring": ({"preprocess": {"centring": "zzz"}}, "centring"),
    "unknown scaling": ({"preprocess": {"scaling": "zzz"}}, "scaling"),
    "unknown stream": ({"preprocess": {"stream": "zzz"}}, "zzz"),
    "unknown option": ({"preprocess": {"zzz": 1}}, "zzz"),
    "crop of nothing": ({"preprocess": {"crop": 0}}, "crop"),
    "crop as text": ({"preprocess": {"crop": "0.9"}}, "crop"),
    "preprocess of a list": ({"preprocess": []}, "preprocess"),
    "persons without end": ({"encoder": {"options": {"persons": 10**9}}}, "persons"),
    "width as text": ({"encoder": {"options": {"width": "8"}}}, "width"),
    "width without end": ({"encoder": {"options": {"width": 10**12}}}, "width is 1000000000000"),
    "encoder without a name": ({"encoder": {"name": 3}}, "name"),
    "surgeries of text": ({"surgeries": "low_rank"}, "surgeries"),
    "unknown surgery": ({"surgeries": [{"name": "zzz", "options": {}, "structure": {}}]}, "unknown surgery 'zzz'"),
    "class names of numbers": ({"class_names": [1, 2, 3]}, "class_names"),
    "no class": ({"class_names": []}, "class_names"),
    "counts of text": ({"counts": {"parameters": "many"}}, "counts"),
    "another format": ({"format": 3}, "bundle format 3"),
    "format of a list": ({"format": [1]}, "bundle format"),
    "unknown key": ({"zzz": 1}, "no option zzz"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_strange_description_is_refused_in_one_line(old, what) -> None:
    change, word = CHANGES[what]
    content = json.loads((old / "config.json").read_text())
    for key, value in change.items():
        for deeper in ("options",):  # one level more
            if isinstance(value, dict) and isinstance(value.get(deeper), dict):
                value = {**value, deeper: {**content[key][deeper], **value[deeper]}}
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    (old / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=word) as error:
        mmcl.load(old)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_weights_that_are_not_finite_are_refused(old) -> None:
    tensors = load_file(old / "model.safetensors")
    tensors["classifier.weight"][1, 2] = torch.nan
    save_file(tensors, old / "model.safetensors")
    with pytest.raises(UserError, match="not finite, such as classifier.weight"):
        mmcl.load(old)


def test_deep_large_and_foreign_json_is_refused(old, tmp_path) -> None:
    for content in ("[" * 100_000, "{" * 5000 + '"a":' * 3, "null", "[1, 2]", "{}", '{"format": 1'):
        (old / "config.json").write_text(content)
        with pytest.raises(UserError) as error:
            read_bundle(old)
        assert len(str(error.value)) < 400
    with (old / "config.json").open("w") as file:
        file.write('{"format": 2, "x": "')
        file.seek(65 << 20)
        file.write('"}')
    with pytest.raises(UserError, match="larger than 64 MiB"):
        read_bundle(old)


def test_a_description_survives_its_own_json(old) -> None:
    description = read_bundle(old)
    again = parse_description(json.loads(json.dumps(description.to_json())), "again")
    assert again == description
