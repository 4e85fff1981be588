from __future__ import annotations

import numpy as np
import torch

from mmcl.common.draws import clip_keys, normal, step_key, uniform

WORD = 2**64


def splitmix_finaliser(x: int) -> int:
    """The published function, on Python's unbounded whole numbers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % WORD
    return x ^ (x >> 31)


def test_the_mixing_is_the_published_one() -> None:
    from mmcl.common.draws import _mix

    words = np.random.default_rng(0).integers(-(2**63), 2**63, 200)
    mixed = _mix(torch.from_numpy(words))
    assert [value % WORD for value in mixed.tolist()] == [splitmix_finaliser(int(word) % WORD) for word in words]


def test_a_number_depends_on_its_own_clip_alone() -> None:
    together = uniform(torch.from_numpy(clip_keys(3, 5, range(40))), "crop", (2,))
    alone = torch.cat([uniform(torch.from_numpy(clip_keys(3, 5, [clip])), "crop", (2,)) for clip in range(40)])
    assert torch.equal(together, alone)


def test_another_seed_epoch_clip_or_name_gives_other_numbers() -> None:
    draws = [
        uniform(torch.from_numpy(clip_keys(*key)), name)
        for key in ((0, 0, [0]), (1, 0, [0]), (0, 1, [0]), (0, 0, [1]))
        for name in ("crop", "flip")
    ]
    draws.append(uniform(step_key(0, 0), "crop"))
    assert len({float(value) for value in draws}) == len(draws)


def test_numbers_are_uniform_normal_and_independent() -> None:
    keys = torch.from_numpy(clip_keys(0, 0, range(2000)))
    numbers = uniform(keys, "a", (50,)).double()
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = torch.histc(numbers, 100, 0, 1)  # 1,000 expected in each; chi-squared of 99 degrees
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 160
    other = uniform(keys, "b", (50,)).double()
    for pair in ((numbers, other), (numbers[:, 1:], numbers[:, :-1]), (numbers[1:], numbers[:-1])):
        assert abs(float(torch.corrcoef(torch.stack([part.flatten() for part in pair]))[0, 1])) < 0.02
    bell = normal(keys, "c", (50,)).double()
    assert abs(float(bell.mean())) < 0.02 and abs(float(bell.var()) - 1) < 0.03
    assert abs(float((bell**4).mean()) - 3) < 0.15
