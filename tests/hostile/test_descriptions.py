"""Bundles of strangers: what a description says is checked before anything is built of it, and shown as it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmcl.common.errors import UserError
from mmcl.deploy.predictor import ranking_of
from mmcl.encoders import ENCODERS
from mmcl.encoders.building import build_encoder
from mmcl.models.bundle import describe, load_bundle, write_bundle
from mmcl.models.folder import find_model
from mmcl.models.model import Model
from mmcl.predict import main as predict
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

LAYOUT = load_layout("kinect_v1_20")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    encoder = build_encoder("ctrgcn", LAYOUT, 2, {"width": 8, "depth": 3, "persons": 1}).eval()
    preprocess = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(window=8))
    (tmp_path / "bundle").mkdir()
    description = describe("ctrgcn", encoder, preprocess, ["a", "b"], count=False)
    write_bundle(tmp_path / "bundle", Model(description, encoder, preprocess))
    np.save(tmp_path / "clip.npy", np.random.default_rng(0).normal(size=(6, 20, 3)).astype(np.float32))
    return tmp_path / "bundle"


def changed(bundle: Path, path: str, value: Any) -> None:
    content = json.loads((bundle / "config.json").read_text())
    part = content
    *parents, last = path.split(".")
    for key in parents:
        part = part[key]
    part[last] = value
    (bundle / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("preprocess.window", "16", "whole number"), ("preprocess.window", 16.5, "whole number"),
        ("preprocess.window", 10**9, "whole number"), ("preprocess.window", True, "whole number"),
        ("preprocess.centring", "zzz", "centring"), ("preprocess.scaling", "zzz", "scaling"),
        ("preprocess.streams", [["joint"]], "streams"), ("preprocess.streams", None, "a list of streams"),
        ("preprocess.streams", 1e300, "a list of streams"), ("preprocess.streams", ["3"], "stream"),
        ("preprocess.crop", "1", "crop"), ("preprocess.views", 10**9, "views"), ("preprocess.x", 1, "no option x"),
        ("encoder.options.depth", 10**5, "depth"), ("encoder.options.width", 8 * 10**8, "width"),
        ("encoder.options.persons", 10**9, "persons"), ("encoder.options.width", "8", "width"),
        ("encoder.options.width", 8192, "memory|fit"), ("encoder.name", "os", "unknown encoder"),
        ("encoder", {"options": {}}, "'config.encoder' lacks name"), ("preprocess.crop", 10**400, "1329 bits"),
        ("preprocess.dimensions", 2, "the encoder takes 3 channels, its preprocessing gives 2"),
        ("class_names", [], "class_names"), ("class_names", "ab", "class_names"),
        ("class_names", ["a", "b", "c"], "fit"),
        ("class_names", ["a", "a"], r"class_names\[1\] is 'a', as another one"),
        ("class_names", ["a", " "], r"class_names\[1\] has 0 characters: it must have 1 to 200"),
        ("class_names", ["a" * 201, "b"], r"class_names\[0\] has 201 characters"),
        ("layout.joints", list(map(str, range(30_000))), "at most 1000"), ("layout.parents", {}, "root"),
        ("counts", {"parameters": "many"}, "counts"), ("record", {"format": 1}, "record"), ("format", 99, "format"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_at_once(bundle: Path, path: str, value: Any, complaint: str) -> None:
    changed(bundle, path, value)
    began = time.process_time()
    with pytest.raises(UserError, match=complaint) as error:
        _ = load_bundle(bundle).record
    assert time.process_time() - began < 5 and str(bundle) in str(error.value)


def test_one_stream_and_several_are_not_given_at_once(bundle: Path) -> None:
    changed(bundle, "format", 1)
    changed(bundle, "preprocess.stream", "bone")
    with pytest.raises(UserError, match="preprocess has both stream and streams: leave one out"):
        load_bundle(bundle)


def test_finite_weights_whose_answers_are_none_give_no_label(bundle: Path) -> None:
    tensors = load_file(bundle / "model.safetensors")
    name = next(name for name in tensors if name.endswith("running_var"))
    save_file({**tensors, name: tensors[name] - 9}, bundle / "model.safetensors")
    clip = np.load(bundle.parent / "clip.npy")[None]
    with pytest.raises(UserError, match="1 of 1 clips is not finite: its weights are damaged"):
        load_bundle(bundle)(torch.from_numpy(clip)[None])
    with pytest.raises(UserError, match="not finite"):
        ranking_of(torch.tensor([0.0, torch.nan]), ["a", "b"])


def test_long_clips_of_many_persons_are_refused_before_they_fill_memory(bundle: Path) -> None:
    changed(bundle, "preprocess.window", 10_000)
    changed(bundle, "encoder.options.persons", 100)
    with pytest.raises(UserError, match="too many"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ENCODERS)
def test_no_encoder_is_built_of_endless_layers(name: str) -> None:
    options = ENCODERS[name].options_type
    defaults = options()
    for key in ("depth", "persons", "heads", "width", "frames", "lstm_width", "input_blocks"):
        if hasattr(defaults, key):
            with pytest.raises(UserError, match=key):
                build_encoder(name, LAYOUT, 2, {key: 16 * 10**7})


def test_names_reach_the_terminal_as_text(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(bundle, "class_names", ["a\x1b[2J\nwarning: all is well", "b\u202ec\x07"])
    assert predict([str(bundle), str(bundle.parent / "clip.npy"), "--top", "2"]) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") == 1 and not set("\x1b\x07\u202e") & set(said.out + said.err)


def test_the_card_of_a_hostile_bundle_holds_no_tags(bundle: Path, tmp_path: Path) -> None:
    model = load_bundle(bundle)
    evil = "<img src=x onerror=alert(1)>\n# [x](javascript:alert(1)) | y"
    (tmp_path / "again").mkdir()
    write_bundle(
        tmp_path / "again", Model(model.description.changed(class_names=[evil, "b"], provenance={"dataset": evil}),
                                  model.encoder, model.preprocess)
    )  # fmt: skip
    card = (tmp_path / "again" / "README.md").read_text()
    assert "<img" not in card and "](javascript" not in card.replace("\\](", "") and "\n# [x]" not in card


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_weights_that_are_no_real_numbers_are_refused(bundle: Path, dtype: torch.dtype) -> None:
    tensors = load_file(bundle / "model.safetensors")
    save_file({**tensors, "classifier.bias": tensors["classifier.bias"].to(dtype)}, bundle / "model.safetensors")
    with pytest.raises(UserError, match=rf"'classifier.bias' holds {dtype}, and no real numbers"):
        load_bundle(bundle)


@pytest.mark.parametrize("change", [torch.Tensor.to_sparse, lambda clip: clip.to("meta")])
def test_tensors_without_their_numbers_are_no_clips(bundle: Path, change: Callable[..., torch.Tensor]) -> None:
    clip = torch.from_numpy(np.load(bundle.parent / "clip.npy")[None])[None]
    with pytest.raises(UserError, match="joints must be a dense tensor that holds its numbers"):
        load_bundle(bundle)(change(clip))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_folder_can_have_is_no_model(name: str) -> None:
    with pytest.raises(UserError, match="neither a bundle"):
        find_model(name)
