"""What probes look at: rows read off a model, and off no model at all.

A number of a probe says little by itself: on UTD-MHAD, the nearest training clip by raw coordinates is of the right
class 85 times of 100. So every probe judges the trivial rows, too, and a random network of the same shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.encoders.base import Encoder
from mmcl.encoders.bodies import present_bodies
from mmcl.evaluation.base import Apply, ClipFunction
from mmcl.evaluation.floors import FRAMES, flat, plain
from mmcl.models.bundle import build_network
from mmcl.models.model import Model
from mmcl.skeletons.preprocess import Preprocess


@dataclass(frozen=True)
class Sides:
    """The clips of a probe.

    Attributes:
        bank: (b,) positions in the store of the clips that are learned from.
        bank_labels: (b,) their classes, in the order of the protocol.
        queries: (n,) positions of the clips that are judged.
        labels: (n,) their classes.
        names: K names of classes.
    """

    bank: np.ndarray
    bank_labels: np.ndarray
    queries: np.ndarray
    labels: np.ndarray
    names: list[str]


def probe_sides(data: Selection) -> Sides:
    """Learn from the training side of a protocol, judge on the side that is asked for.

    Raises:
        UserError: no protocol, a side without clips, or the side that is learned from is to be judged.
    """
    sides = data.sides
    bank, queries = sides.train, data.clips
    for name, clips in (("train", bank), (data.side, queries)):
        if not len(clips) and name == "validation":
            raise UserError(
                "the run holds no clips out to be judged on: train with --data.validation, or judge the test side"
            )
        if not len(clips):
            raise UserError(f"a probe learns from training clips: {data.protocol} has none on its {name} side here")
    if np.isin(queries, bank).any():
        raise UserError("a probe learns from the clips of the train side and would find each: judge another side")
    labels = data.store.labels
    names = [data.store.class_names[label] for label in sides.classes]
    return Sides(bank, sides.targets(labels[bank]), queries, sides.targets(labels[queries]), names)


def readouts(model: Model) -> dict[str, ClipFunction]:
    """How rows are read off a model: ``features``, and ``joints``, where it has tokens of single joints.

    ``joints`` is the mean token of every joint over time and over the persons who are there, one behind the other: it
    keeps what joint does what.

    Raises:
        UserError: a bundle of ONNX graphs alone, which tells no features.
    """
    if not isinstance(model, Model):
        raise UserError(f"{model.path} holds ONNX graphs alone, which have no features: use one with weights")
    found: dict[str, ClipFunction] = {"features": model.features}
    if _has_tokens(model.encoder):
        found["joints"] = _by_joint(model.encoder, model.preprocess)
    return found


def floors(model: Model, seed: int = 0) -> dict[str, ClipFunction]:
    """What takes no learning: rows of as many persons, in the joints that the model works on.

    ``coordinates`` of 32 evenly spread frames, the centre joint at the origin of every frame; their ``velocities``; and
    the readouts of a network of the model's shape with random weights.

    Args:
        model: whose joints, persons and shape they have.
        seed: of the random weights.
    """
    own = model.preprocess
    found: dict[str, ClipFunction] = {}
    for name, stream in (("coordinates", "joint"), ("velocities", "joint_motion")):
        found[name] = flat(plain(own.source, own.target, own.persons, own.options, [stream]).to(model.device))
    encoder = random_encoder(model, seed)
    found["random encoder"] = lambda joints, lengths: encoder.features(own(joints, lengths))
    if _has_tokens(encoder):
        found["random encoder, joints"] = _by_joint(encoder, own)
    return found


def random_encoder(model: Model, seed: int = 0) -> Encoder:
    """A network of the model's shape with random weights, in evaluation mode on the model's device."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(model.description, "the model")[0].to(model.device).eval()


def rows_of(
    functions: Mapping[str, ClipFunction], sides: Sides, apply: Apply
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, rows of the bank (b, D) and of the queries (n, D), one readout after the other."""
    for name, function in functions.items():
        bank, queries = apply(function, sides.bank), apply(function, sides.queries)
        if not (np.isfinite(bank).all() and np.isfinite(queries).all()):
            raise UserError(f"{name} of some clips are not finite: the training of this model diverged")
        yield name, bank, queries


def _has_tokens(encoder: Encoder) -> bool:
    """Whether an encoder tells of single joints."""
    with torch.no_grad():
        found = encoder.outputs(torch.ones_like(encoder.example(FRAMES)))
    tokens = found.get("tokens")
    return tokens is not None and tokens.dim() == 5 and tokens.shape[3] == encoder.layout.joint_count


def _by_joint(encoder: Encoder, preprocess: Preprocess) -> ClipFunction:
    def rows(joints: Tensor, lengths: Tensor) -> Tensor:
        x = preprocess(joints, lengths)
        there = present_bodies(x).to(x.dtype)
        by_joint = encoder.outputs(x)["tokens"].mean(dim=2).flatten(2)
        return (by_joint * there[..., None]).sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1)

    return rows
