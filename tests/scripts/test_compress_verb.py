"""``mmcl compress``: bundles, a page and a picture; what it wrote is trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.compress import build_parser, main
from mmcl.data.store import open_store
from mmcl.deploy.export import export_model
from mmcl.encoders.counting import count_parameters
from mmcl.encoders.factored import factored_layers
from mmcl.engine.configuring import configure
from mmcl.models.bundle import load_bundle
from mmcl.models.description import read_bundle
from mmcl.models.folder import open_model
from mmcl.skeletons.layout import load_layout
from mmcl.surgery import SURGERIES
from mmcl.surgery.base import Surgery
from mmcl.surgery.compressing import asked, compress, name_of
from mmcl.train import train

SMALL = [
    "--data.workers=0", "--data.protocol=demo/cross_subject", "--data.batch_size=8", "--encoder.width=8",
    "--encoder.depth=3", "--preprocess.window=16", "--schedule.epochs=1", "--schedule.warmup_epochs=0",
    "--engine.trackers=[]",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(demo_store, tmp_path_factory) -> Path:
    """A trained run on the demo store."""
    out = tmp_path_factory.mktemp("compress") / "run"
    assert train(configure([*SMALL, f"--data.path={demo_store}", f"--out={out}"])) == 0
    return out


@pytest.fixture(scope="module")
def sizes(run) -> Path:
    """Two sizes of it, whose exports nobody has to verify once more in a process of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmcl.surgery.compressing.SECONDS", 0.1)
        patch.setattr("mmcl.deploy.export.verify_bundle", lambda *arguments: None)
        words = ["--energy", "0.8,0.4", "--basis", "svd", "--statistics", "--out", str(run.parent / "sizes")]
        assert main([str(run), *words]) == 0
        with pytest.raises(UserError, match="--overwrite"):
            main([str(run), *words])
    return run.parent / "sizes"


def test_a_sweep_writes_a_bundle_for_each_size_and_one_page(run, sizes) -> None:
    points = json.loads((sizes / "sweep.json").read_text())
    assert [point["name"] for point in points] == ["original", "energy-0.8", "energy-0.4"]
    original = open_model(run)
    for point, model in zip(
        points, (original, *(load_bundle(sizes / point["name"]) for point in points[1:])), strict=True
    ):
        assert point["parameters"] == count_parameters(model.encoder) and 0 <= point["accuracy"] <= 1
        assert point["latency"]["seconds"] > 0 and point["macs"] > 0
    page = (sizes / "report.md").read_text()
    assert (sizes / "tradeoff.png").stat().st_size > 5000 and "tradeoff.png" in page
    changed = load_bundle(sizes / "energy-0.4").description.provenance["changed"][-1]
    assert changed["clips"] == 24 and changed["parameters_before"] == points[0]["parameters"]
    small, rows = load_bundle(sizes / "energy-0.4").encoder, {row["layer"]: row for row in points[2]["layers"]}
    assert rows.keys() == dict(factored_layers(small)).keys() and "layers" not in points[0]
    for name, layer in factored_layers(small):
        assert f"| `{name}` |" in page
        whole = original.encoder.get_submodule(name).weight.detach().double().flatten(1)
        if len(layer.ranks) == 1:  # the error in the table is the tail of the singular values
            values = torch.linalg.svdvals(whole).square()
            error = float(values[layer.ranks[0] :].sum() / values.sum()) ** 0.5
            assert f"| {1 - error**2:.2%} | {error:.3f} |" in page
            assert rows[name]["error"] == pytest.approx(error, abs=1e-5) and rows[name]["ranks"] == list(layer.ranks)
            assert rows[name]["energy"] == pytest.approx(1 - error**2, abs=1e-5)
            assert (rows[name]["before"], rows[name]["after"]) == (whole.numel(), whole.numel() - layer.saved)


def test_directions_are_those_of_outputs_where_training_clips_are_known(run, tmp_path, monkeypatch) -> None:
    """Without being asked, the verb looks at the training side, and answers stay closer than with singular vectors."""
    monkeypatch.setattr("mmcl.surgery.compressing.SECONDS", 0.05)
    monkeypatch.setattr("mmcl.deploy.export.verify_bundle", lambda *arguments: None)
    changed, off = {}, {}
    original = open_model(run)
    store = open_store(original.description.provenance["data"])
    joints = torch.stack([torch.tensor(store.joints(clip)[:, :20]) for clip in range(8)])
    for name, words in {"known": [], "weights": ["--basis", "svd", "--statistics"]}.items():
        main([str(run), "--rank", "2", *words, "--out", str(tmp_path / name)])
        model = load_bundle(tmp_path / name)
        changed[name] = model.description.provenance["changed"][-1]
        off[name] = float((model(joints) - original(joints)).norm())
    assert [changed[name]["basis"] for name in ("known", "weights")] == ["outputs", "svd"]
    assert changed["known"]["clips"] == 24 and "principal components" in (tmp_path / "known" / "report.md").read_text()
    assert off["known"] < 0.8 * off["weights"]
    bundle = tmp_path / "alone"
    export_model(original, bundle)
    main([str(bundle), "--rank", "2", "--out", str(tmp_path / "blind")])  # nothing says which clips
    assert load_bundle(tmp_path / "blind").description.surgeries[-1].options["basis"] == "svd"
    with pytest.raises(UserError, match="looks at training clips"):
        main([str(bundle), "--rank", "2", "--basis", "outputs", "--out", str(tmp_path / "never")])


