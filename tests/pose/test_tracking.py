"""People keep their numbers: through a crossing, in any order, and through a second out of sight."""

from __future__ import annotations

import numpy as np
import pytest
from made_people import seen_from

from mmcl.data.readers.ntu_skeleton import parse
from mmcl.pose.base import Poses
from mmcl.pose.tracking import GAP, Tracker, distance, size

FPS = 30


def poses(*people: np.ndarray) -> Poses:
    pixels = np.stack(people).astype(np.float32)
    return Poses(pixels, np.full(pixels.shape[:2], 0.9, np.float32))


def follow(walks: list[np.ndarray], hidden: list[slice], seed: int = 0) -> list[list[int | None]]:
    """Numbers that each walker (T, V, 2) gets, frame by frame; people come in an order drawn anew for each frame."""
    rng, tracker, numbers = np.random.default_rng(seed), Tracker(), [[] for _ in walks]
    for frame in range(len(walks[0])):
        there = [who for who, away in enumerate(hidden) if not away.start <= frame < away.stop]
        rng.shuffle(there)
        said: dict[int, int] = {}
        if there:
            found, given = tracker.follow(frame / FPS, poses(*(walks[who][frame] for who in there)))
            assert len(found) == len(there)
            said = dict(zip(there, given, strict=True))
        else:
            tracker.follow(frame / FPS, Poses(np.zeros((0, 33, 2)), np.zeros((0, 33))))
        for who in range(len(walks)):
            numbers[who].append(said.get(who))
    return numbers


def walk(begin: float, end: float, depth: float, frames: int = 90, noise: float = 1.0, seed: int = 0) -> np.ndarray:
    """(T, V, 2) somebody who walks sideways, with the trembling of an estimator."""
    rng = np.random.default_rng(seed)
    across = np.linspace(begin, end, frames)
    return np.stack([seen_from((x, 0.0, depth))[0] + rng.normal(0, noise, (33, 2)) for x in across])


NEVER = slice(0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_two_who_cross_keep_their_numbers(seed) -> None:
    walks = [walk(-1.2, 1.2, 4.0, seed=seed), walk(1.2, -1.2, 4.3, seed=seed + 100)]
    numbers = follow(walks, [NEVER, NEVER], seed)
    assert len(set(numbers[0])) == len(set(numbers[1])) == 1 and numbers[0][0] != numbers[1][0]


@pytest.mark.parametrize("seed", range(5))
def test_the_one_behind_is_hidden_for_most_of_a_second_and_comes_back_as_the_same(seed) -> None:
    walks = [walk(-1.2, 1.2, 3.6, seed=seed), walk(1.2, -1.2, 4.3, seed=seed + 100)]
    hidden = slice(32, 59)  # 27 frames, 0.9 s
    numbers = follow(walks, [NEVER, hidden], seed)
    assert set(numbers[0]) == {numbers[0][0]}
    assert set(numbers[1]) == {numbers[1][0], None} and numbers[1][-1] == numbers[1][0] != numbers[0][0]


def test_who_comes_after_more_than_the_gap_is_somebody_new() -> None:
    standing = walk(0, 0, 4.0, frames=120)
    for frames, same in ((int(GAP * FPS) - 1, True), (int(GAP * FPS) + 2, False)):
        numbers = follow([standing], [slice(20, 20 + frames)])[0]
        assert (numbers[-1] == numbers[0]) is same


def test_somebody_else_far_away_does_not_take_over() -> None:
    tracker = Tracker()
    first, other = seen_from((-1.5, 0, 4))[0], seen_from((1.5, 0, 4))[0]
    assert tracker.follow(0.0, poses(first))[1] == [0]
    assert tracker.follow(0.1, poses(other))[1] == [1]
    assert tracker.follow(0.2, poses(other, first))[1] == [1, 0]


def test_one_who_is_found_twice_counts_once() -> None:
    one, two = seen_from((-0.5, 0, 4))[0], seen_from((0.5, 0, 4))[0]
    found = poses(one + 1, two, one)
    found.confidence[2] = 0.95
    tracker = Tracker()
    for frame in range(3):
        kept, numbers = tracker.follow(frame / FPS, found)
        np.testing.assert_array_equal(np.sort(kept.pixels[:, 0, 0]), np.sort(found.pixels[[1, 2], 0, 0]))
        assert sorted(numbers) == [0, 1]


def test_distance_and_size_leave_out_missing_joints() -> None:
    one, sure = np.array([[0.0, 0.0], [3.0, 4.0], [np.nan, np.nan]]), np.ones(3)
    other = np.array([[0.0, 1.0], [np.nan, np.nan], [9.0, 9.0]])
    assert size(one) == 5.0 and distance(one, sure, other, sure) == pytest.approx(1.0)
    assert distance(one, sure, np.full((3, 2), np.nan), sure) == np.inf


def test_two_real_people_cross(test_data) -> None:
    """The two bodies of an NTU recording, each moved across the picture and through the other."""
    file = test_data / "ntu" / "skeleton" / "S001C003P008R002A058.skeleton"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    _, tracks = parse(file.read_bytes())
    bodies = sorted(tracks, key=lambda track: -len(track.frames))[:2]
    common = np.intersect1d(bodies[0].frames, bodies[1].frames)
    assert len(common) > 30
    pixels = [body.pixels[np.isin(body.frames, common)].astype(float) for body in bodies]
    middles = [np.nanmean(points[..., 0]) for points in pixels]
    apart = middles[1] - middles[0]
    way = np.linspace(0, 1, len(common))[:, None]
    crossing = [pixels[0].copy(), pixels[1].copy()]
    crossing[0][..., 0] += apart * way  # each ends where the other began
    crossing[1][..., 0] -= apart * way
    hidden = slice(len(common) // 2 - 6, len(common) // 2 + 6)
    for away in (NEVER, hidden):
        numbers = follow(crossing, [NEVER, away])
        assert [set(given) - {None} for given in numbers] == [{numbers[0][0]}, {numbers[1][0]}]
        assert numbers[0][0] != numbers[1][0]
