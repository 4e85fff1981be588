"""Accuracy by size of class, against a loop over classes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmcl.common.errors import UserError
from mmcl.evaluation.base import Verdict
from mmcl.evaluation.groups import CURVE, Groups, GroupsOptions, by_groups, part_saliency, trained_clips
from mmcl.evaluation.reporting.pictures import draw_table
from mmcl.evaluation.top1 import learned_from_fewer
from mmcl.models.clip_set import ClipSet
from mmcl.models.run_checkpoints import LEARNED
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.long_tail.coalitions import Coalitions


@pytest.fixture
def verdict() -> Verdict:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 60)  # class 5 is never judged
    correct = rng.random(60) < 0.6
    return Verdict({"top1": float(correct.mean())}, "top1", [str(clip) for clip in range(60)], correct,
                   {"labels": labels, "scores": np.zeros((60, 6))})  # fmt: skip


def test_groups_are_means_over_their_classes(verdict: Verdict) -> None:
    counts = np.array([200, 101, 100, 20, 19, 1])
    found = by_groups(verdict, counts, GroupsOptions()).metrics["groups"]
    labels, correct = verdict.arrays["labels"], verdict.correct

    def mean(*classes: int) -> float:
        return float(np.mean([correct[labels == one].mean() for one in classes]))

    assert found["many"] == {"classes": 2, "accuracy": pytest.approx(mean(0, 1))}
    assert found["medium"] == {"classes": 2, "accuracy": pytest.approx(mean(2, 3))}
    assert found["few"] == {"classes": 2, "accuracy": pytest.approx(mean(4))}


def test_a_group_without_classes_has_no_accuracy_and_is_drawn_all_the_same(verdict: Verdict, tmp_path) -> None:
    groups = Groups(GroupsOptions(many=500, few=300))
    found = by_groups(verdict, np.array([9, 8, 7, 6, 5, 4]), groups.options)
    assert found.metrics["groups"]["many"] == {"classes": 0, "accuracy": None}
    page = groups.draw(found, tmp_path, None)
    assert (tmp_path / CURVE).stat().st_size > 5000 and any("| few | 6 |" in block for block in page)


def test_saliency_of_a_part_is_the_mean_over_its_coalitions(tmp_path) -> None:
    """From a checkpoint as task ``long_tail`` writes one, against a loop; other models have none."""
    layout, K = load_layout("kinect_v1_20"), 6
    coalitions = Coalitions(list(layout.parts.values()), layout.joint_count)
    values = torch.randn(K, len(coalitions), generator=torch.Generator().manual_seed(0))
    save_file({"saliency.values": values}, tmp_path / LEARNED)

    def model(folder: object) -> SimpleNamespace:
        description = SimpleNamespace(provenance={"checkpoint": folder})
        encoder = SimpleNamespace(layout=layout)
        return SimpleNamespace(description=description, encoder=encoder, class_names=[f"class {k}" for k in range(K)])

    found = part_saliency(model(str(tmp_path)))
    for part in range(len(layout.parts)):
        own = [number for number, some in enumerate(coalitions.names) if part in some]
        np.testing.assert_allclose(found[:, part], values[:, own].mean(dim=1), rtol=1e-5)
    assert part_saliency(model(None)) is None and part_saliency(model(str(tmp_path / "elsewhere"))) is None
    draw_table(tmp_path / "table.png", found, [f"class {k}" for k in range(K)], list(layout.parts))
    assert (tmp_path / "table.png").stat().st_size > 5000


def test_groups_that_overlap_are_refused() -> None:
    with pytest.raises(UserError, match="few is 50 and many 10"):
        GroupsOptions(many=10, few=50)


def test_clips_that_a_run_left_out_are_not_counted() -> None:
    store = SimpleNamespace(dataset="mine", ids=[f"clip{number}" for number in range(9)])
    data = SimpleNamespace(store=store, sides=SimpleNamespace(train=np.arange(6)))
    for learned, expected in (([1, 3, 4, 8], [1, 3, 4]), ([7], list(range(6))), (None, list(range(6)))):
        trained = None if learned is None else ClipSet.of(store, np.array(learned))  # type: ignore[arg-type]
        model = SimpleNamespace(record=SimpleNamespace(trained=trained))
        assert trained_clips(model, data).tolist() == expected  # type: ignore[arg-type]
        said = learned_from_fewer(model, data)  # type: ignore[arg-type]
        assert ("learn from all 6 training clips, this model from 3" in said) == bool(said) == (len(expected) == 3)
