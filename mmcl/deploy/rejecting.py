"""What a bundle needs to say "none of these": a threshold, and the features of some training clips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.data.selection import Selection
from mmcl.deploy.graph_writing import evenly
from mmcl.deploy.known_clips import ClipFunction, applied, judged, sides_of
from mmcl.models.familiarity import Familiarity, directions
from mmcl.models.learned import known_clips
from mmcl.models.model import Model
from mmcl.models.record import tensors_digest
from mmcl.models.rejection import FAMILIARITY, Rejection, fit_rejection

MOST_OF_CLASS = 32  # training clips of a class whose features are kept


def rejection_of(
    model: Model, share: float, score: str = FAMILIARITY, data: str | None = None, protocol: str | None = None
) -> tuple[Rejection, Familiarity | None]:
    """The threshold for "none of these" of a model, set on the clips that its run held out of training.

    Args:
        model: on the CPU, in evaluation mode.
        share: of the right answers that may be rejected.
        score: that the threshold is of.
        data: clip store; the run's own where not given.
        protocol: whose held-out clips they are; the run's own where not given.

    Returns:
        The threshold, and what the model has to keep of its training clips for it; None where it goes by probability.

    Raises:
        UserError: nothing says which clips, none were held out, the model has learned from some of them, or too few
            are answered right.
    """
    store, sides, protocol = sides_of(model, data, protocol)
    held, data_of = sides.validation, Selection(store, protocol, split=sides)
    if not len(held):
        raise UserError(
            f"{model.path} held no clips out of training, and a threshold needs some: train with --data.validation, or "
            "name a protocol that holds some out (--protocol)"
        )
    if learned := known_clips(held, store, model.record)[0]:
        raise UserError(
            f"{model.path} has learned from {learned} of the {len(held)} clips that {protocol} holds out, and a "
            "threshold needs clips that are new to it: train with --data.validation"
        )
    familiarity = None
    if score == FAMILIARITY:
        familiarity = familiarity_of(model, data_of, lambda function, clips: applied(function, model, store, clips))
    judge = Model(model.description, model.encoder, model.preprocess, familiarity=familiarity)
    found = applied(lambda *clips: judged(judge, *clips), model, store, held).double()
    best = found[:, :-1].softmax(dim=-1).max(dim=-1)
    values = best.values if familiarity is None else found[:, -1]
    right = best.indices.numpy() == data_of.targets(held, model.class_names)
    digest = tensors_digest(model.encoder.state_dict())
    return fit_rejection(values.numpy(), right, f"{protocol} validation", digest, share, score), familiarity


def familiarity_of(
    model: Model, data: Selection, apply: Callable[[ClipFunction, np.ndarray], Tensor | np.ndarray]
) -> Familiarity:
    """What a model keeps of its training clips: of at most :data:`MOST_OF_CLASS` of each class, spread over all.

    Of a training side of which it has seen a part (a few clips a class, a share), that part counts alone.

    Args:
        model: in evaluation mode.
        data: whose training side it is.
        apply: runs a function of joints and lengths over clips.
    """
    train, trained = data.sides.train, model.record.trained
    if trained is not None and (own := trained.holds(data.store, train)).any():
        train = train[own]
    labels = data.store.labels[train]
    some = np.sort(np.concatenate([evenly(train[labels == label], MOST_OF_CLASS) for label in np.unique(labels)]))
    rows = torch.as_tensor(apply(lambda *clips: directions(model.features(*clips)), some))
    return Familiarity(rows, torch.from_numpy(data.targets(some, model.class_names)))
