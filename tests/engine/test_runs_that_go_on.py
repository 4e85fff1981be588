"""A run goes on with the data, layout and protocol that it began with, or says why it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from running import arguments, weights
from short_runs import SHORT, run

from mmcl.common.errors import UserError
from mmcl.engine.loop import Loop
from mmcl.engine.parsing import parse
from mmcl.engine.setup import build_task, open_data
from mmcl.engine.summary import describe_run
from mmcl.evaluate import main as evaluate
from mmcl.export import main as export
from mmcl.skeletons.layout import load_layout

pytestmark = pytest.mark.usefixtures("fresh")


def record_of(folder: Path) -> dict[str, object]:
    """What a run says that it is made of."""
    return json.loads((folder / "model.json").read_text())["record"]


def test_a_run_does_not_go_on_with_a_layout_file_that_has_changed(demo_store, tmp_path, monkeypatch) -> None:
    """Weights would be learned on two orders of joints, and model.json would know of the first."""
    own, out = tmp_path / "own.yaml", tmp_path / "run"
    facts = {**load_layout("kinect_v1_20").to_dict(), "name": "own"}
    own.write_text(yaml.safe_dump(facts))
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_asked_to_stop", lambda loop, _: loop.position.steps == 4)
        assert run(demo_store, out, f"--data.layout={own}") == 130
    before = [file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()]
    own.write_text(yaml.safe_dump({**facts, "joints": facts["joints"][::-1]}))
    with pytest.raises(UserError, match="layout 'own' is not what it was"):
        run(demo_store, out, f"--data.layout={own}", "--resume=true")
    assert [file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()] == before
    own.write_text(yaml.safe_dump(facts))
    assert run(demo_store, out, f"--data.layout={own}", "--resume=true") == 0


def test_what_changes_no_result_may_change(copy, demo_store, stopped, tmp_path) -> None:
    shutil.copytree(demo_store, tmp_path / "moved")
    free = ["--data.eval_batch_size=3", "--engine.validate_every=7", "--engine.log_every=2", "--data.workers=1"]
    assert run(tmp_path / "moved", copy, "--resume=true", *free) == 0
    straight = tmp_path / "straight"
    assert run(demo_store, straight, *free) == 0
    digests = {record_of(folder)["config"] for folder in (copy, straight)}  # that of the configuration begun with
    assert len(digests) == 1 and "" not in digests
    assert all(torch.equal(tensor, weights(copy)[name]) for name, tensor in weights(straight).items())
    assert yaml.safe_load((copy / "config.yaml").read_text())["data"]["path"] == str(tmp_path / "moved")
    assert not yaml.safe_load((copy / "config.yaml").read_text())["resume"]
    assert evaluate(["--checkpoint", str(copy)]) == 0
    with pytest.raises(UserError, match="encoder.width was 8 and is now 16"):
        run(demo_store, copy, "--resume=true", "--encoder.width=16")
    config = parse(arguments(demo_store, copy, *SHORT, "--optimiser.rate=0.2"))
    data = open_data(config)
    other = describe_run(config, data, build_task(config, data, torch.device("cpu")), None).record
    assert other is not None and other["config"] not in digests


def test_an_unfinished_run_is_exported_with_what_it_was_trained_on(copy, demo_store, tmp_path, capsys) -> None:
    """Where the store is another one by now, the bundle says what the weights have seen, not what is there today."""
    trained = record_of(copy)
    shutil.copytree(demo_store, tmp_path / "store")
    facts = json.loads((tmp_path / "store" / "store.json").read_text())
    (tmp_path / "store" / "store.json").write_text(json.dumps({**facts, "fingerprint": "0" * 64}))
    for name in ("config.yaml", "model.json"):
        (copy / name).write_text((copy / name).read_text().replace(str(demo_store), str(tmp_path / "store")))
    assert export(["--run", str(copy), "--out", str(tmp_path / "bundle")]) == 0
    assert "note: this run has not reached its last epoch" in capsys.readouterr().out
    bundle = json.loads((tmp_path / "bundle" / "config.json").read_text())
    assert bundle["record"]["store"] == trained["store"] == facts["fingerprint"] != "0" * 64
    assert bundle["record"]["trained"] == trained["trained"] and bundle["provenance"]["complete"] is False


@pytest.mark.parametrize(
    "edited",
    [
        {"train": {"subject": [1, 2]}, "test": {"subject": [4]}},  # another test side
        {"train": {"subject": [1, 4]}, "test": {"subject": [3]}},  # other training clips, as many
        {"train": {"subject": [3, 4]}, "test": {"subject": [1]}},  # sides exchanged
        {"base": "demo/cross_subject", "unseen": [0]},  # fewer classes
    ],
)  # fmt: skip
def test_a_protocol_that_was_edited_is_not_resumed_on(demo_store, tmp_path, monkeypatch, edited) -> None:
    rule, out = tmp_path / "own.yaml", tmp_path / "run"
    sides = {"train": {"subject": [1, 2]}, "test": {"subject": [3]}}
    rule.write_text(json.dumps({"own": {"dataset": "demo", **sides}}))
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_asked_to_stop", lambda loop, _: loop.position.steps == 2)
        assert run(demo_store, out, f"--data.protocol={rule}") == 130
    rule.write_text(json.dumps({"own": {"dataset": "demo", **edited}}))
    with pytest.raises(UserError, match="cannot resume: the protocol now gives other .* clips"):
        run(demo_store, out, f"--data.protocol={rule}", "--resume=true")
    rule.write_text(json.dumps({"own": {"dataset": "demo", **sides}}))
    assert run(demo_store, out, f"--data.protocol={rule}", "--resume=true") == 0


def test_a_run_of_an_earlier_mmcl_is_used_but_not_resumed(copy, demo_store, tmp_path) -> None:
    last = copy / "checkpoints" / "last"
    position = json.loads((last / "position.json").read_text())
    old = {"epoch": 2, "step": 0, "best": -1.0, "last": None, "data": position["data"], "stretches": 1}
    (last / "position.json").write_text(json.dumps(old))
    for name in ("training.pt", "random_0.pt"):
        (last / name).unlink()
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["data"]["sharded"] = False
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="an earlier mmcl began it; it can be evaluated and exported") as refused:
        run(demo_store, copy, "--resume=true")
    assert len(str(refused.value).splitlines()) == 1
    assert evaluate(["--checkpoint", str(copy)]) == 0
    assert export(["--run", str(copy), "--out", str(tmp_path / "bundle")]) in (0, None)
    assert (tmp_path / "bundle" / "model.safetensors").is_file()
