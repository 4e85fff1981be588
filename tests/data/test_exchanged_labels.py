"""Labels that look exchanged are found, whatever else is wrong; by answers that are those of a loop over people."""

from __future__ import annotations

from pathlib import Path

import made_stores
import numpy as np
import pytest

from mmcl.data.inspection.checks import check
from mmcl.data.inspection.findings import WARN, Report
from mmcl.data.store import ClipStore
from mmcl.evaluation.exchanged_labels import CHECK, answers_of_others, exchanged, look_for_exchanged_labels
from mmcl.evaluation.floors import RIDGE, raw_rows

CLASSES, PEOPLE, TAKES = 5, 4, 3


def store_of(folder: Path, given: dict[int, dict[int, int]], people: int = PEOPLE) -> ClipStore:
    """Each class raises another joint. `given`: person -> class -> the label that its takes have in the place of it."""

    def make(number: int, *sizes: int) -> dict[str, object]:
        row = made_stores.row(number, *sizes)
        take, person = number // CLASSES % TAKES, number // (CLASSES * TAKES) % people + 1 if people else 0
        shown, frames = number % CLASSES, sizes[0]
        joints = np.random.default_rng(number).normal(0, 0.03, (1, frames, 25, 3)).astype(np.float32) + person / 50
        joints[0, :, 4 + 4 * shown, 1] += np.linspace(0, 1 + take / 10, frames)
        label = given.get(person, {}).get(shown, shown)
        return row | {"label": label, "subject": person, "joints": joints.reshape(-1)}

    return made_stores.write_store(folder, CLASSES * TAKES * max(people, 1), make=make)


def looked_over(store: ClipStore) -> Report:
    report = Report(store, [], {})
    look_for_exchanged_labels(report)
    return report


def test_exchanged_takes_are_named_and_other_mistakes_are_not(tmp_path: Path) -> None:
    """Person 2's takes of the second and fourth class are exchanged; person 3's of the first are called the fifth."""
    store = store_of(tmp_path, {2: {1: 3, 3: 1}, 3: {0: 4}})
    (finding,) = looked_over(store).findings
    assert finding.level == WARN and "(b and d of subject 2)" in finding.what and finding.count == 2 * TAKES
    clips = [number for number in range(len(store)) if store.subjects[number] == 2 and number % CLASSES in (1, 3)]
    assert finding.names == [store.ids[number] for number in clips]


def test_right_labels_pass(tmp_path: Path) -> None:
    report = looked_over(store_of(tmp_path, {}))
    assert not report.findings and CHECK in report.passed


def test_two_takes_are_too_few_and_a_take_of_five_may_be_answered_otherwise(tmp_path: Path) -> None:
    store = store_of(tmp_path, {})
    labels = store.labels
    answers = labels.copy()
    session = np.flatnonzero(store.subjects == 1)
    for one, other in ((0, 1), (1, 0)):
        answers[session[labels[session] == one]] = other
    assert [words for words, _ in exchanged(store, answers)] == ["a and b of subject 1"]
    spared = answers.copy()
    spared[session[labels[session] == 0][0]] = 0  # two of three are fewer than 80 %
    assert not list(exchanged(store, spared))
    store.subjects[session[labels[session] == 0][0]] = 9  # two takes are left
    assert not list(exchanged(store, answers))


def test_answers_are_those_of_a_loop_over_people(tmp_path: Path) -> None:
    store = store_of(tmp_path, {2: {1: 3, 3: 1}})
    rows = raw_rows(store, np.arange(len(store))).double().numpy()
    apart = np.array([[((a - b) ** 2).sum() for b in rows] for a in rows])
    pairs = np.sort(apart[~np.eye(len(rows), dtype=bool)])
    kernel = np.exp(-apart / pairs[(len(pairs) - 1) // 2])
    expected = np.empty(len(rows), dtype=int)
    for person in range(1, PEOPLE + 1):
        mine, others = (np.flatnonzero((store.subjects == person) == same) for same in (True, False))
        targets = np.eye(CLASSES)[store.labels[others]]
        weights = np.linalg.solve(kernel[np.ix_(others, others)] + RIDGE * np.eye(len(others)), targets)
        expected[mine] = (kernel[np.ix_(mine, others)] @ weights).argmax(axis=1)
    assert (answers_of_others(store) == expected).all()


@pytest.mark.parametrize("people", [0, 1])
def test_without_other_people_it_is_said(tmp_path: Path, people: int) -> None:
    report = looked_over(store_of(tmp_path, {}, people))
    assert not report.findings and any(CHECK in line and "one person" in line for line in report.unchecked)


def test_found_lines_keep_their_place_among_others(tmp_path: Path) -> None:
    store = store_of(tmp_path, {2: {1: 3, 3: 1}})
    report = check(store, progress=False)
    look_for_exchanged_labels(report)
    report.sort()
    ranks = [("BAD", "WARN", "NOTE").index(finding.level) for finding in report.findings]
    assert ranks == sorted(ranks) and any("exchanged" in finding.what for finding in report.findings)
