"""The models behind the rows of a frontier: where they lie, and one clip's way through the graphs of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmcl.benchmarks.frontier_points import PRECISIONS
from mmcl.benchmarks.plain.form import published_network
from mmcl.common.errors import UserError
from mmcl.deploy.graph_writing import GraphClips, checked_agreement, make_graph
from mmcl.deploy.known_clips import compared_clips
from mmcl.deploy.onnx import INPUT, export_graph
from mmcl.deploy.options import ExportOptions
from mmcl.encoders.ctrgcn.network import CTRGCN, CTRGCNOptions
from mmcl.evaluation.judging import select
from mmcl.evaluation.reporting.saved import SavedReport
from mmcl.models.description import graphs_in
from mmcl.models.folder import SavedModel, find_model
from mmcl.models.model import Model
from mmcl.models.session import open_session

if TYPE_CHECKING:
    from onnx import ModelProto

COMPARED = 200  # clips on which an int8 graph's answers are compared with the network's
ANY = ExportOptions(min_agreement=0.0, max_difference=1.0)  # how far a graph is from its network is told, not judged


@dataclass(frozen=True)
class Network:
    """A model with its graphs.

    Attributes:
        model: in memory.
        clips: that it may know, in its joints; the first one of the training side is timed.
        calls: precision -> a call that takes that clip through the graph.
        agreement: share of clips for which the int8 graph names the network's class.
    """

    model: Model
    clips: GraphClips
    calls: dict[str, Callable[[], Any]]
    agreement: float


def model_paths(report: SavedReport) -> list[Path]:
    """Where the models are that a report judged: one, or the members of an ensemble.

    Raises:
        UserError: they are not there, or the report does not say where.
    """
    members = report.facts.get("members")
    if isinstance(members, list):
        named = [(Path(str(member.get("report"))), member.get("checkpoint")) for member in members]
    else:
        named = [(report.path, report.facts.get("checkpoint"))]
    found = []
    for folder, checkpoint in named:
        path = Path(str(checkpoint))
        beside = folder.parent / "checkpoints" / path.name  # a report inside its run moves along with the run
        path = beside if beside.is_dir() else path
        if not path.is_dir():
            raise UserError(f"{folder} judged {checkpoint}, which is not there: give the run, with its report inside")
        found.append(path)
    return found


def make_network(path: Path, report: SavedReport, threads: int) -> Network:
    """Load a model and its graphs; new ones are calibrated on training clips of the protocol that its report is by."""
    saved = find_model(path)
    model = saved.load()
    data = select(saved, report.facts.get("data"), report.facts.get("protocol"), "train")
    clips = compared_clips(model, data.store, data.sides, str(data.protocol), COMPARED)
    graphs, joints = _graphs(saved, model, clips), timed_clip(clips)
    calls: dict[str, Callable[[], Any]] = {
        precision: partial(open_session(graph.SerializeToString(), threads).run, ["scores"], {INPUT: joints})
        for precision, graph in graphs.items()
    }
    return Network(model, clips, calls, checked_agreement(graphs["int8"], "int8", clips, ANY).agreement)


def _graphs(saved: SavedModel, model: Model, clips: GraphClips) -> dict[str, ModelProto]:
    """Precision -> graph: those that a bundle holds, if it holds them all, else new ones."""
    import onnx

    held = graphs_in(saved.path) if saved.checkpoint is None else {}
    if all(precision in held for precision in PRECISIONS):
        return {precision: onnx.load(held[precision]) for precision in PRECISIONS}
    single = export_graph(model)
    return {precision: make_graph(single, precision, clips.calibrating()) for precision in PRECISIONS}


def timed_clip(clips: GraphClips) -> np.ndarray:
    """(1, M, T, V, C): the first clip of the training side, so that all models of a protocol are timed on the same."""
    return clips.read(int(clips.calibration[0]))


def published_call(network: Network) -> Callable[[], Any]:
    """The clip through CTR-GCN as published, for the joints and frames of a model; how fast it is no weights decide."""
    preprocess = network.model.preprocess
    options = CTRGCNOptions(persons=preprocess.persons, channels=preprocess.channels)
    encoder = CTRGCN(preprocess.target, len(network.model.class_names), options).eval()
    published = published_network(encoder).requires_grad_(False)
    joints = torch.from_numpy(timed_clip(network.clips))
    return lambda: published(preprocess(joints))
