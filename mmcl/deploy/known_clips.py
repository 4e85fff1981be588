"""The clips that a model may know when something is fitted to it or compared with it: never those of the test side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.data.split import Split
from mmcl.data.store import ClipStore
from mmcl.deploy.graph_writing import MOST_COMPARED, GraphClips, evenly
from mmcl.models.bundle import load_bundle
from mmcl.models.model import Model
from mmcl.models.rejection import read_rejection

ClipFunction = Callable[[Tensor, Tensor], Tensor]  # (joints (N, M, T, V, C), lengths (N,)) -> (N, …)


def sides_of(model: Model, data: str | None, protocol: str | None) -> tuple[ClipStore, Split, str]:
    """Store, split and protocol of the clips that a model was trained on, or of those named."""
    from mmcl.data.apply_protocol import split
    from mmcl.data.protocols import load_protocol
    from mmcl.data.store import open_store

    own = model.description.provenance
    data, protocol = data or own.get("data"), protocol or own.get("protocol")
    if data is None or protocol is None:
        raise UserError(f"{model.path} does not say where its clips are: this needs some, give --data and --protocol")
    store = open_store(data)
    return store, split(store, load_protocol(protocol), own.get("validation") or None, needed=["train"]), protocol


def applied(function: ClipFunction, model: Model, store: ClipStore, clips: np.ndarray) -> Tensor:
    """A function of joints as a model takes them, and of lengths, over clips of a store: (n, …), with a bar."""
    from mmcl.engine.scoring import score_clips
    from mmcl.models.graph_model import in_layout

    columns = model.preprocess.columns

    def run(joints: Tensor, lengths: Tensor) -> Tensor:
        return function(in_layout(joints, store.layout, model.layout, columns), lengths)

    return torch.from_numpy(score_clips(run, store, clips, torch.device("cpu"), progress=True))


def graph_clips(folder: Path, model: Model, data: str | None = None, protocol: str | None = None) -> GraphClips:
    """The clips that graphs are calibrated on and compared with the network on: never those of the test side.

    Args:
        folder: of the bundle that the graphs belong to.
        model: the same in memory, which says which clips it was trained on.
        data: clip store; the run's own where not given.
        protocol: whose training side it is; the run's own where not given.

    Raises:
        UserError: nothing says which clips, or they have other joints than the bundle takes.
    """
    return compared_clips(load_bundle(folder), *sides_of(model, data, protocol))


def compared_clips(
    model: Model, store: ClipStore, sides: Split, protocol: str, most: int = MOST_COMPARED
) -> GraphClips:  # fmt: skip
    """Validation clips where some are held out, else training clips, with what the network says of them.

    Args:
        model: the network.
        store: the clips; they are converted to the joints that the model takes.
        sides: of the clips; those of the test side are not looked at.
        protocol: its name, for people.
        most: clips that are compared, spread over all.
    """
    from mmcl.models.graph_model import in_layout

    side, columns = "validation" if len(sides.validation) else "train", model.preprocess.columns

    def read(clip: int) -> Tensor:
        return in_layout(torch.from_numpy(store.numbers(clip).copy())[None], store.layout, model.layout, columns)

    compared = evenly(getattr(sides, side), most)
    found = applied(lambda *clips: judged(model, *clips), model, store, compared)
    return GraphClips(
        read=lambda clip: read(clip).numpy(), calibration=sides.train, compared=compared,
        reference=found[:, :-1].softmax(dim=-1).numpy(), side=f"{protocol} {side}",
        familiarity=None if model.familiarity is None else found[:, -1].numpy(),
        rule=read_rejection(model.description.rejection, str(model.path)),
    )  # fmt: skip


def judged(model: Model, joints: Tensor, lengths: Tensor) -> Tensor:
    """(N, K + 1) scores of clips and, behind them, their familiarity; 1 where the model does not say."""
    scores, familiarity = model.judge(joints, lengths)
    last = scores.new_ones(len(scores)) if familiarity is None else familiarity
    return torch.cat([scores, last[:, None]], dim=1)
