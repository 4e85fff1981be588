"""From clips to the objects that relations are about: windows of frames, and joints or frames of each window.

Frames without anybody at the end of a clip are padding (``timing: pad``); a clip ends with its last frame that is not
all zeros.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.skeletons.layout import Layout

SCALE = 10.0  # released: numbers of joints and parts are divided by it
PARTS = ("torso", "left_arm", "right_arm", "left_leg", "right_leg")  # in the order of the released numbers


class Windows(NamedTuple):
    """Windows of a batch of clips.

    Attributes:
        frames: (N, L, T, M, J, C), zeros in windows that a clip lacks.
        real: (N, L), True for windows that a clip has; they come first, and every clip has at least one.
    """

    frames: Tensor
    real: Tensor


def clip_lengths(x: Tensor) -> Tensor:
    """(N, M, T, V, C) -> (N,), frames of each clip without those at its end that are all zeros."""
    there = (x != 0).flatten(3).any(dim=3).any(dim=1)
    return (there * torch.arange(1, x.shape[2] + 1, device=x.device)).amax(dim=1)


def central_window(x: Tensor, frames: int) -> Windows:
    """The T frames in the middle of each clip, between zeros where there are fewer.

    Args:
        x: (N, M, frames that came, J, C).
        frames: T.
    """
    start = clip_lengths(x) // 2 - frames // 2
    place = start[:, None, None] + torch.arange(frames, device=x.device)
    return Windows(_take(x, place), torch.ones_like(start, dtype=torch.bool)[:, None])


def sliding_windows(x: Tensor, frames: int, step: int, most: int, released: bool = False) -> Windows:
    """Windows of T frames, one every few frames, that lie inside a clip; a shorter clip lies between zeros.

    As released, these are as many on either side, so that T + 1 frames come of a shortfall that is odd: one window, and
    a second one where windows begin at every frame (``step`` 1) and L allows it.

    Args:
        x: (N, M, frames that came, J, C).
        frames: T.
        step: from the first frame of a window to that of the next.
        most: L, the first of more windows are kept; 0 takes as many as the frames that came allow.
        released: let 0 take the released number instead, which is that of the steps in the frames that came.
    """
    if not most:
        most = max(1, x.shape[2] // step) if released else max(0, x.shape[2] - frames) // step + 1
    length = clip_lengths(x)
    before = ((frames - length).clamp(min=0) + 1) // 2
    count = (length + 2 * before - frames) // step + 1
    number = torch.arange(most, device=x.device)
    real = number < count[:, None]
    place = number[:, None] * step + torch.arange(frames, device=x.device) - before[:, None, None]
    return Windows(_take(x, torch.where(real[:, :, None], place, -1)), real)


def _take(x: Tensor, place: Tensor) -> Tensor:
    """Frames (N, L, T, M, J, C) of (N, M, frames, J, C) at (N, L, T) places, zeros where there is no such frame."""
    clip = torch.arange(x.shape[0], device=x.device)[:, None, None]
    there = (place >= 0) & (place < x.shape[2])
    found = x.transpose(1, 2)[clip, place.clamp(0, x.shape[2] - 1)]
    return found * there[..., None, None, None]


def arrange(stream: str, windows: Windows, identity: Tensor | None) -> Tensor:
    """Objects (N, L, n, D) of a stream.

    Args:
        stream: joint: J objects of (frame, person, coordinate); temporal: T objects of (joint, person, coordinate);
            others: M * J objects of (frame, coordinate), person by person.
        windows: see :class:`Windows`.
        identity: (n, 2), appended to the objects of the others, but not in windows that a clip lacks.
    """
    x = windows.frames
    if stream == "joint":
        return x.permute(0, 1, 4, 2, 3, 5).flatten(3)
    if stream == "temporal":
        return x.transpose(3, 4).flatten(3)
    objects = x.permute(0, 1, 3, 4, 2, 5).flatten(2, 3).flatten(3)
    if identity is None:
        return objects
    return torch.cat([objects, identity * windows.real[:, :, None, None]], dim=-1)


def joint_identity(layout: Layout, joints: list[int], persons: int, released: bool) -> Tensor:
    """(M * J, 2): number of each joint among those used, and of its body part.

    Args:
        layout: whose parts are numbered: torso, arms, legs, then any others.
        joints: J indices of those used.
        persons: M.
        released: take the parts of the layout's first J joints, whichever are used.
    """
    names = [name for name in PARTS if name in layout.parts] + [name for name in layout.parts if name not in PARTS]
    part = {joint: number for number, name in enumerate(names) for joint in layout.parts[name]}
    sources = range(len(joints)) if released else joints
    rows = [[number, part.get(joint, len(names))] for number, joint in enumerate(sources)]
    return torch.tensor(rows, dtype=torch.float32).div(SCALE).repeat(persons, 1)


def find_joints(layout: Layout, names: tuple[str, ...]) -> list[int]:
    """Positions of the joints of these names, of all where there are none.

    Raises:
        UserError: the layout lacks one, or they are too few.
    """
    if unknown := [name for name in names if name not in layout.joints]:
        raise UserError(f"arn_lstm.joints names {', '.join(unknown)}, which the layout {layout.name} does not have")
    joints = [place for place, name in enumerate(layout.joints) if not names or name in names]
    if len(joints) < 2:
        raise UserError(f"arn_lstm relates joints to each other: {len(joints)} is too few")
    return joints
