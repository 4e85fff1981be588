"""Protocols split as published, never share a clip, and hold validation out of the training side."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import UnknownProtocol, load_protocol, protocol_names
from mmcl.data.store import open_store


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
        ("demo/own: {dataset: demo, train: {subject: null}, test: {subject: [2]}}", "numbers or words"),
        ("demo/own: {dataset: demo, train: {id: [007, '008']}, test: {subject: [2]}}", "id 7 reads as a number"),
        ("demo/own: {dataset: demo, train: {subject: [true]}, test: {subject: [2]}}", "numbers or words"),
        ("demo/own: {dataset: demo, train: {subject: 1}, test: {subject: 2}, halves: clips}", "leave out train"),
        ("demo/own: {dataset: demo, halves: people}", "halves is clips or subjects"),
        ("demo/own: {dataset: demo, halves: clips, draw: a}", "draw a whole number"),
        ("demo/own: {dataset: demo, halves: clips, draws: 0}", "draws is how many random draws there are"),
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
    path.write_text("demo/own: {dataset: demo, train: {subject: 1, trial: [1]}, test: {subject: [4]}}")
    parts = split(open_store(demo_store), load_protocol(f"{path}:demo/own"))
    assert len(parts.train) == len(parts.test) == 12 and len(parts.validation) == 0


def test_validation_must_come_from_the_training_side(demo_store) -> None:
    with pytest.raises(UserError, match="no validation clip"):
        split(open_store(demo_store), load_protocol("demo/cross_subject"), {"subject": [2]})
    with pytest.raises(UserError, match="no attribute 'weather'"):
        split(open_store(demo_store), load_protocol("demo/cross_subject"), {"weather": [2]})
    with pytest.raises(UserError, match="label 'wave': clips have numbers there"):
        split(open_store(demo_store), load_protocol("demo/cross_subject"), {"label": [0, 1, "wave"]})


class Clips:
    """What a protocol looks at of a store, for 12 actions x 40 people as SYSU has them."""

    def __init__(self, dataset: str, lists: list[list[str]] | None = None) -> None:
        self.dataset, self.location, self.class_names = dataset, dataset, [str(label) for label in range(12)]
        self.labels, self.subjects = np.tile(np.arange(12), 40), np.repeat(np.arange(1, 41), 12)
        self.ids = [f"s{subject}_v{label}" for subject, label in zip(self.subjects, self.labels, strict=True)]
        self.cameras = self.setups = self.trials = np.ones(480, dtype=np.int64)
        self.splits = lists or [[] for _ in self.ids]
        self.subject_names: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.ids)


def test_sysu_halves_are_random_repeatable_and_of_the_published_kind() -> None:
    store = Clips("sysu")
    seen = set()
    for draw in range(30):
        parts = split(store, load_protocol(f"sysu/setting-2/{draw}"))
        train, test = set(store.subjects[parts.train]), set(store.subjects[parts.test])
        assert len(train) == len(test) == 20 and not train & test and len(parts.test) == 240
        by_clip = split(store, load_protocol(f"sysu/setting-1/{draw}"))
        assert np.bincount(store.labels[by_clip.train]).tolist() == [20] * 12 and len(by_clip.test) == 240
        np.testing.assert_array_equal(by_clip.train, split(store, load_protocol(f"sysu/setting-1/{draw}")).train)
        seen |= {(1, *by_clip.train), (2, *parts.train)}
    assert len(seen) == 60  # no two draws are alike
    # the order of the clips in the store does not matter
    order = np.random.default_rng(0).permutation(480)
    shuffled = Clips("sysu")
    shuffled.labels, shuffled.subjects = store.labels[order], store.subjects[order]
    shuffled.ids = [store.ids[i] for i in order]
    again = split(shuffled, load_protocol("sysu/setting-1/29"))
    assert {shuffled.ids[i] for i in again.train} == {store.ids[i] for i in by_clip.train}


def test_halves_need_their_number() -> None:
    with pytest.raises(UserError, match="30 random draws: choose one, 'sysu/setting-1/0'"):
        load_protocol("sysu/setting-1")
    for draw in ("30", "x", "-1", ""):
        with pytest.raises(UserError, match=f"'sysu/setting-1' has no draw '{draw}': it has 0 … 29"):
            load_protocol(f"sysu/setting-1/{draw}")
    for name in ("utd_mhad/cross_subject/0", "nothing", "sysu/setting-3/0"):
        with pytest.raises(UnknownProtocol, match="no protocol"):
            load_protocol(name)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("ntu60/xsub" + 3000 * "/gate", "letters: no name is that long"),
        ("ntu60/xsub" + 80 * "/stream-1", "'/stream-' in it more than once"),
        ("utd_mhad/open_22_5/0" + 50 * "/gate", "'/gate' in it more than once"),
        ("utd_mhad/open_22_5/" + 900 * "9", "no draw"),
        ("ntu60/xsub/stream-" + 900 * "9", "no protocol"),
        ("ntu60/xsub/long_tail-0", "must be 1 or more"), ("ntu60/xsub/stream-0", "must be 1 or more"),
    ],
)  # fmt: skip
def test_names_of_strangers_cost_no_time_and_are_refused(name: str, complaint: str) -> None:
    began = time.process_time()
    with pytest.raises(UserError, match=complaint):
        load_protocol(name)
    assert time.process_time() - began < 5


def test_draws_of_one_s_own_halves_are_chosen_like_the_shipped_ones(tmp_path) -> None:
    own, store = tmp_path / "own.yaml", Clips("sysu")
    own.write_text("mine/halves: {dataset: sysu, halves: subjects, draws: 3}\none: {dataset: sysu, halves: clips}\n")
    for draw in range(3):
        shipped = split(store, load_protocol(f"sysu/setting-2/{draw}"))
        for name in (f"{own}:mine/halves/{draw}", f"{own}/{draw}"):  # the first of the file needs no name
            chosen = load_protocol(name)
            assert chosen.name == f"mine/halves/{draw}"
            np.testing.assert_array_equal(split(store, chosen).train, shipped.train)
    for draw in ("3", "x"):
        with pytest.raises(UserError, match=f"'mine/halves' has no draw '{draw}': it has 0 … 2"):
            load_protocol(f"{own}:mine/halves/{draw}")
    with pytest.raises(UserError, match=r"mine/halves' is 3 random draws: choose one, '.*own.yaml:mine/halves/0'"):
        load_protocol(f"{own}:mine/halves")
    assert load_protocol(f"{own}:one").draw == load_protocol(f"{own}:one/0").draw == 0
    with pytest.raises(UserError, match=r"has no draw '1': it has 0 alone \(`draws: N` allows more\)"):
        load_protocol(f"{own}:one/1")
    with pytest.raises(UserError, match="has no protocol 'two': it has mine/halves, one"):
        load_protocol(f"{own}:two")
    with pytest.raises(UserError, match=r"own.yml: no such file"):
        load_protocol(f"{own.with_suffix('.yml')}:two/0")


def test_lists_that_clips_bring_along() -> None:
    lists = [["train"], ["val"], ["test"], ["xsub_train", "xview_val"]] * 120
    store = Clips("mine", lists)
    assert protocol_names(store) == ["own/split"]
    parts = split(store, load_protocol("own/split"))
    assert [side[:2].tolist() for side in (parts.train, parts.validation, parts.test)] == [[0, 4], [1, 5], [2, 6]]
    parts = split(store, load_protocol("own/split"), {"subject": [1]})  # the recipe's word goes first
    assert set(store.subjects[parts.validation]) == {1} and 13 in parts.train
    with pytest.raises(UserError, match="finds no train clip.*its clips bring own/split along"):
        split(store, load_protocol("own/xset"))
    store.splits[7] = ["xsub_val"]
    assert protocol_names(store) == ["own/split", "own/xsub"]
    parts = split(store, load_protocol("own/xsub"))
    assert (len(parts.train), parts.test.tolist()) == (119, [7])
    store.splits[11] = ["xsub_test"]  # with a test list, val is for validation
    parts = split(store, load_protocol("own/xsub"))
    assert (len(parts.train), parts.validation.tolist(), parts.test.tolist()) == (118, [7], [11])


def test_lists_as_other_people_call_them() -> None:
    store = Clips("gym", [["train"], ["val"]] * 240)  # PYSKL's FineGYM: val is the test list
    parts = split(store, load_protocol("own/split"))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (240, 0, 240)
    store = Clips("ucf101", [["train1", "test2"], ["test1", "train2"], ["_train", "_val"]] * 160)
    assert protocol_names(store) == ["own/1", "own/2"]
    parts = split(store, load_protocol("own/2"))
    assert parts.train[0] == 1 and parts.test[0] == 0 and len(parts.test) == 160


@pytest.mark.parametrize(
    ("name", "train", "both"),
    [("ntu60/xsub", 20, 40), ("ntu60/xview", 2, 3), ("ntu120/xsub", 53, 106), ("ntu120/xset", 16, 32)],
)
def test_ntu_rules_share_out_everybody(name: str, train: int, both: int) -> None:
    rule = load_protocol(name)
    (key,) = rule.train
    sides = [set(rule.train[key]), set(rule.test[key])]
    assert len(sides[0]) == train and not sides[0] & sides[1] and sides[0] | sides[1] == set(range(1, both + 1))


def test_ntu_training_performers_are_the_published_ones() -> None:
    published = "1,2,4,5,8,9,13,14,15,16,17,18,19,25,27,28,31,34,35,38"
    later = "45,46,47,49,50,52,53,54,55,56,57,58,59,70,74,78,80,81,82,83,84,85,86,89,91,92,93,94,95,97,98,100,103"
    assert list(load_protocol("ntu60/xsub").train["subject"]) == [int(n) for n in published.split(",")]
    assert list(load_protocol("ntu120/xsub").train["subject"]) == [int(n) for n in f"{published},{later}".split(",")]
    assert all(setup % 2 == 0 for setup in load_protocol("ntu120/xset").train["setup"])
    assert list(load_protocol("ntu60/xview").test["camera"]) == [1]
