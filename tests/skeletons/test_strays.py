"""Joints that are astray and bodies that leap: they are noticed, and bring no advice on anything else."""

from __future__ import annotations

import re

import numpy as np
import pytest
from test_believable import NAMELESS, T, kinds, person, said

from mmcl.skeletons.believable.strays import _quantile


@pytest.mark.parametrize("metres", [0.6, 1.0, 2.0])
@pytest.mark.parametrize("joints", [[11], [7], [7, 11], [15]])
def test_joints_that_are_far_off_in_every_frame_are_noticed(metres: float, joints: list[int]) -> None:
    clip = person()
    clip[:, :, joints] += np.float32(metres) * np.array([1, 0, 0], dtype=np.float32)
    if len(joints) == 1 or metres > 1.5:  # hands that are both longer by less may be a layout's
        assert kinds(clip) == ["outlier"] and kinds(1000 * clip) == ["scale", "outlier"]


@pytest.mark.parametrize("metres", [1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("share", [0.01, 0.03, 0.05, 0.1])
def test_joints_that_are_astray_at_random_bring_no_other_advice(metres: float, share: float) -> None:
    clip, rng = person(frames=60), np.random.default_rng(0)
    ways = rng.normal(size=clip.shape)
    ways *= metres / np.sqrt((ways**2).sum(axis=-1, keepdims=True))
    clip = np.where(rng.random(clip.shape[:3])[..., None] < share, clip + ways, clip)
    assert set(kinds(clip)) == {"outlier"} and set(kinds(clip, NAMELESS)) == {"outlier"}
    centred = (
        np.where(rng.random(clip.shape[:3])[..., None] < share, 0, person(frames=60)) - person(frames=60)[:, :, :1]
    )
    assert set(kinds(centred)) <= {"outlier", "placeholder"} and kinds(centred)


@pytest.mark.parametrize(("frames", "metres"), [(slice(20, 21), 1.3), (slice(20, 23), 1.5), (slice(20, None), 1.8)])
def test_bodies_that_leap_are_noticed(frames: slice, metres: float) -> None:
    clip = person()
    clip[:, frames, :, 0] += np.float32(metres)
    (words,) = said(clip)
    assert re.match(r"a body jumps by \d\.?\d* times its size \(frame 20\)", words)
    clip = person()
    clip[..., 0] += np.linspace(0, 6, T, dtype=np.float32)[:, None]  # who runs does not
    assert kinds(clip) == []


def test_quantiles_of_what_is_known_are_numpy_s() -> None:
    rng = np.random.default_rng(0)
    values, known = rng.normal(size=(40, 20, 3)), rng.random((40, 20)) > 0.4
    known[:, :3] = True
    for share in (0.5, 0.8):
        expected = np.nanquantile(np.where(known[..., None], values, np.nan), share, axis=1)
        np.testing.assert_allclose(_quantile(values, known, share), expected, rtol=1e-12, atol=1e-15)
