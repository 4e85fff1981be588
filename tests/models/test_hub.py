"""Bundles go to a hub and come back: the library's own client against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from made_hub import TOKEN, running_hub

from mmcl.common.errors import UserError
from mmcl.evaluation.judging import network_of
from mmcl.models.bundle import load_bundle
from mmcl.models.description import read_bundle
from mmcl.models.folder import find_model
from mmcl.models.hub import Reference, hub_card, is_reference, local, parse_reference
from mmcl.models.hub_head import card_head
from mmcl.push import main as push

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))
from making import people, write_small  # noqa: E402


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "bundle"
    write_small(folder)
    (folder / "notes.pkl").write_bytes(b"not a part of a bundle")
    return folder


# Runs commands one after the other: what each returned, printed and complained of.
DRIVER = """
import contextlib, importlib, io, json, os, sys
from mmcl.common.errors import UserError
from mmcl.evaluation.judging import network_of
from mmcl.cli import VERBS
for words, token in json.loads(sys.argv[1]):
    os.environ["HF_TOKEN"] = token
    out, code, error = io.StringIO(), 0, ""
    with contextlib.redirect_stdout(out):
        try:
            if words[0] == "load":
                import mmcl, torch
                torch.save(mmcl.load(words[1])(torch.load(words[2])), words[3])
            else:
                code = importlib.import_module(VERBS[words[0]][0]).main(words[1:])
        except UserError as raised:
            code, error = 2, str(raised)
    print(json.dumps([code, out.getvalue(), error]))
