"""A run is judged only if the network that is built of it now is the one that was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mmcl.data.store import open_store
from mmcl.errors import UserError
from mmcl.evaluate import main as evaluate
from mmcl.evaluation.model import find_model, load_judged
from mmcl.zero_shot import main as zero_shot


@pytest.fixture
def copy(open_run, tmp_path) -> Path:
    return shutil.copytree(open_run, tmp_path / "run", ignore=shutil.ignore_patterns("report*"))


def edit(run: Path, section: str, key: str, value: object) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[section][key] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(("key", "value"), [("window", 24), ("crop", 0.5), ("stream", "bone")])
def test_an_edited_configuration_under_which_the_weights_still_fit_is_refused(copy, key, value) -> None:
    edit(copy, "preprocess", key, value)
    for judge in (evaluate, zero_shot):
        with pytest.raises(UserError, match="the network is not what it was when it was trained"):
            judge(["--checkpoint", str(copy)])
    assert not list(copy.glob("report*"))


def test_what_is_no_part_of_the_network_may_be_edited(copy) -> None:
    edit(copy, "optimiser", "rate", 0.5)
    assert evaluate(["--checkpoint", str(copy)]) == 0


def test_the_record_itself(copy, demo_store) -> None:
    """Rounding of another machine passes; a changed weight does not; nor does a record that is damaged or gone."""
    found, layout = find_model(copy), open_store(demo_store).layout
    path = copy / "checkpoints/last/probe.safetensors"
    probe = load_file(path)
    save_file({**probe, "scores": probe["scores"] + 1e-6 * torch.randn_like(probe["scores"])}, path)
    load_judged(found, layout)
    save_file({**probe, "scores": probe["scores"] * 1.01 + 0.01}, path)
    with pytest.raises(UserError, match="scores of the clips that were recorded with it differ by 0.0"):
        load_judged(found, layout)
    save_file({**probe, "joints": probe["joints"][:, :, :, :-1].contiguous()}, path)
    with pytest.raises(UserError, match="its run's clips have other joints"):
        load_judged(found, layout)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"probe.safetensors is damaged"):
        load_judged(found, layout)
    path.unlink()
    with pytest.raises(UserError, match=r"probe.safetensors is damaged"):
        load_judged(found, layout)


def test_a_store_that_has_changed_since_is_said(copy, capsys) -> None:
    path = copy / "checkpoints/last/position.json"
    path.write_text(path.read_text().replace(open_store_fingerprint(copy), "f" * 64))
    assert evaluate(["--checkpoint", str(copy)]) == 0
    assert "its content has changed" in capsys.readouterr().err
    assert "its content has changed" in (copy / "report-test/report.md").read_text()


def open_store_fingerprint(run: Path) -> str:
    config = find_model(run).config
    assert config is not None
    return open_store(config.data.path).fingerprint


def test_outputs_that_stand_for_other_classes_by_now_are_refused(copy) -> None:
    """As where a protocol file was edited after training, with as many classes as before."""
    summary = json.loads((copy / "summary.json").read_text())
    summary["class_names"][1] = "juggle"
    (copy / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match="'juggle' then"):
        evaluate(["--checkpoint", str(copy)])
