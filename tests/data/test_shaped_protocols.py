"""Long-tailed training sides, and classes that arrive in parts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.thinning import LongTail

# What the papers print of every published list: total, and clips of the rarest class.
TOTALS = {
    "brl/ntu60_xsub_100": (7892, 6), "brl/ntu60_xsub_50": (9150, 12), "brl/ntu60_xsub_10": (14142, 60),
    "brl/ntu60_xview_100": (7892, 6), "brl/ntu120_xsub_100": (15600, 6), "brl/ntu120_xsub_50": (18137, 12),
    "brl/ntu120_xsub_10": (28182, 60), "brl/ntu120_xset_100": (10378, 4), "brl/ntu120_xset_50": (12069, 8),
    "brl/ntu120_xset_10": (18771, 40),
}  # fmt: skip


@pytest.fixture(scope="module")
def golden() -> Path:
    folder = os.environ.get("MMCL_TEST_GOLDEN")
    if not folder:
        pytest.skip("MMCL_TEST_GOLDEN is not set: no arrays of the released code to compare with")
    return Path(folder)


class Clips(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.ids)


def clips(dataset: str, classes: int, each: int) -> Clips:
    """What a protocol looks at of a store: so many clips of each class, of subjects 1 and 3 by halves."""
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat(np.arange(classes), each))
    trials = np.empty(len(labels), dtype=np.int64)
    for label in range(classes):
        trials[labels == label] = rng.permutation(each)
    ids = [f"S{trial:03d}A{label + 1:03d}" for trial, label in zip(trials, labels, strict=True)]
    ones = np.ones(len(ids), dtype=np.int64)
    return Clips(
        dataset=dataset, location=dataset, class_names=[str(k) for k in range(classes)], labels=labels, ids=ids,
        subjects=1 + 2 * (trials % 2), cameras=2 - trials % 2, setups=1 + trials % 2, trials=ones,
        splits=[[]] * len(ids), subject_names={},
    )  # fmt: skip


@pytest.mark.parametrize("name", TOTALS)
def test_published_long_tails_have_their_published_sizes(name) -> None:
    tail = load_protocol(name).long_tail
    sizes = tail.sizes(60 if "ntu60" in name else 120, tail.most)
    assert (sizes.sum(), sizes[-1]) == TOTALS[name] and sizes[0] == tail.most
    if name == "brl/ntu60_xsub_100":  # many, medium, few
        assert [(sizes > 100).sum(), ((sizes >= 20) & (sizes <= 100)).sum(), (sizes < 20).sum()] == [23, 21, 16]


def test_sizes_are_those_of_the_shipped_lists(golden) -> None:
    with np.load(golden / "shap_mix" / "lt_split_sizes.npz") as shipped:
        assert shipped.files
        for name, sizes in shipped.items():
            data, side, factor = name.lower().replace("if", "").split("_")
            tail = load_protocol(f"brl/{data}_{side}_{factor}").long_tail
            np.testing.assert_array_equal(tail.sizes(len(sizes), tail.most), sizes)


def test_a_long_tail_keeps_the_first_names_of_a_shuffle_class_by_class() -> None:
    store = clips("ntu60", 60, 40)
    found = split(store, load_protocol("ntu60/xsub/long_tail-10"))
    whole = split(store, load_protocol("ntu60/xsub"))
    np.random.seed(0)  # as the lists were made
    expected: set[str] = set()
    for label in range(60):
        names = sorted(store.ids[clip] for clip in whole.train if store.labels[clip] == label)
        assert len(names) == 20
        np.random.shuffle(names)
        expected |= set(names[: int(20 * 10 ** (-label / 59))])
    assert {store.ids[clip] for clip in found.train} == expected
    np.testing.assert_array_equal(found.test, whole.test)
    assert found.train.tolist() == sorted(found.train) and found.digest != whole.digest
    assert found.test_digest == whole.test_digest


def test_a_long_tail_in_a_random_order_of_classes() -> None:
    store = clips("ntu60", 60, 40)
    counts, kept = [], []
    for name in ("", "/0", "/1"):
        found = split(store, load_protocol(f"ntu60/xsub/long_tail-5-15{name}"))
        counts.append(np.bincount(store.labels[found.train], minlength=60))
        kept.append(set(found.train.tolist()))
        np.testing.assert_array_equal(np.sort(counts[-1])[::-1], LongTail(5).sizes(60, 15))
    assert (np.diff(counts[0]) <= 0).all() and not (np.diff(counts[1]) <= 0).all()
    assert len({tuple(count) for count in counts}) == 3 and kept[1] != kept[2]
    assert split(store, load_protocol("ntu60/xsub/long_tail-5-15/1")).digest == found.digest
    with pytest.raises(UserError, match="imbalance 1000 of 20 clips leaves none of the rarest class"):
        split(store, load_protocol("ntu60/xsub/long_tail-1000"))


SIDES = {"ntu60": ("xsub", "xview"), "ntu120": ("xsub", "xset")}


def test_charons_parts_are_those_of_its_paper_and_of_its_code(golden) -> None:
    known = json.loads((golden / "charon" / "class_orders.json").read_text())
    assert known
    for data, side in [(name, side) for name in known for side in SIDES[name]]:
        store = clips(data, len(known[data]["array"]), 4)
        for name, tasks in (("", "list_order_tasks"), ("/released", "tasks_as_the_released_code_forms_them")):
            found = split(store, load_protocol(f"charon/{data}_{side}{name}"))
            assert [part.tolist() for part in found.stream] == known[data][tasks], (data, side, tasks)
            assert found.train.tolist() == split(store, load_protocol(f"{data}/{side}")).train.tolist()


def test_a_stream_of_any_protocol(tmp_path) -> None:
    store = clips("ntu60", 60, 4)
    by_number = split(store, load_protocol("ntu60/xsub/stream-7")).stream
    assert [len(part) for part in by_number] == [7] * 8 + [4]
    assert np.concatenate(by_number).tolist() == list(range(60))
    drawn = [split(store, load_protocol(f"ntu60/xsub/stream-7/{seed}")) for seed in (0, 1)]
    orders = [np.concatenate(found.stream).tolist() for found in drawn]
    assert orders[0] != orders[1] and all(sorted(order) == list(range(60)) for order in orders)
    assert len({found.digest for found in (*drawn, split(store, load_protocol("ntu60/xsub")))}) == 3
    both = split(store, load_protocol("ntu60/xsub/long_tail-2/3/stream-10/1"))
    assert len(both.stream) == 6 and len(both.train) < len(drawn[0].train)
    own = tmp_path / "own.yaml"
    own.write_text(
        "a: {dataset: ntu60, train: {subject: 1}, test: {subject: 3}}\n"
        "b: {dataset: ntu60, base: a, stream: {classes: 30, order: random}, draws: 2}\n"
        "c: {dataset: ntu60, base: ntu60/xsub, long_tail: {imbalance: 2}}\n"
    )
    assert orders[1] == np.concatenate(split(store, load_protocol(f"{own}:b/1")).stream).tolist()
    assert orders[1] == np.concatenate(split(store, load_protocol(f"{own}:a/stream-30/1")).stream).tolist()
    tails = [split(store, load_protocol(name)) for name in (f"{own}:c", "ntu60/xsub/long_tail-2")]
    assert tails[0].digest == tails[1].digest
    with pytest.raises(UserError, match="2 random draws: choose one"):
        load_protocol(f"{own}:b")


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("long_tail: {imbalance: 0.5}", "long_tail has imbalance, 1 or more"),
        ("long_tail: {imbalance: .inf}", "long_tail has imbalance, 1 or more"),
        ("long_tail: {imbalance: a}", "long_tail has imbalance, 1 or more"),
        ("long_tail: {imbalance: 2, most: -1}", "and most, a whole number"),
        ("long_tail: {most: 3}", "needs dataset, train and test .*imbalance"),
        ("long_tail: 7", "needs dataset, train and test"),
        ("long_tail: {imbalance: 2, order: [1, 2]}", "order is number or random"),
        ("stream: {classes: 0}", "stream has classes, 1 or more"),
        ("stream: {classes: 2, order: [a, b]}", "an order of labels"),
        ("stream: {classes: 2, order: backwards}", "or a list of labels"),
        ("stream: {classes: 2, inverse: 3}", "inverse, true or false"),
        ("stream: {classes: 2, order: [0, 1, 1]}", "order must name each of the 3 trained classes once"),
        ("stream: {classes: 2, order: [0, 1]}", "order must name each of the 3 trained classes once"),
        ("stream: {classes: 2, order: [0, 1, 3]}", "order must name each of the 3 trained classes once"),
        ("stream: {classes: 2, seed: abc}", "the seed of stream is a whole number from 0 to"),
        ("stream: {classes: 2, order: [99999999999]}", "an order of labels"),
        ("stream: abc", "needs dataset, train and test"),
        ("long_tail: {imbalance: 2, seed: -3}", "the seed of long_tail is a whole number from 0 to"),
        ("long_tail: {imbalance: 2, seed: 99999999999}", "the seed of long_tail is a whole number from 0 to"),
        ("lists: 5", "lists is a text, found 5"),
        ("base: [a]", "base, make the sides"),
    ],
)
def test_mistakes_are_named(tmp_path, rule, complaint) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"a: {{dataset: any, train: {{subject: 1}}, test: {{subject: 3}}, {rule}}}")
    with pytest.raises(UserError, match=complaint):
        split(clips("three", 3, 6), load_protocol(str(own)))
