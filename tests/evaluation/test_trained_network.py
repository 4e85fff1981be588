"""A run is judged only if the network that is built of it now is the one that was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from open_runs import WITHHELD
from safetensors.torch import load_file, save_file

from mmcl.common.errors import UserError
from mmcl.deploy.export import export_run
from mmcl.evaluate import build_parser
from mmcl.evaluate import evaluate as evaluate_to
from mmcl.evaluate import main as evaluate
from mmcl.models.folder import find_model, open_model
from mmcl.zero_shot import main as zero_shot


@pytest.fixture
def copy(open_run, tmp_path) -> Path:
    return shutil.copytree(open_run, tmp_path / "run", ignore=shutil.ignore_patterns("report*"))


@pytest.mark.parametrize(("key", "value"), [("window", 24), ("crop", 0.5), ("streams", ["bone"])])
def test_an_edited_description_under_which_the_weights_still_fit_is_refused(copy, key, value) -> None:
    facts = json.loads((copy / "model.json").read_text())
    facts["preprocess"][key] = value
    (copy / "model.json").write_text(json.dumps(facts))
    for judge in (evaluate, zero_shot):
        with pytest.raises(UserError, match="the network is not what it was when it was trained"):
            judge(["--checkpoint", str(copy)])
    assert not list(copy.glob("report*"))


def test_a_run_opens_without_its_configuration_and_its_clips(copy, demo_store) -> None:
    """What it trains is in its own folder; the clips are wanted only to judge it on them."""
    expected = open_model(copy)(torch.ones(1, 1, 20, open_model(copy).layout.joint_count, 3))
    (copy / "config.yaml").write_text("nothing: of use\n")
    facts = json.loads((copy / "model.json").read_text())
    facts["provenance"]["data"] = "gone"
    (copy / "model.json").write_text(json.dumps(facts))
    model = open_model(copy / "checkpoints" / "last")
    assert torch.equal(model(torch.ones(1, 1, 20, model.layout.joint_count, 3)), expected)
    assert model.vocabulary is not None and evaluate(["--checkpoint", str(copy), "--data", str(demo_store)]) == 0
    with pytest.raises(UserError, match="gone"):
        evaluate(["--checkpoint", str(copy)])


def test_the_probe_itself(copy) -> None:
    """Rounding of another machine passes; a changed weight does not; nor does a record that is damaged or gone."""
    found, path = find_model(copy), copy / "checkpoints/last/probe.safetensors"
    probe = load_file(path)
    save_file({**probe, "scores": probe["scores"] + 1e-6 * torch.randn_like(probe["scores"])}, path)
    found.load()
    save_file({**probe, "scores": probe["scores"] * 1.01 + 0.01}, path)
    with pytest.raises(UserError, match="the scores recorded with it differ by 0.0"):
        found.load()
    save_file({**probe, "joints": probe["joints"][:, :, :, :-1].contiguous()}, path)
    with pytest.raises(UserError, match="the joints recorded with it are others"):
        found.load()
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"probe.safetensors is damaged"):
        found.load()
    path.unlink()
    with pytest.raises(UserError, match=r"probe.safetensors is damaged"):
        found.load()


def test_a_store_that_has_changed_since_is_said(copy, capsys) -> None:
    facts = json.loads((copy / "model.json").read_text())
    facts["provenance"]["data_fingerprint"] = "f" * 64
    (copy / "model.json").write_text(json.dumps(facts))
    assert evaluate(["--checkpoint", str(copy)]) == 0
    assert "its content has changed" in capsys.readouterr().err
    assert "its content has changed" in (copy / "report-test/report.md").read_text()


def test_outputs_that_stand_for_other_classes_by_now_are_not_judged_as_the_old_ones(copy, capsys) -> None:
    """As where a protocol file was edited after training: outputs go by the names that were trained."""
    facts = json.loads((copy / "model.json").read_text())
    facts["class_names"][1] = "juggle"
    (copy / "model.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="knows 10 classes, and not all 10 of"):
        evaluate(["--checkpoint", str(copy)])
    assert open_model(copy).class_names[1] == "juggle"


def test_a_report_by_another_rule_leaves_the_run_s_own_as_it_is(copy, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    rule = tmp_path / "halves.yaml"
    own = find_model(copy).description.provenance
    sides = {"dataset": "demo", "train": {"subject": [1]}, "test": {"subject": [3, 4]}}
    halves = {"dataset": "demo", "base": "sides", "unseen": WITHHELD}
    rule.write_text(json.dumps({"halves": halves, "sides": sides}))
    bundle = tmp_path / "bundle"
    export_run(copy, bundle)
    words = [["--checkpoint", str(copy)], ["--checkpoint", str(copy), "--protocol", str(rule)],
             ["--checkpoint", str(bundle), "--data", own["data"], "--protocol", own["protocol"]],
             ["--checkpoint", str(bundle), "--data", own["data"], "--protocol", str(rule)]]  # fmt: skip
    folders = [evaluate_to(build_parser().parse_args(each))[1] for each in words]
    assert folders[0] == copy / "report-test" and folders[1].name.startswith("report-test-halves-")
    assert all(folder.parent == Path("reports") and folder.name.startswith("bundle-test-") for folder in folders[2:])
    assert len(set(folders)) == 4
    told = [json.loads((folder / "report.json").read_text())["floors"] for folder in folders]
    assert told[0] == told[2] != told[1] and told[1]["train"] < told[0]["train"]  # those of the rule, not of the model
    assert f"{told[0]['kernel_ridge']:.2%} by kernel ridge regression" in (folders[0] / "report.md").read_text()
