"""Small trained bundles for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmcl.deploy.graph_writing import GraphClips
from mmcl.deploy.onnx import agree, export_graph, finish
from mmcl.deploy.options import ExportOptions
from mmcl.encoders.building import build_encoder
from mmcl.models.bundle import describe, load_bundle, write_bundle
from mmcl.models.description import GRAPHS
from mmcl.models.familiarity import Familiarity, directions
from mmcl.models.model import Model
from mmcl.models.rejection import Rejection, read_rejection
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

SOURCE, TARGET = load_layout("utd_mhad_20"), load_layout("kinect_v2_25")
NAMES = ["wave", "throw a ball", "sit down", "jump", "walk", "fall"]


CTRGCN = ("ctrgcn", {"width": 16, "depth": 4, "persons": 2})
ALL = ExportOptions(onnx=("fp32", "fp16", "int8"), min_agreement=0.0, max_difference=1.0)


def write_small(folder: Path, network: tuple[str, dict[str, Any]] = CTRGCN, familiar: bool = False) -> Model:
    """A bundle for two persons with lived-in statistics, 20 joints in, 25 inside; no option at its default."""
    torch.manual_seed(0)
    name, own = network
    encoder = build_encoder(name, TARGET, len(NAMES), own)
    options = PreprocessOptions(streams=("bone",), window=24, centring="every_frame", crop=0.9, scaling="box")
    preprocess = Preprocess(SOURCE, TARGET, 2, options)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        encoder.train()
        for _ in range(3):
            encoder(preprocess(torch.randn(8, 2, 40, 20, 3)))
    encoder.eval()
    folder.mkdir()
    model = Model(describe(name, encoder, preprocess, NAMES), encoder, preprocess)
    write_bundle(folder, with_familiarity(model) if familiar else model)
    probe = torch.randn(3, 2, 50, 20, 3)
    probe[0, 1] = 0
    save_file({"joints": probe, "lengths": torch.tensor([50, 31, 44])}, folder.parent / "probe.safetensors")
    return load_bundle(folder)


def with_familiarity(model: Model) -> Model:
    """The same, with what it learned from made up, and a threshold that half of all clips are below."""
    shown, classes = torch.randn(12, 2, 40, 20, 3), torch.arange(12) % len(NAMES)
    kept = Familiarity(directions(model.features(shown)), classes)
    clips = people(16, 2, 40)
    model = Model(model.description, model.encoder, model.preprocess, familiarity=kept)
    threshold = float(model.judge(clips)[1].median()) + 1e-3
    rule = Rejection(threshold, 0.01, 50, "made-up validation", "w", "familiarity")
    return Model(model.description.changed(rejection=rule.to_json()), model.encoder, model.preprocess, familiarity=kept)


def people(clips: int, persons: int, frames: int, empty: tuple[tuple[int, int], ...] = ()) -> Tensor:
    """(N, M, T, 20, 3) random joints, with some bodies (clip, person) empty."""
    x = torch.randn(clips, persons, frames, 20, 3, generator=torch.Generator().manual_seed(clips + frames))
    for clip, person in empty:
        x[clip, person] = 0.0
    return x


def known_clips(bundle: Model) -> GraphClips:
    """Twelve clips that the bundle may have been trained on."""
    clips = [people(1, 2, 40 + clip, ((0, 1),) if clip % 2 else ()).numpy() for clip in range(12)]
    scores, familiarity = zip(*(bundle.judge(torch.from_numpy(clip)) for clip in clips), strict=True)
    sure = None if familiarity[0] is None else torch.cat(familiarity).numpy()
    rule = read_rejection(bundle.description.rejection, "made-up")
    reference = torch.cat(scores).softmax(-1).numpy()
    return GraphClips(clips.__getitem__, range(12), range(12), reference, "own train", sure, rule)


def write_onnx(folder: Path, probe: Path) -> float:
    """Add ``model.onnx`` to a bundle; returns by how much it differs on the probe's clips."""
    bundle = load_bundle(folder)
    model = export_graph(bundle)
    worst = agree(model, bundle, probe)
    (folder / GRAPHS["fp32"]).write_bytes(finish(model, bundle, {"precision": "fp32"}).SerializeToString())
    return worst
