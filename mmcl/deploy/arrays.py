"""Clips that come as arrays: mended and looked at by the same rules as files, and every kind of thing is said once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import BadClip, UserError
from mmcl.deploy.files import Reading
from mmcl.deploy.given_arrays import check_order, check_shape, sound
from mmcl.deploy.looking import Looker
from mmcl.models.description import Description
from mmcl.skeletons.layout import Layout

SPREAD = 8  # clips of a call on a GPU that are looked at first, evenly spread


class ArrayCheck:
    """What a model that was loaded with :func:`mmcl.load` does with clips before it computes anything.

    Looking at a clip takes about a millisecond of a processor. Of a batch on a GPU, which would be done in that time,
    some clips are looked at first, and the others only where there is something to be said of these.

    Args:
        description: of the model.
        layout: of the joints that it is shown.
        strict: refuse what is hard to believe instead of warning.
    """

    def __init__(self, description: Description, layout: Layout, strict: bool = False) -> None:
        reading = Reading(strict=strict, planar=description.planar, takes=description.columns)
        self.reading, self.layout, self.looker = reading, layout, Looker(reading)

    def __call__(self, joints: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Clips as they should be read; those in which nothing had to be mended are the same to the bit.

        Args:
            joints: (N, M, T, V, C), which :func:`mmcl.models.clip_checks.check_clips` found good.
            lengths: (N,), or None.

        Returns:
            joints and lengths; the shape of the joints stays.

        Raises:
            UserError: another order of axes, coordinates that are far too large, confidences that are none, a clip that
                is hard to believe and to be refused then, or nobody is left in it.
        """
        shown = joints.detach().nan_to_num().ne(0).flatten(2).any(dim=2).sum(dim=1)
        check_shape(joints.shape[1:], self.reading.planar, int(shown.max()) if len(shown) else 0)
        clips = joints.detach().float().cpu().numpy()
        ends = [clips.shape[2]] * len(clips) if lengths is None else lengths.tolist()
        first: list[int] = list(range(len(clips)))
        if not (quick(joints) or self.reading.strict or len(clips) <= SPREAD):
            first = np.linspace(0, len(clips) - 1, SPREAD).astype(int).tolist()
        mended = {number: self._mended(clips[number, :, : ends[number]], number, len(clips)) for number in first}
        if len(first) < len(clips) and any(said or new is not None for new, said in mended.values()):
            rest = [number for number in range(len(clips)) if number not in mended]
            mended |= {number: self._mended(clips[number, :, : ends[number]], number, len(clips)) for number in rest}
        changed = {number: new for number, (new, _) in mended.items() if new is not None}
        return (joints, lengths) if not changed else _replaced(joints, ends, changed)

    def _mended(self, clip: np.ndarray, number: int, count: int) -> tuple[np.ndarray | None, bool]:
        """A clip (M, T, V, C) mended, None where that changes nothing, and whether there was something to be said."""
        where = f"clip {number} of {count}" if count > 1 else "the clip"
        check_order(clip, self.layout, self.reading.planar)
        try:
            taken = sound(clip, self.reading.takes)
        except BadClip as error:
            raise UserError(f"{where}: {error}") from error
        found, remarks = self.looker(taken, self.layout, where)
        if not found.any():
            raise UserError(f"{where} has nobody in it: every joint is missing or taken for missing")
        same = found.shape == taken.shape and np.array_equal(found, taken)
        return None if same else found, bool(remarks)


def quick(joints: Tensor) -> bool:
    """Whether looking at clips is quick beside what is computed of them: on a processor, and not on a GPU."""
    return joints.device.type == "cpu"


def _replaced(joints: Tensor, ends: list[int], changed: dict[int, np.ndarray]) -> tuple[Tensor, Tensor]:
    """Joints (N, M, T, V, C) with other clips (M', T', V, C') in their places, and the lengths."""
    columns = max(joints.shape[-1], *(clip.shape[-1] for clip in changed.values()))
    made = joints.new_zeros(*joints.shape[:-1], columns)
    made[..., : joints.shape[-1]] = joints
    if columns == 4 and joints.shape[-1] < columns:
        made[..., 3] = (made[..., :3] != 0).any(dim=-1)  # nobody said otherwise: what is there is sure
    for number, clip in changed.items():
        persons, frames, _, width = clip.shape
        made[number] = 0
        made[number, :persons, :frames, :, :width] = torch.from_numpy(np.ascontiguousarray(clip)).to(made)
        ends[number] = frames
    return made, torch.tensor(ends, device=joints.device)
