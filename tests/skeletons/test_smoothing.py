"""Input smoothing against a loop over frames."""

from __future__ import annotations

import math

import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.skeletons.smoothing import smooth


def test_smoothing_is_a_weighted_mean_of_the_frames_that_show_a_joint() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, 3, 12, 4, dtype=torch.float64, generator=generator)
    mask = torch.rand(2, 1, 12, 4, generator=generator) < 0.7
    x = x * mask[:, :, None]
    found = smooth(x, mask, 1.5)
    for clip in range(2):
        for joint in range(4):
            for frame in range(12):
                if not mask[clip, 0, frame, joint]:
                    assert not found[clip, 0, :, frame, joint].any()
                    continue
                near = [t for t in range(12) if abs(t - frame) <= 5 and mask[clip, 0, t, joint]]
                weights = [math.exp(-0.5 * ((t - frame) / 1.5) ** 2) for t in near]
                mean = sum(w * x[clip, 0, :, t, joint] for w, t in zip(weights, near, strict=True)) / sum(weights)
                torch.testing.assert_close(found[clip, 0, :, frame, joint], mean)
    assert smooth(x, mask, 0.0) is x


@pytest.mark.parametrize("value", [-1.0, 51.0, "much", float("nan")])
def test_smoothing_out_of_range_is_refused(value: object) -> None:
    with pytest.raises(UserError, match="smoothing"):
        PreprocessOptions(smoothing=value)
