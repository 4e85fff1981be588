"""From the clip store to padded batches. Only gathers: all tensor work is done later, on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch.utils.data import Dataset

from mmcl.common.draws import clip_keys
from mmcl.data.crops import decode
from mmcl.data.sampler import Key
from mmcl.data.split import outputs_of
from mmcl.data.store import ClipStore


@dataclass(frozen=True)
class Sample:
    """One clip on its way into a batch.

    Attributes:
        clip: position in the store.
        label: output of the model.
        joints: (M, T, V, C), see :meth:`mmcl.data.store.ClipStore.numbers`.
        key: of its random numbers, :func:`mmcl.common.draws.clip_keys`.
        images: its crops, where they are wanted.
        step: optimiser step that it is for, see :class:`mmcl.data.sampler.Key`.
    """

    clip: int
    label: int
    joints: np.ndarray
    key: int
    images: list[Image]
    step: int = 0


# Adds a task's own inputs (tower pixels, tokens, cached features) to a batch; runs in the loader's workers.
ExtraInputs = Callable[[Sequence[Sample]], dict[str, Any]]


class ClipDataset(Dataset[Sample]):
    """Clips of a store by :class:`mmcl.data.sampler.Key`.

    Args:
        store: the clips.
        seed: run seed; with the key it determines all that is drawn for a clip.
        images: also decode the stored person crops.
        classes: (K,) store labels of the model's outputs, ascending; sample labels count among them. All where None.
        shown_clip: (clips,) the clip whose pictures each clip gets; itself where None.

    Raises:
        ValueError: of a clip whose class is not among them, when it is asked for.
    """

    def __init__(
        self, store: ClipStore, seed: int = 0, images: bool = False, classes: np.ndarray | None = None,
        shown_clip: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.store, self.seed, self.images, self.shown_clip = store, seed, images, shown_clip
        self.classes = np.arange(len(store.class_names)) if classes is None else classes

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, key: Key | tuple[int, int]) -> Sample:
        epoch, clip, step = Key(*key)
        seen = clip if self.shown_clip is None else int(self.shown_clip[clip])
        return Sample(
            clip=clip,
            label=int(outputs_of(self.classes, self.store.labels[[clip]])[0]),
            joints=self.store.numbers(clip),
            key=int(clip_keys(self.seed, epoch, [clip])[0]),
            images=load_crops(self.store, seen) if self.images else [],
            step=step,
        )


def load_crops(store: ClipStore, clip: int) -> list[Image]:
    """The person crops of one clip as RGB pictures, in time order; empty where the clip has no video."""
    return [decode(jpeg) for jpeg in store.crops(clip)]


def collate(samples: Sequence[Sample], extras: ExtraInputs | None = None) -> dict[str, Any]:
    """Pad clips to a batch.

    Returns:
        joints (N, M, T, V, C) float32 padded with zeros to the longest clip and the most bodies, lengths (N,),
        labels (N,), keys (N,) of their random numbers, clips (N,) positions in the store, and whatever ``extras`` adds.
    """
    bodies = max(sample.joints.shape[0] for sample in samples)
    frames = max(sample.joints.shape[1] for sample in samples)
    joints = np.zeros((len(samples), bodies, frames, *samples[0].joints.shape[2:]), dtype=np.float32)
    for row, sample in zip(joints, samples, strict=True):
        row[: sample.joints.shape[0], : sample.joints.shape[1]] = sample.joints
    batch: dict[str, Any] = {
        "joints": torch.from_numpy(joints),
        "lengths": torch.tensor([sample.joints.shape[1] for sample in samples]),
        "labels": torch.tensor([sample.label for sample in samples]),
        "keys": torch.tensor([sample.key for sample in samples]),
        "clips": torch.tensor([sample.clip for sample in samples]),
    }
    return batch | extras(samples) if extras else batch


def plain_batches(clips: Iterable[int], size: int) -> list[list[Key]]:
    """Batches in the given order for evaluation: every clip once, the last batch as small as it comes."""
    keys = [Key(0, int(clip)) for clip in clips]
    return [keys[i : i + size] for i in range(0, len(keys), size)]


def to_device(value: Any, device: torch.device) -> Any:
    """Move every tensor in nested dicts and lists to a device, without waiting for the copy."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [to_device(item, device) for item in value]
    return value
