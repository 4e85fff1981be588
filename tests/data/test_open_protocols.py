"""Open-vocabulary protocols: published class lists, and what is withheld from whom."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import divide_classes, split
from mmcl.data.protocols import load_protocol, protocol_names
from mmcl.data.split import outputs_of
from mmcl.data.store import ClipStore, open_store

# SynSE's and SMIE's lists as the literature gives them, labels from 0.
PUBLISHED = {
    "synse/ntu60_55_5": ({10, 11, 19, 26, 56}, 60),
    "synse/ntu60_48_12": ({3, 5, 9, 12, 15, 40, 42, 47, 51, 56, 58, 59}, 60),
    "synse/ntu120_110_10": ({4, 13, 37, 43, 49, 65, 88, 95, 99, 106}, 120),
    "synse/ntu120_96_24": (
        {5, 9, 11, 16, 18, 20, 22, 29, 35, 39, 45, 49, 59, 68, 70, 81, 84, 87, 93, 94, 104, 113, 114, 119},
        120,
    ),
    "smie/ntu60/0": ({4, 19, 31, 47, 51}, 60),
    "smie/ntu60/1": ({12, 29, 32, 44, 59}, 60),
    "smie/ntu60/2": ({7, 20, 28, 39, 58}, 60),
    "smie/ntu120/0": ({3, 18, 26, 38, 41, 60, 87, 99, 102, 110}, 120),
    "smie/ntu120/1": ({5, 12, 14, 15, 17, 42, 67, 82, 100, 119}, 120),
    "smie/ntu120/2": ({6, 20, 27, 33, 42, 55, 71, 97, 104, 118}, 120),
}
PSEUDO = {
    "synse/ntu60_55_5": {21, 16, 31, 25, 48},
    "synse/ntu60_48_12": {22, 8, 17, 54, 33, 50, 39, 30, 4, 46, 13, 10},
    "synse/ntu120_110_10": {96, 83, 74, 77, 72, 76, 61, 5, 32, 10},
    "synse/ntu120_96_24": {
        *(17, 10, 1, 103, 105, 58, 108, 4, 48, 83, 97, 66, 92, 86, 79, 89, 53, 100, 47, 27, 98, 3, 19, 63)
    },
}


@pytest.fixture(scope="module")
def nw_ucla_store(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """All NW-UCLA sequences."""
    from mmcl.prepare import main

    folder = tmp_path_factory.mktemp("nw_ucla") / "store"
    assert main(["nw-ucla", "--source", str(test_data / "nw_ucla" / "all_sqe.tar.gz"), "--out", str(folder)]) == 0
    return open_store(folder)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_classes_are_withheld(name: str) -> None:
    unseen, classes = PUBLISHED[name]
    seen, withheld = divide_classes(load_protocol(name), classes)
    assert set(withheld.tolist()) == unseen
    assert set(seen.tolist()) == set(range(classes)) - unseen


@pytest.mark.parametrize("name", PUBLISHED)
def test_gate_variant_withholds_as_many_other_classes(name: str) -> None:
    unseen, classes = PUBLISHED[name]
    seen, pseudo = map(set, (part.tolist() for part in divide_classes(load_protocol(f"{name}/gate"), classes)))
    assert len(pseudo) == len(unseen) and not pseudo & unseen
    assert pseudo == PSEUDO.get(name, pseudo)
    assert seen == set(range(classes)) - unseen - pseudo


@pytest.mark.parametrize("dataset", ["ntu60", "ntu120"])
def test_calibration_subjects_are_training_subjects(dataset: str) -> None:
    training = set(load_protocol(f"{dataset}/xsub").train["subject"])
    for name in (name for name in PUBLISHED if dataset in name):
        protocol = load_protocol(name)
        assert set(protocol.calibrate["subject"]) < training == set(protocol.train["subject"])


def test_draws_differ_and_repeat() -> None:
    draws = [tuple(divide_classes(load_protocol(f"utd_mhad/open_22_5/{draw}"), 27)[1]) for draw in range(30)]
    assert all(len(set(draw)) == 5 for draw in draws)
    assert sum(a == b for a, b in combinations(draws, 2)) == 0
    assert tuple(divide_classes(load_protocol("utd_mhad/open_22_5/0"), 27)[1]) == draws[0]
    assert {label for draw in draws for label in draw} == set(range(27))  # every class is tried


@pytest.mark.parametrize("draw", range(3))
def test_real_clips_on_the_right_side(nw_ucla_store: ClipStore, draw: int) -> None:
    store = nw_ucla_store
    ordinary = split(store, load_protocol("nw_ucla/view_3"))
    opened = split(store, load_protocol(f"nw_ucla/open_7_3/{draw}"))
    gate = split(store, load_protocol(f"nw_ucla/open_7_3/{draw}/gate"))
    unseen = set(opened.unseen_classes.tolist())
    assert len(unseen) == 3 and len(opened.classes) == 7
    assert set(opened.train) == {c for c in ordinary.train if store.labels[c] not in unseen}
    assert set(opened.test) | set(opened.unseen) == set(ordinary.test)
    assert set(store.labels[opened.unseen].tolist()) == unseen
    # The gate is fitted on training-side clips alone, and never sees a really unseen class.
    everything = {*gate.train, *gate.test, *gate.unseen}
    assert everything <= set(opened.train)
    assert not set(gate.train) & {*gate.test, *gate.unseen}
    assert set(store.labels[gate.unseen].tolist()) == set(gate.unseen_classes.tolist())
    assert set(store.subjects[gate.train].tolist()).isdisjoint({9, 10})
    assert np.array_equal(opened.classes[opened.targets(store.labels[opened.train])], store.labels[opened.train])


def test_names_and_mistakes(tmp_path: Path) -> None:
    assert "synse/ntu60_55_5" in protocol_names() and "utd_mhad/open_22_5/0" in protocol_names()
    for wrong in ("utd_mhad/open_22_5", "utd_mhad/open_22_5/30", "utd_mhad/cross_subject/gate", "smie/ntu60/3"):
        with pytest.raises(UserError, match=r"utd_mhad/open_22_5|protocol"):
            load_protocol(wrong)
    own = tmp_path / "own.yaml"
    own.write_text("mine: {dataset: utd_mhad, base: utd_mhad/cross_subject, unseen: [3, 40]}\n", encoding="utf-8")
    with pytest.raises(UserError, match="labels count from 0"):
        divide_classes(load_protocol(str(own)), 27)
    for wrong in (
        *("unseen: [1.5]", "unseen: 3", "unseen: [-1, 3]", "unseen: [3, 3]", "unseen_count: two"),
        "unseen: [3], pseudo_unseen: [3, 4]",
    ):
        own.write_text(f"mine: {{dataset: utd_mhad, base: utd_mhad/cross_subject, {wrong}}}\n", encoding="utf-8")
        with pytest.raises(UserError, match="unseen"):
            load_protocol(str(own))
    own.write_text("mine: {dataset: utd_mhad, base: utd_mhad/cross_subject, unseen: [3]}\n", encoding="utf-8")
    with pytest.raises(UserError, match="no /gate variant"):
        load_protocol(f"{own}:mine/gate")
    assert load_protocol("own/gate").lists == "gate"
    own.write_text("mine: {dataset: utd_mhad, train: {subject: [1]}, test: {subject: [2]}, unseen: [3]}\n")
    with pytest.raises(UserError, match="withholds classes .* and has no base: name the rule"):
        load_protocol(str(own))
    own.write_text("mine: {dataset: utd_mhad, base: utd_mhad/nothing, unseen: [3]}\n", encoding="utf-8")
    with pytest.raises(UserError, match="no fixed protocol"):
        load_protocol(str(own))


def test_draws_and_gates_of_a_file_of_one_s_own(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "sides: {dataset: mine, train: {subject: [1, 2]}, test: {subject: 3}}\n"
        "drawn: {dataset: mine, base: sides, unseen_count: 5, draws: 30, calibrate: {subject: 2}}\n"
        "astray: {dataset: utd_mhad, base: sides, unseen_count: 5}\n",
        encoding="utf-8",
    )
    for draw in (0, 7, 29):  # a draw depends on its number and the classes alone: the same as in a shipped one
        for suffix in ("", "/gate"):
            chosen = load_protocol(f"{own}:drawn/{draw}{suffix}")
            shipped = load_protocol(f"utd_mhad/open_22_5/{draw}{suffix}")
            for found, expected in zip(divide_classes(chosen, 27), divide_classes(shipped, 27), strict=True):
                assert np.array_equal(found, expected)
            assert chosen.name == f"drawn/{draw}{suffix}" and chosen.train == {"subject": [1, 2]}
    for wrong in ("drawn/30", "drawn/x", "drawn/30/gate"):
        with pytest.raises(UserError, match="'drawn' has no draw"):
            load_protocol(f"{own}:{wrong}")
    for wrong in ("drawn", "drawn/gate"):
        with pytest.raises(UserError, match=r"drawn' is 30 random draws: choose one, '.*:drawn/0'"):
            load_protocol(f"{own}:{wrong}")
    with pytest.raises(UserError, match="'sides/0'"):
        load_protocol(f"{own}:sides/0")
    with pytest.raises(UserError, match="no fixed protocol of its data set"):
        load_protocol(f"{own}:astray/0")


def test_no_output_is_right_for_a_class_that_is_not_trained() -> None:
    classes = np.array([1, 4, 9])
    assert outputs_of(classes, np.array([9, 1, 4, 9])).tolist() == [2, 0, 1, 2]
    assert outputs_of(classes, np.array([], dtype=np.int64)).tolist() == []
    for withheld in (0, 3, 10):
        with pytest.raises(ValueError, match=rf"\[{withheld}\] are not among the trained classes"):
            outputs_of(classes, np.array([4, withheld]))


def test_classes_of_ones_own_are_withheld_by_name_beside_the_lists_that_clips_bring_along(demo_store, tmp_path) -> None:
    """As docs/own-data.md writes it, without the name of a data set."""
    store = open_store(demo_store)
    lists = [["train"] if clip % 2 else ["test"] for clip in range(len(store))]
    store.__dict__["splits"] = lists
    own = tmp_path / "own.yaml"
    first, last = store.class_names[0], store.class_names[-1]
    own.write_text(f"open: {{base: own/split, unseen: [{first.upper()}, {len(store.class_names) - 1}]}}\n")
    found = split(store, load_protocol(str(own)))
    assert [store.class_names[label] for label in found.unseen_classes] == [first, last]
    assert not np.isin(store.labels[found.train], found.unseen_classes).any() and len(found.unseen)
    assert all(clip % 2 for clip in found.train) and not any(clip % 2 for clip in (*found.test, *found.unseen))
    for words, complaint in (("[fly]", "withholds 'fly', and there is no such class"), (f"[{first}, 0]", "twice")):
        own.write_text(f"open: {{base: own/split, unseen: {words}}}\n")
        with pytest.raises(UserError, match=complaint):
            split(store, load_protocol(str(own)))


def test_one_class_is_enough_where_nobody_tells_classes_apart(demo_store, tmp_path) -> None:
    store = open_store(demo_store)
    store.__dict__["class_names"], store.__dict__["labels"] = ["unlabelled"], np.zeros(len(store), dtype=np.int64)
    protocol = load_protocol("demo/cross_subject")
    with pytest.raises(UserError, match="one class alone"):
        split(store, protocol)
    assert len(split(store, protocol, classes=1).train)