"""


def run(*commands: list[str], home: Path, url: str, token: str = TOKEN, offline: bool = False) -> list[list]:
    """Run commands in a process of its own: the library reads where the hub is when it is imported."""
    environment = {
        **os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    words = [sys.executable, "-c", DRIVER, json.dumps([[command, token] for command in commands])]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_bundle_goes_there_and_back(bundle, tmp_path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    own = network_of(load_bundle(bundle))  # what `mmcl evaluate` writes into a report
    assert own == find_model(bundle).network
    content = {
        "protocol": "utd_mhad/cross_subject",
        "network": own,
        "split": "test",
        "n": 430,
        "top1": 0.9,
        "top5": None,
        "main": "top1",
    }
    (report / "report.json").write_text(json.dumps(content))
    joints = people(3, 2, 40)
    torch.save(joints, tmp_path / "joints.pt")
    np.save(tmp_path / "clip.npy", joints[0].numpy())
    with running_hub() as hub:
        where = {"home": tmp_path / "home", "url": hub.url}
        words = ["push", str(bundle), "me/walkers", "--folder", "small", "--licence", "apache-2.0"]
        [[code, out, error]] = run([*words, "--report", str(report), "--private"], **where)
        assert code == 0, error
        assert out.startswith(f"{hub.url}/me/walkers/commit/") and hub.repos["me/walkers"]["private"]
        digest, files = hub.at("me/walkers", "main")
        assert set(files) == {".gitattributes", "small/config.json", "small/model.safetensors", "small/README.md"}
        assert files["small/model.safetensors"] == (bundle / "model.safetensors").read_bytes()
        head = yaml.safe_load(files["small/README.md"].decode().split("---\n")[1])
        assert head["license"] == "apache-2.0" and head["library_name"] == "mmcl" and "ctrgcn" in head["tags"]
        metric = head["model-index"][0]["results"][0]["metrics"][0]
        assert metric == {"type": "accuracy", "value": 0.9, "name": "top1, utd_mhad/cross_subject test, 430 clips"}
        assert b'mmcl.load("hf://me/walkers/small")' in files["small/README.md"]

        # Graphs of an earlier network in that place would answer for this one: they go, and nothing else does.
        stale = {
            "small/model.onnx": b"1",
            "small/familiarity.safetensors": b"2",
            "model.onnx": b"3",
            "small/mine.txt": b"",
        }
        hub.commit("me/walkers", "main", stale)
        [[code, _, error]] = run(words, **where)
        assert code == 0, error
        assert set(hub.at("me/walkers", "main")[1]) == {*files, "model.onnx", "small/mine.txt"}

        hub.repos["me/walkers"]["refs"]["v1"] = digest
        hub.commit("me/walkers", "main", {"small/config.json": b"{}", "small/evil.pkl": b"x"})
        scores = tmp_path / "scores.pt"
        load = ["load", "hf://me/walkers/small@v1", str(tmp_path / "joints.pt"), str(scores)]
        loaded, changed, *missing = run(
            load, ["pull", "me/walkers/small"], ["pull", "me/nothing"], ["pull", "me/walkers@v9"], **where
        )
        assert loaded[0] == 0, loaded
        with torch.no_grad():
            torch.testing.assert_close(torch.load(scores), load_bundle(bundle)(joints))
        assert changed[0] == 2 and "not a bundle" in changed[2]  # what main holds now
        assert not list((tmp_path / "home").rglob("evil.pkl"))
        assert "me/nothing cannot be fetched" in missing[0][2] and "@v9 cannot be fetched" in missing[1][2]
        [[code, _, error]] = run(words, token="wrong", **where)
        assert code == 2 and "hf auth login" in error
    # The hub is gone; the cache is not.
    copy = tmp_path / "copy"
    pulled, again, replaced, predicted = run(
        ["pull", "me/walkers/small@v1", "--out", str(copy)],
        ["pull", "me/walkers/small@v1", "--out", str(copy)],
        ["pull", "me/walkers/small@v1", "--out", str(copy), "--overwrite"],
        ["predict", "hf://me/walkers/small@v1", str(tmp_path / "clip.npy")], **where, offline=True,
    )  # fmt: skip
    assert pulled[0] == 0 and read_bundle(copy).class_names == read_bundle(bundle).class_names, pulled
    assert again[0] == 2 and "--overwrite" in again[2] and replaced[0] == 0
    assert not any(path.is_symlink() for path in copy.iterdir())
    assert predicted[0] == 0 and "clip.npy" in predicted[1], predicted


def test_references() -> None:
    assert parse_reference("hf://me/net") == parse_reference("me/net") == Reference("me/net")
    whole = parse_reference(Path("hf://me/net/in/here@v1.0"))
    assert whole == Reference("me/net", "in/here", "v1.0") and str(whole) == "hf://me/net/in/here@v1.0"
    assert is_reference("hf://me/net") and is_reference(Path("hf://me/net")) and not is_reference("runs/utd")
    assert local("runs/utd") == Path("runs/utd")
    for wrong in ("hf://me", "hf://me/../net", "hf://me/net/../../x", "hf://me/net@", "hf://me/n et", "https://x/y/z"):
        with pytest.raises(UserError, match="names no bundle"):
            parse_reference(wrong)


@pytest.mark.parametrize(
    "damage",
    [
        {"onnx": {"fp32": {}}},
        {"onnx": {"fp32": {"file": "x", "bytes": "1"}}},
        {"vocabulary": {"a": 1}},
        {"rejection": {}},
    ],
)
def test_facts_that_a_card_cannot_tell_are_one_line(bundle, tmp_path, damage) -> None:
    (tmp_path / "model.safetensors").write_bytes((bundle / "model.safetensors").read_bytes())
    content = json.loads((bundle / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | damage))
    with pytest.raises(UserError, match="config.json"):
        push([str(tmp_path), "me/net", "--licence", "mit", "--dry-run"])


@pytest.mark.parametrize("licence", ["", "nonsense: [", "two words", "mit\n"])
def test_a_licence_is_a_name(bundle, licence) -> None:
    with pytest.raises(UserError, match="is no licence's name: write it as the hub does"):
        push([str(bundle), "me/net", "--licence", licence, "--dry-run"])


def test_the_head_of_a_card(bundle, tmp_path, capsys) -> None:
    assert hub_card("---\nold: 1\n---\n\n# Body\n", {"license": "mit"}) == "---\nlicense: mit\n---\n\n# Body\n"
    assert push([str(bundle), "me/net", "--licence", "mit", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("---\nlibrary_name: mmcl\nlicense: mit\n")
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "model.safetensors").write_bytes((bundle / "model.safetensors").read_bytes())
    content = json.loads((bundle / "config.json").read_text())
    content["class_names"][0] = "<img src=x> [wave](https://evil.example)"
    (evil / "config.json").write_text(json.dumps(content))
    assert push([str(evil), "me/net", "--licence", "mit", "--dry-run"]) == 0
    card = capsys.readouterr().out  # as the card of the bundle itself
    assert "wave" in card and "<img" not in card and "](https://evil" not in card.replace("\\](", "")
    description = read_bundle(bundle)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(UserError, match="names its protocol"):
        card_head(description, "mit", [tmp_path])
    content = {"protocol": "p", "n": 3, "top1": 0.5}
    for network, words in (({}, "does not say of which network"), ({"network": "a" * 64}, "of another network")):
        (tmp_path / "report.json").write_text(json.dumps(content | network))
        with pytest.raises(UserError, match=words):
            card_head(description, "mit", [tmp_path], "b" * 64)
    (tmp_path / "report.json").write_text(json.dumps(content | {"network": "b" * 64}))
    head = card_head(description, "mit", [tmp_path], "b" * 64)
    assert head["model-index"][0]["results"][0]["dataset"]["type"] == "p"
