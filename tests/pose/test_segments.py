"""Labels of windows become segments: against frame-by-frame means written out, and files as players read them."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from mmcl.deploy.segments import NONE, TOGETHER, Segment, WindowLabel, join, to_csv, to_srt, windows

NAMES = ["wave", "jump", "sit"]


def label(begin: int, end: int, probabilities, person: int = 1, rejected: bool = False) -> WindowLabel:
    order = np.argsort(-np.array(probabilities), kind="stable")
    return WindowLabel(person, begin, end, [(int(k), NAMES[k], probabilities[k]) for k in order], rejected)


@pytest.mark.parametrize(
    ("frames", "span", "hop", "expected"),
    [
        (10, 4, 2, [(0, 4), (2, 6), (4, 8), (6, 10)]),
        (11, 4, 3, [(0, 4), (3, 7), (6, 10), (7, 11)]),
        (3, 4, 1, [(0, 3)]),
        (4, 4, 9, [(0, 4)]),
    ],
)
def test_windows_reach_to_the_end(frames, span, hop, expected) -> None:
    assert [(window.start, window.stop) for window in windows(frames, span, hop)] == expected


def test_a_frame_is_what_its_windows_say_in_the_mean() -> None:
    rng = np.random.default_rng(0)
    labels = [label(w.start, w.stop, rng.dirichlet([0.5, 0.5, 0.5]).tolist()) for w in windows(60, 16, 4)]
    there = np.ones(60, bool)
    there[20:24] = False
    found = join(labels, there, fps=10.0, start=1.0)
    called = np.full(60, -1)
    for each in found:
        assert each.person == 1 and not each.rejected
        begin, end = round((each.begin - 1) * 10), round((each.end - 1) * 10)
        called[begin:end] = each.ranking[0][0]
        assert sum(p for *_, p in each.ranking) == pytest.approx(1)
    for frame in range(60):
        told = [{k: p for k, _, p in one.ranking} for one in labels if one.begin <= frame < one.end]
        mean = [np.mean([row[k] for row in told]) for k in range(3)]
        assert called[frame] == (int(np.argmax(mean)) if there[frame] else -1)
    assert all(a.ranking[0][0] != b.ranking[0][0] or a.end < b.begin for a, b in zip(found, found[1:], strict=False))


def test_what_most_windows_reject_is_none_of_them() -> None:
    sure, unsure = [0.9, 0.05, 0.05], [0.4, 0.35, 0.25]
    labels = [label(0, 10, sure), label(5, 15, unsure, rejected=True), label(10, 20, unsure, rejected=True)]
    found = join(labels, np.ones(20, bool), fps=10.0)
    assert [(each.name, each.begin, each.end) for each in found] == [("wave", 0.0, 1.0), (NONE, 1.0, 2.0)]
    assert found[1].probability == pytest.approx(0.4)
    assert join([], np.ones(3, bool), 10.0) == []


def segment(person, begin, end, name, probability=0.9, rejected=False) -> Segment:
    return Segment(person, begin, end, [(NAMES.index(name), name, probability)], rejected)


def test_a_table_of_segments() -> None:
    rows = [("a,b.mp4", segment(1, 0, 1.5, "wave")), ("c.mp4", segment(TOGETHER, 1, 2, "sit", 0.3, rejected=True))]
    found = list(csv.DictReader(io.StringIO(to_csv(rows))))
    times = {"begin": "0.000", "end": "1.500"}
    named = {"label": "0", "name": "wave", "probability": "0.9000"}
    assert found[0] == {"file": "a,b.mp4", "person": "1", **times, **named}
    assert (found[1]["person"], found[1]["label"], found[1]["name"]) == ("all", "-1", NONE)


def test_subtitles_have_a_cue_wherever_a_label_changes() -> None:
    text = to_srt([segment(1, 0, 2, "wave"), segment(2, 1, 3, "sit", 0.5), segment(1, 3725.5, 3726, "jump")])
    assert text == (
        "1\n00:00:00,000 --> 00:00:01,000\nperson 1: wave 90%\n\n"
        "2\n00:00:01,000 --> 00:00:02,000\nperson 1: wave 90%\nperson 2: sit 50%\n\n"
        "3\n00:00:02,000 --> 00:00:03,000\nperson 2: sit 50%\n\n"
        "4\n01:02:05,500 --> 01:02:06,000\nperson 1: jump 90%\n"
    )
    assert to_srt([segment(1, 0, 1, "wave")]) == "1\n00:00:00,000 --> 00:00:01,000\nwave 90%\n" and to_srt([]) == ""
