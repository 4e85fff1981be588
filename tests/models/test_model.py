"""A loaded model: fast and without gradients unless asked, and a clear line for what it cannot look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import mmcl
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.export import main as export
from mmcl.models.bundle import describe, write_bundle
from mmcl.models.folder import find_model, open_model
from mmcl.models.model import Model
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

FIVE = Layout.from_dict(
    {"name": "five", "joints": list("abcde"), "parents": {"a": "b", "c": "b", "d": "c", "e": "d"}, "centre": "b"}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    encoder = build_encoder("ctrgcn", FIVE, 4, {"width": 8, "depth": 3, "persons": 2})
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    preprocess = Preprocess(FIVE, FIVE, 2, PreprocessOptions(window=12))
    path = tmp_path_factory.mktemp("model")
    write_bundle(path, Model(describe("ctrgcn", encoder.eval(), preprocess, list("wxyz")), encoder, preprocess))
    return path


@pytest.fixture(scope="module")
def model(folder) -> Model:
    return mmcl.load(str(folder))


def clips(count: int = 3, frames: int = 20) -> Tensor:
    return torch.randn(count, 2, frames, 5, 3, generator=torch.Generator().manual_seed(1))


def test_scores_are_those_of_the_network_without_its_gradients(model, monkeypatch) -> None:
    joints, used = clips(), []
    lean = model._lean_encoder
    monkeypatch.setattr(model, "_lean_encoder", lambda: used.append(1) or lean())
    scores = model(joints)
    assert used == [1] and not scores.requires_grad  # as README shows it: the folded form, outside any no_grad
    truth = model(joints, grad=True)
    assert used == [1] and truth.requires_grad
    torch.testing.assert_close(scores, truth.detach(), rtol=1e-4, atol=1e-4)
    leaf = joints.clone().requires_grad_(True)
    model(leaf, torch.tensor([20, 12, 20]), grad=True)[:, 0].sum().backward()
    assert leaf.grad.abs().flatten(1).sum(dim=1).min() > 0 and not leaf.grad[1, :, 12:].any()
    with torch.no_grad():
        assert not model(joints, grad=True).requires_grad


def test_a_joint_that_is_not_a_number_is_one_that_is_missing(model) -> None:
    joints = clips()
    joints[0, 0, 4, 3, 1] = torch.nan
    gone = joints.clone()
    gone[0, 0, 4, 3] = 0.0
    assert torch.equal(model(joints), model(gone)) and model(joints).isfinite().all()
    joints[1, 1] = torch.nan  # a person who is not there
    gone[1, 1] = 0.0
    assert torch.equal(model(joints), model(gone))


def nobody(joints: Tensor) -> Tensor:
    joints[1] = 0.0
    joints[1, 0, 2] = torch.nan
    return joints


def infinite(joints: Tensor) -> Tensor:
    joints[2, 0, 1, 1, 0] = -torch.inf
    return joints


@pytest.mark.parametrize(
    ("joints", "lengths", "words"),
    [
        (nobody(clips()), None, "clip 1 of 3 has nobody in it: every joint is missing"),
        (infinite(clips()), None, "clip 2 of 3 has infinite coordinates"),
        (clips()[:, :, :0], None, "2 persons and 0 frames"),
        (clips()[:, :0], None, "0 persons and 20 frames"),
        (clips()[0], None, r"\(clips, persons, frames, 5, 3\) of layout 'five', not \(2, 20, 5, 3\)"),
        (clips()[:, :, :, :4], None, r"not \(3, 2, 20, 4, 3\)"),
        (clips(), torch.tensor([20, 0, 5]), "clip 1 has the length 0: it must be from 1 to 20"),
        (clips(), torch.tensor([20, 5, 21]), "clip 2 has the length 21"),
        (clips(), torch.tensor([20, -3, 20]), "clip 1 has the length -3"),
        (clips(), torch.tensor([20, 20]), r"lengths must be whole numbers \(3,\)"),
        (clips(), torch.tensor([20.0, 20.0, 20.0]), "lengths must be whole numbers"),
    ],
)
@pytest.mark.parametrize("grad", [False, True])
def test_what_cannot_be_looked_at_is_said_in_one_line(model, joints, lengths, words, grad) -> None:
    for ask in (model, model.features):
        with pytest.raises(UserError, match=words):
            ask(joints, lengths, grad)


def test_no_clips_and_other_types_of_numbers(model) -> None:
    assert model(clips()[:0]).shape == (0, 4)
    torch.testing.assert_close(model(clips().double()), model(clips()), rtol=1e-5, atol=1e-5)
    assert model(clips().half()).dtype == torch.float32
    one = model(clips(), torch.tensor([20, 12, 20], dtype=torch.int32))
    torch.testing.assert_close(one, model(clips(), torch.tensor([20, 12, 20])))


def test_no_check_slows_down_or_breaks_a_graph(model) -> None:
    """A traced model looks at shapes alone, so that nothing depends on the values of a batch."""
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(clips()), model(clips()), rtol=1e-4, atol=1e-4)


def test_a_folder_is_opened_by_what_it_is(folder, tmp_path) -> None:
    assert find_model(folder).checkpoint is None and not find_model(folder).graphs_only
    torch.testing.assert_close(open_model(folder)(clips()), mmcl.load(str(folder))(clips()))
    for empty in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="neither a bundle .* nor a run folder"):
            find_model(empty)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="no checkpoint at"):
        find_model(tmp_path)


def test_which_checkpoint_is_asked_of_a_run_alone(folder, tmp_path) -> None:
    with pytest.raises(UserError, match="--which best is of a run, and .* is a bundle, which holds one network"):
        find_model(folder, "best")
    for name in ("last", "best"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "learned.safetensors").touch()
    (tmp_path / "config.yaml").touch()
    with pytest.raises(
        UserError, match="--which best is another checkpoint than .*last: leave it out, or give the run"
    ):
        find_model(tmp_path / "checkpoints" / "last", "best")
    for path, which in (
        (tmp_path, "best"),
        (tmp_path / "checkpoints" / "best", "best"),
        (tmp_path / "checkpoints", None),
    ):
        with pytest.raises(UserError) as other:  # there is nothing in this run
            find_model(path, which)
        assert "--which" not in str(other.value)


@pytest.mark.parametrize(("out", "page"), [("b", "b"), ("b", "x/../b"), ("b", "b/page"), ("b/c", "b")])
def test_a_page_and_a_bundle_lie_apart(tmp_path, out, page) -> None:
    words = ["--run", str(tmp_path / "nowhere"), "--out", str(tmp_path / out), "--page", str(tmp_path / page)]
    with pytest.raises(UserError, match="are one folder, or one is in the other: each is replaced as a whole"):
        export([*words])
    with pytest.raises(UserError, match="nowhere"):
        export([*words[:-1], str(tmp_path / "page")])
