"""Protocols split as published, never share a clip, and hold validation out of the training side."""

from __future__ import annotations

import pytest

from mmcl.data.protocols import load_protocol
from mmcl.data.splitting import split
from mmcl.data.store import open_store
from mmcl.errors import UserError


def test_cross_subject_splits_people(demo_store) -> None:
    store = open_store(demo_store)
    parts = split(store, load_protocol("demo/cross_subject"), {"subject": [3]})
    for clips, subjects in ((parts.train, {1}), (parts.validation, {3}), (parts.test, {2, 4})):
        assert set(store.subjects[clips]) == subjects
    together = [*parts.train, *parts.validation, *parts.test]
    assert sorted(together) == list(range(len(store)))


def test_utd_mhad_protocol_is_the_official_one() -> None:
    rule = load_protocol("utd_mhad/cross_subject")
    assert (list(rule.train["subject"]), list(rule.test["subject"])) == ([1, 3, 5, 7], [2, 4, 6, 8])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("demo/own: {dataset: demo, train: {subject: [1, 2]}, test: {subject: [2, 3]}}", "both train and test"),
        ("demo/own: {dataset: demo, train: {subject: [77]}, test: {subject: [2]}}", "no train clip"),
        ("demo/own: {dataset: ntu60, train: {subject: [1]}, test: {subject: [2]}}", "is for 'ntu60'"),
        ("demo/own: {dataset: demo, train: {weather: [1]}, test: {subject: [2]}}", "splits by"),
        ("demo/own: {dataset: demo, test: {subject: [2]}}", "needs dataset, train and test"),
        ("- 1", "expected `dataset/rule:`"),
        ("a: [", "not a YAML file"),
    ],
)
def test_own_protocols_and_their_mistakes(demo_store, tmp_path, text, complaint) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint):
        split(open_store(demo_store), load_protocol(str(path)))


def test_own_protocol_works(demo_store, tmp_path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("demo/own: {dataset: demo, train: {subject: [1], trial: [1]}, test: {subject: [4]}}")
    parts = split(open_store(demo_store), load_protocol(f"{path}:demo/own"))
    assert len(parts.train) == len(parts.test) == 12 and len(parts.validation) == 0


def test_validation_must_come_from_the_training_side(demo_store) -> None:
    with pytest.raises(UserError, match="no validation clip"):
        split(open_store(demo_store), load_protocol("demo/cross_subject"), {"subject": [2]})
    with pytest.raises(UserError, match="no attribute 'weather'"):
        split(open_store(demo_store), load_protocol("demo/cross_subject"), {"weather": [2]})
