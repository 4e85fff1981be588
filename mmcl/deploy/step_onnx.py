"""``model.step.onnx``: written beside a causal model's graphs, and run by onnxruntime for streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmcl.common.errors import UserError
from mmcl.deploy.continual import SHARED, ContinualStream
from mmcl.deploy.onnx import INPUT, TOLERANCE, finish, probe_samples, traced
from mmcl.deploy.step_runner import NEXT, OnnxStepper
from mmcl.deploy.stepping import StepGraph
from mmcl.models.model import Model
from mmcl.models.session import open_session

if TYPE_CHECKING:
    from onnx import ModelProto


def export_steps(model: Model) -> ModelProto:
    """The graph that takes the next frames and what is kept, tidied and named, not yet tested.

    Raises:
        UserError: the model sees whole clips alone.
    """
    graph = StepGraph(model)
    network, persons = graph.network, graph.network.persons
    bodies = min(2, persons)
    joints = torch.randn(bodies, network.step, model.layout.joint_count, model.preprocess.columns)
    state = graph.begin(bodies)
    rows = {0: torch.export.Dim("bodies", min=1, max=persons)} if persons > 1 else None
    shapes = (rows, tuple(None if name in SHARED else rows for name in graph.kept))
    outputs = [*graph.outputs, *(NEXT + name for name in graph.kept)]
    proto = traced(graph, (joints, *state.values()), [INPUT, *graph.kept], outputs, shapes)
    facts = {"step": network.step, "forget": network.forget}
    return finish(proto, model, {"precision": "fp32", "continual": facts})


def agree_step_by_step(proto: ModelProto, model: Model, probe: Path) -> float:
    """Push clips through the graph frame by frame, and compare the end with what the model says of the whole clip.

    Returns:
        Largest difference of a probability, or of how familiar a clip is.

    Raises:
        UserError: it is more than 1e-4.
    """
    stepper = OnnxStepper(open_session(proto.SerializeToString()), model.class_names, model.preprocess.persons)
    worst = 0.0
    for clip in clips_of_streams(model, probe):
        stream = ContinualStream(stepper, hop=len(clip[0]) + 1)
        for frame in clip.swapaxes(0, 1):
            stream.push(frame)
        said = stream.finish()
        scores, familiarity = model.judge(torch.from_numpy(clip)[None])
        truth = scores.softmax(dim=-1)[0]
        assert said is not None, "somebody is in the clip"
        worst = max(worst, *(abs(p - float(truth[label])) for label, _, p in said.ranking))
        if familiarity is not None:
            assert said.ranking.familiarity is not None, "the graph says it where the model does"
            worst = max(worst, abs(said.ranking.familiarity - float(familiarity[0])))
    if not worst <= TOLERANCE:
        raise UserError(f"the graph for streams differs from the model by {worst:.2e} (> {TOLERANCE:.1e})")
    return worst


def clips_of_streams(model: Model, probe: Path) -> Iterator[np.ndarray]:
    """(M, T, V, C) clips of a probe that fit the window, of those who are in the first frame: slots are told by it."""
    for sample in probe_samples(probe):
        clip = sample[-1, :, : model.preprocess.options.window]
        seen = (clip[..., :3].nan_to_num() != 0).flatten(2).any(dim=2)
        if not bool(seen.any()):
            continue
        first = int(seen.any(dim=0).nonzero()[0])
        yield clip[seen[:, first], first:].numpy()
