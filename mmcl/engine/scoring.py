"""Scores of clips: the skeleton branch over a list of clips, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmcl.common.distributed import purpose
from mmcl.common.precision import widen
from mmcl.data.dataset import ClipDataset, plain_batches, to_device
from mmcl.data.loader import loader
from mmcl.data.store import ClipStore

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mmcl.engine.config import DataOptions

ScoreFunction = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def score_clips(
    scores: ScoreFunction,
    store: ClipStore,
    clips: Sequence[int] | np.ndarray,
    device: torch.device,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = False,
) -> np.ndarray:
    """Class scores of clips.

    Args:
        scores: (joints (N, M, T, V, C), lengths (N,)) -> (N, K); a task's or a bundle's, in eval mode.
        store: the clips.
        clips: positions in the store.
        device: where ``scores`` runs.
        batch_size: clips at once.
        workers: loader processes.
        progress: show a bar.

    Returns:
        (len(clips), K) in the order of ``clips``, float32 where ``scores`` gave anything narrower.
    """
    batches = loader(ClipDataset(store), plain_batches(clips, batch_size), workers)
    rows = []
    for batch in tqdm(batches, desc="scoring", unit="batch", disable=not progress, leave=False):
        batch = to_device(batch, device)
        rows.append(_exact(scores(batch["joints"], batch["lengths"])).cpu().numpy())
    return np.concatenate(rows)


def _exact(values: Tensor) -> Tensor:
    """What NumPy knows of a result: it has no bfloat16."""
    return widen(values) if values.is_floating_point() else values


def score_together(
    scores: ScoreFunction, store: ClipStore, clips: np.ndarray, accelerator: Accelerator, options: DataOptions
) -> np.ndarray:  # fmt: skip
    """What :func:`score_clips` gives, shared by all processes; collective.

    Args:
        scores: see there.
        store: the clips.
        clips: positions in the store, at least one.
        accelerator: the processes.
        options: how many clips at once, and how they are loaded.

    Returns:
        (clips, ...), the same on all processes.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    padded = np.concatenate([clips, clips[-1:].repeat(-len(clips) % world)])
    # A stretch each, so that of a store behind a URL nobody fetches everything.
    own = padded.reshape(world, -1)[rank]
    mine = score_clips(scores, store, own, accelerator.device, options.eval_batch_size, options.workers)
    with purpose("validation"):
        everyone = accelerator.gather(torch.from_numpy(mine).to(accelerator.device)).cpu().numpy()
    return np.asarray(everyone[: len(clips)])
