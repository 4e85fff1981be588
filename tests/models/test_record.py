"""The record of a model: what it was made of, and by which clips it must not be judged without a word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.split import Split
from mmcl.data.store import ClipStore, open_store
from mmcl.models.clip_set import ClipSet
from mmcl.models.learned import overlap, record_before_format_1, unlearned
from mmcl.models.record import MOST_RECORDS, Record, digest_of, tensors_digest

ONE, OTHER = {"subject": [1, 3]}, {"subject": [2, 4]}


@pytest.fixture(scope="module")
def store(demo_store) -> ClipStore:
    return open_store(demo_store)


def rule(folder: Path, train: dict[str, object], test: dict[str, object], name: str = "own") -> str:
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps({name: {"dataset": "demo", "train": train, "test": test}}))
    return str(file)


def sides(store: ClipStore, protocol: str, validation: dict[str, list[int]] | None = None) -> Split:
    return split(store, load_protocol(protocol), validation)


def people(store: ClipStore, clips: np.ndarray) -> set[int]:
    return set(store.subjects[clips].tolist())


def test_a_splits_digest_is_that_of_its_clips_and_outputs_in_whatever_order(store, tmp_path) -> None:
    found = sides(store, rule(tmp_path, ONE, OTHER))
    # the same from the ids alone, by a loop of its own
    order = np.random.default_rng(0).permutation(len(store))
    place = np.argsort(order)
    moved = Split(
        *(np.sort(place[side]) for side in (found.train, found.validation, found.test)), found.classes,
        np.sort(place[found.unseen]), found.unseen_classes, [store.ids[i] for i in order], store.labels[order],
    )  # fmt: skip
    assert moved.digest == found.digest and moved.test_digest == found.test_digest
    assert sides(store, rule(tmp_path, ONE, OTHER, "renamed")).digest == found.digest
    others = {
        "sides swapped": sides(store, rule(tmp_path, OTHER, ONE)),
        "some held out": sides(store, rule(tmp_path, ONE, OTHER), {"subject": [1]}),
        "fewer tested": sides(store, rule(tmp_path, ONE, {"subject": [2]})),
        "other outputs": replace(found, labels=store.labels[::-1].copy(), classes=np.arange(12)),
        "another clip": replace(found, train=found.train[1:]),
    }
    assert len({found.digest, *(other.digest for other in others.values())}) == 1 + len(others)
    same_test = {name for name, other in others.items() if other.test_digest == found.test_digest}
    assert same_test == {"some held out", "another clip", "other outputs"}


def test_a_digest_counts_withheld_classes(store) -> None:
    facts = load_protocol("demo/cross_subject")
    withheld = [split(store, replace(facts, unseen=[label])) for label in (3, 4)]
    assert withheld[0].digest != withheld[1].digest and len(withheld[0].unseen)


def test_swapped_sides_of_a_protocol_file_do_not_hide_what_was_learned(store, tmp_path) -> None:
    own = rule(tmp_path, ONE, OTHER)
    trained = sides(store, own)
    record = Record.of(store, trained, own)
    assert overlap(trained.test, store, record) == "" and unlearned(trained.test, store, record)[0].all()
    rule(tmp_path, OTHER, ONE)  # the file is edited after training: its test side is now what was trained on
    edited = sides(store, own)
    assert Record.of(store, edited, own).differences(record) == ["split", "test_side"]
    assert f"has learned from {len(trained.train)} (trained by {own})" in overlap(edited.test, store, record)
    everything = np.arange(len(store))
    kept, words = unlearned(everything, store, record)
    assert people(store, everything[kept]) == {2, 4} and own in words
    with pytest.raises(UserError, match="may judge this model"):
        unlearned(edited.test, store, record)
    Path(own).unlink()  # gone altogether: still known clip by clip
    assert people(store, everything[unlearned(everything, store, record)[0]]) == {2, 4}
    assert "has learned from 24" in overlap(everything, store, record)


def test_clips_are_found_across_protocols_and_stores(store, tmp_path) -> None:
    own = rule(tmp_path, {"subject": [1]}, OTHER)
    trained = sides(store, own)
    record = Record.of(store, trained, own)
    seen = np.flatnonzero(np.isin(store.subjects, [1, 3]))
    assert "of these 24 clips, the model has learned from 12" in overlap(seen, store, record)
    # person 3 is on neither side: left out while the test side is the very one of training
    assert people(store, seen[unlearned(np.arange(len(store)), store, record)[0][seen]]) == set()
    anew = ClipStore(store.folder, {**store.info, "fingerprint": "another"}, store.index)  # prepared in another way
    assert overlap(seen, anew, record) == overlap(seen, store, record)
    elsewhere = ClipStore(store.folder, {**store.info, "dataset": "another"}, store.index)  # ids equal by chance
    assert overlap(seen, elsewhere, record) == "" and unlearned(seen, elsewhere, record)[1] == "all"


def test_validation_clips_are_said_and_left_out(store, tmp_path) -> None:
    own = rule(tmp_path, ONE, OTHER)
    record = Record.of(store, sides(store, own, {"subject": [1]}), own)
    everything = np.arange(len(store))
    words = overlap(everything, store, record)
    assert "has learned from 12" in words and "may have been chosen by 12" in words
    assert people(store, everything[unlearned(everything, store, record)[0]]) == {2, 4}


def test_a_lineage_is_kept_over_generations(store, tmp_path) -> None:
    rules = [rule(tmp_path, {"subject": [n]}, {"subject": [4]}, f"own{n}") for n in (1, 2, 3)]
    record = Record()
    for protocol in rules:
        record = Record.of(store, sides(store, protocol), protocol, parents=[record] if record.protocol else [])
    assert [one.protocol for one in record.lineage()] == rules[::-1]
    everything = np.arange(len(store))
    assert all(f"12 (trained by {protocol})" in overlap(everything, store, record) for protocol in rules)
    again = Record.from_json(json.loads(json.dumps(record.to_json())), "record.json")
    assert again == record and hash(again) == hash(record)


def test_differences_name_what_is_known_of_both(store, tmp_path) -> None:
    own = rule(tmp_path, ONE, OTHER)
    record = Record.of(store, sides(store, own), own, texts=["a"], config={"lr": 0.1}, weights="ab")
    assert record.differences(record) == [] and record.differences(replace(record, texts="")) == []
    other = Record.of(store, sides(store, own), own, texts=["b"], config={"lr": 0.2}, weights="cd", parents=[record])
    assert record.differences(other) == ["texts", "config", "weights", "parents"]
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1, "b": 3})


def test_a_tensors_digest_covers_names_types_shapes_and_numbers() -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1)}
    others = [
        {"a": tensors["a"].reshape(3, 2), "b": tensors["b"]}, {"a": tensors["a"].bfloat16(), "b": tensors["b"]},
        {"c": tensors["a"], "b": tensors["b"]}, {"a": tensors["a"] + 1e-6, "b": tensors["b"]}, {"a": tensors["a"]},
    ]  # fmt: skip
    digests = [tensors_digest(entry) for entry in (tensors, *others)]
    assert len({*digests}) == 6 and tensors_digest(dict(reversed(tensors.items()))) == digests[0]
    assert tensors_digest({"a": tensors["a"].T.contiguous().T, "b": tensors["b"]}) == digests[0]


HOSTILE = {
    "not a mapping": [], "an entry more": {"extra": 1}, "another format": {"format": 2}, "a number": {"protocol": 3},
    "a long name": {"protocol": "x" * 301}, "no digest": {"split": "../../etc"}, "a list of clips": {"trained": [1]},
    "no base64": {"trained": "!!!!"}, "cut off": {"trained": "AAAA"}, "no parents": {"parents": {}},
    "a strange parent": {"parents": [None]},
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_record_is_refused_in_one_line(what) -> None:
    change = HOSTILE[what]
    content = {**Record(trained=ClipSet()).to_json(), **change} if isinstance(change, dict) else change
    with pytest.raises(UserError, match="m.json: not a record") as error:
        Record.from_json(content, "m.json")
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


def test_a_lineage_without_end_is_refused() -> None:
    deep, wide = Record().to_json(), Record().to_json()
    for _ in range(MOST_RECORDS):
        deep = {**Record().to_json(), "parents": [deep]}
    wide["parents"] = [Record().to_json()] * MOST_RECORDS
    for content in (deep, wide):
        with pytest.raises(UserError, match=f"more than {MOST_RECORDS} models"):
            Record.from_json(content, "m.json")


def test_a_million_clips_are_told_apart_quickly_and_take_eight_characters_each() -> None:
    class Many:
        dataset, ids = "many", [f"S{n:07d}" for n in range(200_000)]

    clips = ClipSet.of(Many(), np.arange(0, 200_000, 2))
    assert len(clips) == 100_000
    assert np.array_equal(clips.holds(Many(), np.arange(200_000)), np.arange(200_000) % 2 == 0)
    assert len(Record(trained=clips).to_json()["trained"]) == 800_000


def test_a_bundle_of_before_the_record_is_known_by_its_protocols(store, tmp_path) -> None:
    own, adapted = rule(tmp_path, ONE, OTHER), rule(tmp_path, {"subject": [2]}, {"subject": [4]}, "adapted")
    record = record_before_format_1(
        {
            "protocol": own, "data_fingerprint": store.fingerprint,
            "adapted": {"protocol": adapted, "data_fingerprint": "2", "dataset": "demo"},
            "started_from": {"lessons": [["c/test", "3", "c"], ["d/test", "4", None]]},
        }
    )  # fmt: skip
    assert [(one.dataset, one.protocol, one.store) for one in record.lineage()] == [
        ("", own, store.fingerprint), ("demo", adapted, "2"), ("c", "c/test", "3"), ("", "d/test", "4")
    ]  # fmt: skip
    everything = np.arange(len(store))
    assert people(store, everything[unlearned(everything, store, record)[0]]) == {4}
    assert f"24 (trained by {own}) and the model has learned from 12" in overlap(everything, store, record)
    Path(own).unlink()
    with pytest.raises(UserError, match="own.yaml"):
        unlearned(everything, store, record)
    assert "cannot be told" in overlap(everything, store, record)
    assert [*record_before_format_1({"protocol": "a/test", "adapted": None}).lineage()] == [Record("", "a/test")]
