"""The tools compose, on real clips: a compressed model is explained, and one that STARS tuned is attacked."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from made import small_model
from tasks.made_tasks import context_of
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmcl.attacks.base import build_attack
from mmcl.attributions import ATTRIBUTIONS
from mmcl.attributions.explaining import explain
from mmcl.attributions.sources import gathered
from mmcl.common.errors import UserError
from mmcl.compress import main as compress
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.deploy.files import read_joints
from mmcl.encoders.counting import count_parameters
from mmcl.engine.parsing import parse
from mmcl.evaluation.faithfulness.stability import randomised
from mmcl.explain import main as explain_verb
from mmcl.models.folder import open_model
from mmcl.skeletons.layout import load_layout
from mmcl.surgery.base import build_surgery
from mmcl.tasks.neighbour_contrast.options import NeighbourContrastOptions
from mmcl.tasks.neighbour_contrast.task import NeighbourContrast
from mmcl.train import train


def real_clips(test_data: Path, names: list[str]) -> tuple[Tensor, Tensor]:
    """Recordings of UTD-MHAD and their lengths."""
    folder, layout = test_data / "utd_mhad" / "Skeleton", load_layout("utd_mhad_20")
    return gathered([read_joints(folder / f"{name}_t1_skeleton.mat", layout) for name in names])


def test_a_compressed_model_is_explained_and_nothing_of_its_score_is_lost(test_data: Path) -> None:
    layout = load_layout("utd_mhad_20")
    joints, lengths = real_clips(test_data, ["a1_s1", "a9_s1", "a22_s1"])
    whole = small_model(layout, list("abcde"), width=16)
    compressed = build_surgery("low_rank", {"policy": "ratio", "amount": 0.4}).run(whole)
    assert count_parameters(compressed.encoder) < count_parameters(whole.encoder)
    shares = {name: explain(model, joints, lengths, "deep_lift", {"over": "frames"}, torch.tensor([0, 1, 2]))
              for name, model in (("whole", whole), ("compressed", compressed))}  # fmt: skip
    for model, found in zip((whole, compressed), shares.values(), strict=True):
        torch.testing.assert_close(found.scores, model(joints, lengths)[range(3), range(3)], rtol=1e-4, atol=1e-5)
        assert found.residual.abs().max() < 1e-3 * (found.scores - found.baseline).abs().max()
    assert not torch.allclose(shares["whole"].values, shares["compressed"].values, atol=1e-3)
    played = explain(compressed, joints[:1], lengths[:1], "shapley", {"permutations": 4})
    assert played.values.shape == (1, 20) and played.residual.abs().max() < 1e-4 * played.values.abs().max() + 1e-4
    fresh = randomised(compressed, "all", 0)
    assert count_parameters(fresh.encoder) == count_parameters(compressed.encoder)
    assert not torch.allclose(fresh(joints, lengths), compressed(joints, lengths))


@pytest.mark.slow
def test_a_co_learned_run_is_compressed_and_explained_by_the_verbs(test_data: Path, tower_folder, tmp_path) -> None:
    """From recordings with video: trained beside CLIP, half the parameters, and the joints that spoke."""
    for folder, ending in (("Skeleton", "skeleton.mat"), ("Video", "color.mp4")):
        (tmp_path / "takes" / folder).mkdir(parents=True)
        for name in (f"a{action}_s{subject}_t2_{ending}" for action in (1, 8, 22) for subject in (3, 6)):
            (tmp_path / "takes" / folder / name).symlink_to(test_data / "utd_mhad" / folder / name)
    prepare(UTDMHAD(tmp_path / "takes"), tmp_path / "store", workers=1, progress=False)
    words = ["utd_mhad_joint", f"--data.path={tmp_path}/store", "--data.batch_size=3", "--data.workers=0",
             "--encoder.width=16", "--encoder.depth=3", "--task.name=colearn", "--task.alignment.weight=0.5",
             "--task.refinement.weight=0", f"--task.clip.model={tower_folder('tiny-clip')}", "--schedule.epochs=2",
             "--schedule.warmup_epochs=0", "--engine.trackers=[]", "--engine.log_every=1"]  # fmt: skip
    run, small, why = (tmp_path / name for name in ("run", "small", "why"))
    assert train(parse(["--config", *words, f"--out={run}"])) == 0
    assert "loss_alignment" in (run / "metrics.jsonl").read_text()
    assert compress([str(run), "--parameters=0.5", "--out", str(small)]) == 0
    counts = [count_parameters(open_model(folder).encoder) for folder in (run, small)]
    assert counts[1] <= 0.5 * counts[0]
    assert explain_verb([str(small), str(tmp_path / "store"), "--out", str(why), "--background-clips=2"]) == 0
    with np.load(why / "values.npz") as found:
        total = found["values"].sum(axis=(1, 2)) + found["baseline"]
        np.testing.assert_allclose(total, found["scores"], atol=1e-3)


def test_a_network_that_stars_tuned_is_attacked_once_it_knows_classes(test_data: Path) -> None:
    """Contrast with nearest neighbours, then labels, then changes of joints that nobody sees."""
    layout, labels = load_layout("utd_mhad_20"), torch.tensor([0, 1, 2, 0, 1, 2])
    joints, lengths = real_clips(test_data, [f"a{action}_s{subject}" for subject in (1, 3) for action in (1, 9, 22)])
    model = small_model(layout, list("abc"), "mamp", width=16, depth=2, heads=2, frames=16)
    contrast = NeighbourContrast(
        context_of(model.encoder, 16, labels.tolist()), NeighbourContrastOptions(queue=8, hidden=16)
    )
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    (stage,) = contrast.stages()
    groups = [group for group in contrast.parameter_groups(stage) if group.name in stage.train]
    optimiser = torch.optim.Adam([tensor for group in groups for tensor in group.parameters], 1e-3)
    batch = {"joints": joints, "lengths": lengths, "keys": torch.arange(6), "clips": torch.arange(6), "augment": False}
    for _ in range(3):
        outputs = contrast(batch)
        optimiser.zero_grad()
        outputs["loss"].backward()
        optimiser.step()
        contrast.after_step(stage, [batch], [outputs])
    changed = {name for name, value in model.encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("blocks.1.", "norm.")) for name in changed)

    optimiser = torch.optim.Adam(model.encoder.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        cross_entropy(model(joints, lengths, grad=True), labels).backward()
        optimiser.step()
    with torch.no_grad():
        assert torch.equal(model(joints, lengths).argmax(dim=1), labels)

    losses = {}
    for name, options in (("noise", {}), ("ifgsm", {"steps": 5}), ("tasar", {"steps": 5, "samples": 0})):
        attack = build_attack(name, {"epsilon": 0.02, **options})
        found = attack.run(attack.prepare(model, None), joints, labels)
        moved = (found - joints).abs()
        assert 0 < moved.max() <= 0.02 * 1.001 and not moved[joints == 0].any()
        with torch.no_grad():
            losses[name] = float(cross_entropy(model(found, lengths), labels))
    assert losses["ifgsm"] > 2 * losses["noise"] and losses["tasar"] > 2 * losses["noise"], losses


def test_shares_that_are_not_finite_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(load_layout("utd_mhad_20"), ["a", "b"])
    kind = ATTRIBUTIONS["gradient"]
    monkeypatch.setattr(kind, "attribute", lambda self, view: view.x * float("nan"))
    point = EntryPoint("theirs", f"{kind.__module__}:{kind.__qualname__}", "mmcl.attributions")
    monkeypatch.setitem(ATTRIBUTIONS.__dict__, "_others", {"theirs": point})
    with pytest.raises(UserError, match="attribution 'theirs' of an installed package .*not finite"):
        explain(model, torch.randn(1, 1, 20, 20, 3), method="gradient")
