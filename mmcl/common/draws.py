"""Random numbers that are a pure function of (run seed, epoch, clip, what they are for, position).

A generator with a state would make a draw depend on how many others came before it. Here every number is computed from
its own key, so that adding one use of randomness shifts no other, and the result depends neither on the number of
loader workers nor on how clips are spread over batches and processes. The mixing function is the finaliser of
SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014), on whole tensors.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_BITS = 2**64


def clip_keys(seed: int, epoch: int, clips: Sequence[int] | np.ndarray) -> np.ndarray:
    """(N,) int64, one key for each clip of an epoch of a run."""
    base = _word(f"{seed} {epoch}")
    return _mix(torch.as_tensor(np.asarray(clips, dtype=np.int64)) * _signed(_GOLDEN) + base).numpy()


def step_key(seed: int, step: int) -> Tensor:
    """(1,) int64, the key of one optimiser step of a run, for draws that all clips of the step share."""
    return torch.from_numpy(clip_keys(seed, -1, [step]))


def derived_keys(keys: Tensor, name: str) -> Tensor:
    """(N,) int64, other keys of the same clips, for a second set of everything that is drawn for a clip."""
    return _mix(keys + _word(name))


def uniform(keys: Tensor, name: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2**-24.

    Args:
        keys: (N,) int64 from :func:`clip_keys`, on any device.
        name: what the numbers are for. Two names give independent numbers.
        shape: of the numbers of one clip.

    Returns:
        (N, *shape) float32 on the device of the keys.
    """
    count = math.prod(shape)
    places = torch.arange(count, device=keys.device) * _signed(_GOLDEN)
    bits = _mix(_mix(keys + _word(name))[:, None] + places)
    return ((bits >> 40) & 0xFFFFFF).to(torch.float32).mul_(2.0**-24).view(len(keys), *shape)


def normal(keys: Tensor, name: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Standard normal numbers (N, *shape) float32, by the transform of Box and Muller; see :func:`uniform`."""
    first, second = uniform(keys, name, (2, *shape)).unbind(1)
    return torch.sqrt(-2.0 * torch.log1p(-first)) * torch.cos(2.0 * math.pi * second)


@dataclass(frozen=True)
class Draws:
    """The random numbers that some keys have under one name. Asked twice, they are the same.

    Attributes:
        keys: (N,) int64, of clips or of one step.
        name: what the numbers are for.
        shared: there is one key, and numbers come without the axis of keys.
    """

    keys: Tensor
    name: str
    shared: bool = False

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1): (N, *shape), or (*shape) where they are shared."""
        return self._own(uniform(self.keys, self.name, shape))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers: (N, *shape), or (*shape) where they are shared."""
        return self._own(normal(self.keys, self.name, shape))

    def order(self, count: int) -> Tensor:
        """Random permutations of ``count`` things: int64 (N, count), or (count,) where they are shared."""
        return self.uniform(count).argsort(dim=-1, stable=True)

    def _own(self, numbers: Tensor) -> Tensor:
        return numbers[0] if self.shared else numbers


def named_seed(seed: int, name: str) -> int:
    """A seed for a generator of one's own: a pure function of the run's seed and what it is for."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=7).digest(), "little")


def _signed(word: int) -> int:
    """The int64 with the same bits as an unsigned word of 64 bits."""
    word %= _BITS
    return word - _BITS if word >= _BITS // 2 else word


def _word(text: str) -> int:
    """A word of 64 bits for a text, as an int64."""
    return _signed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def _shifted(x: Tensor, places: int) -> Tensor:
    """Logical right shift of int64, which torch shifts arithmetically."""
    return (x >> places) & (2 ** (64 - places) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser; products wrap around, as those of int64 tensors do."""
    x = (x ^ _shifted(x, 30)) * _signed(_FIRST)
    x = (x ^ _shifted(x, 27)) * _signed(_SECOND)
    return x ^ _shifted(x, 31)
