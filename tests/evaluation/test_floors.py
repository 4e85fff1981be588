"""Floors: equal to loops over clips, joints and frames, and told wherever a model or a store is judged."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from mmcl import check
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.store import open_store
from mmcl.evaluation import floors as room
from mmcl.evaluation.floors import CHANGES, FRAMES, RIDGE, kernel_ridge, measure_floors, nearest


def naive_row(joints: np.ndarray, centre: int) -> list[float]:
    """One body's 32 frames (T, V, 3): coordinates from the centre joint, then changes to the next frame."""
    T, V, C = joints.shape
    placed = [[[joints[t, v, c] - joints[t, centre, c] for c in range(C)] for v in range(V)] for t in range(T)]
    changed = [
        [[CHANGES * (placed[t + 1][v][c] - placed[t][v][c]) if t + 1 < T else 0.0 for c in range(C)] for v in range(V)]
        for t in range(T)
    ]
    return [value for stream in (placed, changed) for frame in stream for joint in frame for value in joint]


def naive_answers(bank: list[list[float]], labels: list[int], queries: list[list[float]]) -> tuple[list[int], ...]:
    """Answers by kernel ridge regression and by the nearest row."""

    def apart(a: list[float], b: list[float]) -> float:
        return float(((np.asarray(a) - np.asarray(b)) ** 2).sum())

    pairs = sorted(apart(a, b) for i, a in enumerate(bank) for j, b in enumerate(bank) if i != j)
    width = pairs[(len(pairs) - 1) // 2]
    kernel = [[math.exp(-apart(a, b) / width) for b in bank] for a in bank]
    classes = sorted(set(labels))
    inverse = np.linalg.inv(np.array(kernel) + RIDGE * np.eye(len(bank)))
    ridge, near = [], []
    for query in queries:
        seen = np.array([math.exp(-apart(query, row) / width) for row in bank])
        sums = [float(seen @ inverse @ np.array([float(label == one) for label in labels])) for one in classes]
        ridge.append(classes[sums.index(max(sums))])
        distances = [apart(query, row) for row in bank]
        near.append(labels[distances.index(min(distances))])
    return ridge, near


def test_closed_forms_equal_loops():
    draws = random.Random(0)
    labels = [number % 3 for number in range(12)]
    rows = [[draws.gauss(label, 1.5) for _ in range(5)] for label in labels]
    asked = [[draws.gauss(number % 3, 1.5) for _ in range(5)] for number in range(30)]
    bank, queries, known = torch.tensor(rows), torch.tensor(asked), torch.tensor(labels)
    ridge, near = naive_answers(bank.tolist(), labels, queries.tolist())
    assert kernel_ridge(bank, known, queries, 3).tolist() == ridge and nearest(bank, known, queries).tolist() == near
    assert ridge != near and ridge != [number % 3 for number in range(30)]  # they differ, and are no oracle


def test_floors_of_a_store_equal_loops_over_its_clips(demo_store):
    """Of clips with as many frames as a row has, no frame lies between two others."""
    store = open_store(demo_store)
    sides = split(store, load_protocol("demo/cross_subject"))
    cut = lambda clip: np.asarray(store.joints(clip))[0, :FRAMES].astype(float)  # noqa: E731

    class Cut(type(store)):  # type: ignore[misc]
        """The same clips, their first frames alone."""

        def numbers(self, index: int) -> np.ndarray:
            return np.asarray(store.numbers(index))[:1, :FRAMES]

    shorter = Cut(store.folder, store.info, store.index)
    shorter.bodies[:] = 1
    found = measure_floors(shorter, sides, sides.test)
    rows = {clip: naive_row(cut(clip), store.layout.centre) for clip in (*sides.train, *sides.test)}
    labels = sides.targets(store.labels[sides.train]).tolist()
    answers = naive_answers([rows[c] for c in sides.train], labels, [rows[c] for c in sides.test])
    truth = sides.targets(store.labels[sides.test])
    shares = [float((np.array(answer) == truth).mean()) for answer in answers]
    assert [found.kernel_ridge, found.nearest] == pytest.approx(shares) and 1 / 12 < shares[1] < 1
    assert (found.train, found.judged, found.drawn) == (len(sides.train), len(sides.test), False)


def test_a_large_side_is_thinned_out_and_says_so(demo_store, monkeypatch):
    store = open_store(demo_store)
    sides = split(store, load_protocol("demo/cross_subject"))
    monkeypatch.setattr(room, "MOST_CLIPS", 20)
    found = measure_floors(store, sides, sides.test)
    assert (found.train, found.judged, found.drawn) == (20, 20, True) and "20 and 20 clips drawn" in str(found)
    assert found == measure_floors(store, sides, sides.test)


def test_check_tells_them(demo_store, tmp_path, capsys):
    check.main([str(demo_store), "--out", str(tmp_path)])
    store = open_store(demo_store)
    sides = split(store, load_protocol("demo/cross_subject"))
    words = str(measure_floors(store, sides, sides.test))
    assert words in capsys.readouterr().out and words in (tmp_path / "check.md").read_text()