def test_what_was_compressed_is_trained_on_in_its_form(sizes, demo_store, tmp_path) -> None:
    words = [*SMALL, f"--data.path={demo_store}", f"--start.checkpoint={sizes / 'energy-0.4'}"]
    tuned, scratch = (str(tmp_path / name) for name in ("tuned", "scratch"))
    assert train(configure([*words, f"--out={tuned}"])) == 0
    assert train(configure([*words, "--start.weights=false", f"--out={scratch}"])) == 0
    before = load_bundle(sizes / "energy-0.4")
    for out, close in ((tuned, True), (scratch, False)):
        model = open_model(out)
        assert {n: layer.ranks for n, layer in factored_layers(model.encoder)} == (
            {n: layer.ranks for n, layer in factored_layers(before.encoder)}
        )  # fmt: skip
        weight, old = (net.encoder.units[2].spatial.value.weight for net in (model, before))
        assert ((weight - old).norm() < 0.5 * old.norm()) == close
    assert [operation.name for operation in open_model(tuned).description.surgeries] == ["low_rank"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--ratios", "0.5", "--split", "validation", "--data", "nowhere", "--protocol", "x"], "nowhere: not a clip"),
        (["--ratios", "0.5", "--split", "validation"], "no clips out for validation: --split validation is empty"),
        (["--ratios", "1.5"], "share of 1"), (["--rank", "2", "--include", "*.kee"], "no layer fits"),
        ([], "say how small: one of --ratio"), (["--surgery", "fuse"], "--surgery fuse is not .*`mmcl fuse` is"),
        (["--surgery", "nosuch"], "unknown surgery 'nosuch'"),
        (["--surgery", "theirs", "--rank", "2", "--temporal"], "--rank, --temporal: of low_rank, and not of --surgery"),
        (["--rank", "2", "--basis", "luck"], "basis must be"), (["--merge"], "no factored layer"),
        (["--rank", "2", "--option", "colour=red"], "no option colour"),
        (["--macs", "0.5", "--option", "amount=0.9"], "amount: give --ratio.*--macs"),
        (["--ratios", "0.3", "--option", "policy=energy"], "policy: give one of --ratio"),
    ],
)  # fmt: skip
def test_mistakes_are_said_before_anything_is_written(run, tmp_path, words, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        compress(build_parser().parse_args([str(run), *words, "--out", str(tmp_path / "never")]))
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class ScaledOptions:
    """Options of :class:`Scaled`."""

    factor: float = 1.0


class Scaled(Surgery):
    """A surgery of another package."""

    options_type = ScaledOptions

    def operate(self, model, data):
        if self.options.factor < 0:
            raise ZeroDivisionError("theirs")
        with torch.no_grad():
            next(model.encoder.parameters()).mul_(self.options.factor)
        return model.encoder, None, {"seen": len(data.clips)}


def test_a_surgery_of_another_package_has_the_same_report(run, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("mmcl.surgery.compressing.SECONDS", 0.05)
    monkeypatch.setattr("mmcl.deploy.export.verify_bundle", lambda *arguments: None)
    point = EntryPoint("theirs", f"{__name__}:Scaled", "mmcl.surgeries")
    monkeypatch.setitem(SURGERIES.__dict__, "_others", {"theirs": point})
    assert main([str(run), "--surgery", "theirs", "--option", "factor=2.0", "--out", str(tmp_path / "out")]) == 0
    before, after = open_model(run).encoder, load_bundle(tmp_path / "out")
    torch.testing.assert_close(next(after.encoder.parameters()), 2 * next(before.parameters()))
    assert after.description.provenance["changed"][-1] == {"surgery": "theirs", "factor": 2.0, "seen": 24}
    said, page = capsys.readouterr().out, (tmp_path / "out" / "report.md").read_text()
    assert said.startswith("theirs: parameters ") and "MACs" in said and "top-1" in said
    assert "# A model after theirs" in page and "| theirs |" in page and "| original |" in page
    with pytest.raises(UserError, match=r"surgery 'theirs' of an installed package .* fails \(ZeroDivisionError"):
        main([str(run), "--surgery", "theirs", "--option", "factor=-1.0", "--out", str(tmp_path / "never")])
    with pytest.raises(UserError, match="'theirs' has no option colour"):
        main([str(run), "--surgery", "theirs", "--option", "colour=red", "--out", str(tmp_path / "never")])


def test_a_bundle_keeps_its_joints_and_a_sweep_that_fails_leaves_nothing(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mmcl.surgery.compressing.SECONDS", 0.1)
    monkeypatch.setattr("mmcl.deploy.export.verify_bundle", lambda *arguments: None)
    own, other = open_model(run), load_layout("kinect_v1_20")
    bundle, out = tmp_path / "bundle", tmp_path / "out"
    export_model(own.taking(other), bundle)
    assert read_bundle(bundle).layout.joints == other.joints
    data = ["--data", own.description.provenance["data"], "--protocol", "demo/cross_subject"]
    main([str(bundle), "--energy", "0.8", *data, "--out", str(out)])  # judged on clips of other joints than its own
    assert read_bundle(out).layout.joints == other.joints and (out / "report.md").is_file()
    sweep = tmp_path / "sweep"
    with pytest.raises(UserError, match="takes"):  # the second of the two cannot be
        main([str(bundle), "--parameters", "0.9,0.01", *data, "--out", str(sweep)])
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "out"}
    for amounts in ("0.8,0.5", "0.6,0.4"):
        main([str(bundle), "--energy", amounts, *data, "--out", str(sweep), "--overwrite"])
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {"energy-0.6", "energy-0.4"}


def test_sizes_that_differ_by_one_parameter_have_names_of_their_own() -> None:
    words = ["run", "--parameters", "1000001,1000002,0.5", "--out", "sizes"]
    names = [name_of(options) for options in asked(build_parser().parse_args(words))]
    assert names == ["parameters-1000001", "parameters-1000002", "parameters-0.5"]
