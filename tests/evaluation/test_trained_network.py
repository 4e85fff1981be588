"""A run is judged only if the network that is built of it now is the one that was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from open_runs import WITHHELD
from safetensors.torch import load_file, save_file

from mmcl.common.errors import UserError
from mmcl.data.store import open_store
from mmcl.engine.start import find_source
from mmcl.evaluate import build_parser
from mmcl.evaluate import evaluate as evaluate_to
from mmcl.evaluate import main as evaluate
from mmcl.evaluation.model import find_model, load_judged
from mmcl.evaluation.to_bundle import export_run
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
    save_file({**probe, "scores": probe["scores"] + 0.01}, path)
    with pytest.raises(UserError, match="scores of the clips that were recorded with it differ by 0.01"):
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
    with pytest.raises(UserError, match="'juggle' then"):
        export_run(copy, copy / "bundle")
    with pytest.raises(UserError, match="'juggle' then"):
        find_source(copy)
    assert not (copy / "bundle").exists()


def test_a_report_by_another_rule_leaves_the_run_s_own_as_it_is(copy, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    rule = tmp_path / "halves.yaml"
    own = find_model(copy).config
    assert own is not None
    sides = {"dataset": "demo", "train": {"subject": [1]}, "test": {"subject": [3, 4]}}
    halves = {"dataset": "demo", "base": "sides", "unseen": WITHHELD}
    rule.write_text(json.dumps({"halves": halves, "sides": sides}))
    bundle = tmp_path / "bundle"
    export_run(copy, bundle)
    words = [["--checkpoint", str(copy)], ["--checkpoint", str(copy), "--protocol", str(rule)],
             ["--checkpoint", str(bundle), "--data", own.data.path, "--protocol", own.data.protocol],
             ["--checkpoint", str(bundle), "--data", own.data.path, "--protocol", str(rule)]]  # fmt: skip
    folders = [evaluate_to(build_parser().parse_args(each))[1] for each in words]
    assert folders[0] == copy / "report-test" and folders[1].name.startswith("report-test-halves-")
    assert all(folder.parent == Path("reports") and folder.name.startswith("bundle-test-") for folder in folders[2:])
    assert len(set(folders)) == 4
