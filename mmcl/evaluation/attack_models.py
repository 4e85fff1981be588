"""Models that take part in an attack: what they say of the clean clips, and what stands before them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.files import absolute
from mmcl.data.selection import Selection
from mmcl.data.store import ClipStore
from mmcl.evaluation.attack_tables import ARROW, SMOOTHED
from mmcl.evaluation.base import Apply
from mmcl.evaluation.robustness_options import RobustnessOptions
from mmcl.models.model import Model
from mmcl.skeletons.preprocess import Preprocess

NO_GRADIENTS = "ONNX graphs alone have no gradients to attack: take the bundle with its weights, or the run"


@dataclass(frozen=True)
class Participant:
    """One of the models, with what it says of the clean clips.

    Attributes:
        model: itself.
        labels: (n,) outputs that are right.
        right: (n,) bool, whether it gives them.
    """

    model: Model
    labels: np.ndarray
    right: np.ndarray


def judge_clean(model: Model, data: Selection, clips: np.ndarray, apply: Apply) -> Participant:
    """What a model says of the clean clips.

    Raises:
        UserError: it has not the classes of the protocol, no gradients, or answers nothing right.
    """
    if not isinstance(model, Model):
        raise UserError(NO_GRADIENTS)
    labels = data.targets(clips, model.class_names)
    right = apply(model, clips).argmax(axis=1) == labels
    if not right.any():
        raise UserError(f"{model.path} answers none of the {len(clips)} clips right: there is nothing to attack")
    return Participant(model, labels, right)


def defended(model: Model, deviation: float) -> Model:
    """The same model behind input smoothing, which attacks on it go through."""
    before = model.preprocess
    options = replace(before.options, smoothing=deviation)
    preprocess = Preprocess(before.source, before.target, before.persons, options).to(model.device)
    plain = {**model.description.preprocess, "smoothing": deviation}
    return Model(model.description.changed(preprocess=plain), model.encoder, preprocess, model.vocabulary, model.path)


def frame_shape(store: ClipStore, clips: np.ndarray) -> tuple[int, ...]:
    """(M, T, V, C) that holds each of some clips."""
    shapes = np.array([store.numbers(int(clip)).shape for clip in clips])
    return tuple(int(size) for size in shapes.max(axis=0))


def padded(joints: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Clips (N, …) with zeros behind them up to a shape, as rows (N, numbers)."""
    whole = joints.new_zeros(len(joints), *shape)
    M, T = joints.shape[1:3]
    whole[:, :M, :T] = joints
    return whole.flatten(1)


def wanted_classes(model: Model, seed: int) -> Tensor:
    """(K,) the class that is asked for in place of each: a random one, and never the class itself."""
    count = len(model.class_names)
    names = np.argsort(np.argsort(model.class_names))  # by name: the same in models with another order
    shift = 1 + np.random.default_rng(seed).integers(count - 1) if count > 1 else 0
    return torch.from_numpy(np.argsort(names)[(names + shift) % count])


def wanted_of(source: Participant, target: Participant, seed: int) -> np.ndarray:
    """(n,) outputs of a target that stand for the classes asked of a surrogate."""
    asked = wanted_classes(source.model, seed).numpy()[source.labels]
    return np.array([target.model.class_names.index(source.model.class_names[output]) for output in asked])


def models_by_name(options: RobustnessOptions, model: Model, data: Selection) -> dict[str, list[Model]]:
    """All models by name, seeds of one thing together, the one that is judged first."""
    from mmcl.models.folder import open_model

    def opened(folder: str) -> Model:
        return open_model(folder, layout=data.store.layout, device=model.device)

    own = options.name or (model.path.name if model.path is not None else "model")
    if ARROW in own or SMOOTHED in own:
        raise UserError(f"the model attacked cannot be called '{own}' in a report: give another --name")
    groups = {own: [model, *(opened(folder) for folder in options.seeds)]}
    for name, folders in options.models.items():
        if name in groups or ARROW in name or SMOOTHED in name:
            raise UserError(f"'{name}' is the name of another model here, or cannot be one: write NAME=FOLDER")
        groups[name] = [opened(folder) for folder in ([folders] if isinstance(folders, str) else folders)]
    for name, models in groups.items():
        paths = [absolute(one.path) for one in models if one.path is not None]
        if len({*paths}) < len(paths):
            raise UserError(f"'{name}' holds a model twice, which are no two seeds: {', '.join(map(str, paths))}")
    for deviation in options.smoothing:
        groups |= {f"{name}{SMOOTHED}{deviation:g}": [defended(one, deviation) for one in members]
                   for name, members in groups.items() if SMOOTHED not in name}  # fmt: skip
    return groups
