"""What the branches read: joints, velocity, bones and acceleration, made of joints.

Each has 2 C channels. Smoothing is linear, so that it is one product with a matrix over frames; it equals
``scipy.signal.sosfiltfilt`` of ``scipy.signal.butter(8, 0.5)``, which a bundle cannot import.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.common.precision import exact_product
from mmcl.skeletons.layout import Layout

ORDER = 8  # of the Butterworth filter, whose cutoff is half the Nyquist frequency
PADDING = 27  # frames that scipy continues a sequence by on either side, at this order
ROOM = 1e-4  # released: added to the length of a bone, so that angles of one without length are right angles

Section = tuple[float, float]  # gain, and the second recursive coefficient


def butterworth_sections() -> list[Section]:
    """The filter as sections y[t] = gain (x[t] + 2 x[t-1] + x[t-2]) - a y[t-2], each (gain, a) with gain 1 at rest.

    At this cutoff the bilinear transform maps the pole p to (1 + p) / (1 - p), which is imaginary.
    """
    angles = np.pi * (1 + 2 * np.arange(ORDER // 2)) / (2 * ORDER)
    poles = -np.exp(1j * angles)
    recursive = np.abs((1 + poles) / (1 - poles)) ** 2
    return [(float((1 + a) / 4), float(a)) for a in recursive]


def _filter(x: np.ndarray, sections: list[Section]) -> np.ndarray:
    """Filter (T, columns) along T, from the state in which a sequence that always was its first row would be."""
    for gain, a in sections:
        x = gain * x
        before = after = x[0]  # the two rows before the first
        first = second = 4 * x[0] / (1 + a)
        y = np.empty_like(x)
        for t, row in enumerate(x):
            y[t] = row + 2 * before + after - a * second
            before, after, first, second = row, before, y[t], first
        x = y
    return x


@lru_cache(maxsize=8)
def smoothing_matrix(frames: int) -> np.ndarray:
    """(T, T) matrix that filters a sequence of T frames forwards and backwards; column t says where frame t goes.

    The sequence is continued on both sides by its point reflection at either end, as far as it goes.
    """
    padding = min(PADDING, frames - 1)
    x = np.eye(frames)
    left, right = 2 * x[:1] - x[padding:0:-1], 2 * x[-1:] - x[-2 : -padding - 2 : -1]
    x = np.concatenate([left, x, right]) if padding else x
    sections = butterworth_sections()
    y = _filter(_filter(x, sections)[::-1], sections)[::-1]
    return np.ascontiguousarray(y[padding : padding + frames])


@torch.compiler.assume_constant_result
def _smoothing(frames: int) -> Tensor:
    return torch.from_numpy(smoothing_matrix(frames).T.astype(np.float64))


def rooted_parents(layout: Layout) -> list[int]:
    """Parents of all joints towards the centre, which is its own."""
    near: dict[int, list[int]] = {joint: [] for joint in range(layout.joint_count)}
    for child, parent in layout.edges:
        near[child].append(parent)
        near[parent].append(child)
    parents = {layout.centre: layout.centre}
    queue = [layout.centre]
    for joint in queue:
        fresh = [other for other in near[joint] if other not in parents]
        parents.update(dict.fromkeys(fresh, joint))
        queue.extend(fresh)
    return [parents[joint] for joint in range(layout.joint_count)]


class InputFeatures(nn.Module):
    """Joints to the inputs of all branches.

    Args:
        layout: whose tree bones follow, towards its centre.
        names: of the inputs, in order.
        smooth: whether velocity is smoothed for acceleration.
        origin: joint that others are relative to; None takes the layout's centre.
    """

    parents: Tensor

    def __init__(self, layout: Layout, names: Sequence[str], smooth: bool, origin: int | None = None) -> None:
        super().__init__()
        self.names, self.smooth = tuple(names), smooth
        self.origin = layout.centre if origin is None else origin
        self.register_buffer("parents", torch.tensor(rooted_parents(layout)), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, M, T, V, C) -> (N * M, 2 C, V, T) for each input."""
        x = x.permute(0, 1, 4, 3, 2).flatten(0, 1)
        return [getattr(self, f"_{name}")(x).contiguous() for name in self.names]

    def _joint(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, 2 C, V, T), places, and places from the origin."""
        return torch.cat([x, x - x[:, :, self.origin, None]], dim=1)

    def _velocity(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, 2 C, V, T), differences to the next frame and, halved, to the one after."""
        return torch.cat([_ahead(x, 1), _ahead(x, 2) / 2], dim=1)

    def _bone(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, 2 C, V, T), vectors from parents, and their angles to the axes."""
        bones = x - x[:, :, self.parents]
        length = torch.linalg.vector_norm(bones, dim=1, keepdim=True) + ROOM
        return torch.cat([bones, torch.arccos(bones / length)], dim=1)

    def _acceleration(self, x: Tensor) -> Tensor:
        """(B, C, V, T) -> (B, 2 C, V, T), differences of velocity as of places."""
        velocity = self._velocity(x)
        if self.smooth:
            velocity = exact_product(velocity, _smoothing(x.shape[3]).to(x))
        near, far = velocity.chunk(2, dim=1)
        return torch.cat([_ahead(near, 1), _ahead(far, 2) / 2], dim=1)


def _ahead(x: Tensor, frames: int) -> Tensor:
    """Differences of (B, C, V, T) to some frames later; the last two frames, which lack them, are zeros."""
    T = x.shape[3]
    kept = max(0, T - 2)
    found = x[..., frames : frames + kept] - x[..., :kept]
    return torch.nn.functional.pad(found, (0, T - kept))
