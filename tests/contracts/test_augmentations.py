"""What every augmentation promises: it varies clips, by the clip's own random numbers, and brings no joint back."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from mmcl.common.draws import clip_keys
from mmcl.common.errors import UserError
from mmcl.skeletons import AUGMENTATIONS
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.augmentations.coordinates import Noise
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

LAYOUT, CLIPS, WINDOW = load_layout("kinect_v2_25"), 6, 12
HEAD = LAYOUT.joints.index("head")
NONE = Augmentation(crop_min=1.0, rotation=0.0)
normal = Noise.normal
pytestmark = pytest.mark.parametrize("name", AUGMENTATIONS)


def keys(epoch: int = 0, seed: int = 3) -> Tensor:
    return torch.from_numpy(clip_keys(seed, epoch, range(CLIPS)))


def clips() -> Tensor:
    """Two people each, whose heads never are there; a hand is missing for a while."""
    x = torch.randn(CLIPS, 2, 30, 25, 3, generator=torch.Generator().manual_seed(1)) + 3
    x[:, :, :, HEAD] = 0
    x[0, 0, 5:9, 11] = 0
    return x


def varied(augmentation: Augmentation, keys: Tensor, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Encoder input and mask of some of the clips."""
    preprocess = Preprocess(LAYOUT, LAYOUT, 2, PreprocessOptions(window=WINDOW, gaps="zero"))
    return preprocess.masked(clips()[rows], keys=keys[rows], augmentation=augmentation)


def own(name: str) -> Augmentation:
    """It alone."""
    return replace(NONE, **AUGMENTATIONS[name].example)


def test_it_varies_clips_by_seed_and_epoch_and_repeats_itself(name) -> None:
    still, first = varied(NONE, keys())[0], varied(own(name), keys())[0]
    assert torch.isfinite(first).all() and not torch.equal(first, still)
    assert torch.equal(first, varied(own(name), keys())[0])
    kind = AUGMENTATIONS[name](**AUGMENTATIONS[name].example)
    draws = [kind.uniform(one) for one in (keys(), keys(epoch=1), keys(seed=4))]
    assert all((draws[i] != draws[j]).all() for i, j in ((0, 1), (0, 2), (1, 2)))
    torch.manual_seed(0)  # nothing is drawn from torch's own generator
    state = torch.get_rng_state()
    varied(own(name), keys())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_clip_is_varied_alike_whatever_batch_and_process_it_is_in(name) -> None:
    whole, mask = varied(own(name), keys())
    for rows in (slice(0, 2), slice(3, 6), slice(1, 6, 2)):
        x, there = varied(own(name), keys(), rows)
        torch.testing.assert_close(x, whole[rows])
        assert torch.equal(there, mask[rows])


def test_a_joint_that_is_not_there_stays_away(name) -> None:
    x, mask = varied(own(name), keys())
    assert not mask[..., HEAD].any() and not x[~mask].any() and mask.any(dim=(2, 3)).all()


def test_it_shifts_no_other(name) -> None:
    """What another one draws does not depend on whether this one is on: only what it is applied to does."""
    draws = {one: AUGMENTATIONS[one](**AUGMENTATIONS[one].example).uniform(keys()) for one in AUGMENTATIONS}
    assert all((draws[name] != draws[one]).all() for one in AUGMENTATIONS if one != name)  # each has its own numbers
    both = replace(own(name), **{"noise": 0.05, **AUGMENTATIONS[name].example})
    seen: list[Tensor] = []
    with patch.object(Noise, "normal", lambda self, keys, shape=(): seen.append(normal(self, keys, shape)) or seen[-1]):
        for augmentation in (replace(NONE, noise=0.05), both):
            varied(augmentation, keys())
    assert torch.equal(*seen)


def test_values_that_cannot_be_are_refused(name) -> None:
    key = next(iter(AUGMENTATIONS[name].example))
    with pytest.raises(UserError, match=rf"augmentation\.{key} is .*: it must be"):
        replace(NONE, **{key: -1}).check()
