"""Whichever number of threads is quicker is kept; many files side by side say what they say one by one."""

from __future__ import annotations

import resource
import threading

import numpy as np
import pytest
from making import people

from mmcl.common.errors import UserError
from mmcl.common.limits import GIB, bounded_memory
from mmcl.deploy.predictor import Predictor
from mmcl.deploy.quickest import TRIED, Quickest, classify_files


@pytest.mark.parametrize(("two", "chosen"), [(3.0, 1), (1.0, 2)])
def test_the_quicker_number_of_threads_is_kept(two, chosen) -> None:
    now, opened = [0.0], []

    def open_on(threads):
        opened.append(threads)
        return threads

    def call(threads):
        now[0] += {1: 2.0, 2: two}[threads] + (50.0 if len(opened) < 2 and threads == 1 else 0.0)
        return threads

    forms = Quickest(open_on, 2, clock=lambda: now[0])
    assert forms(call) == 1 and opened == [1] and forms.chosen is None  # who calls once opens one
    tried = [forms(call) for _ in range(2 * TRIED + 1)]
    assert sorted(tried) == [1] * TRIED + [2] * (TRIED + 1) and forms.chosen == chosen  # the first of each is warming
    assert {forms(call) for _ in range(3)} == {chosen} and opened == [1, 2]


class Slow:
    """A predictor whose answers take as long as it takes that two are asked for at once."""

    threads = 2

    def __init__(self) -> None:
        self.both, self.read_by = threading.Barrier(2), set()

    def pool(self):
        return quickest_pool()

    def read(self, path):
        self.read_by.add(threading.get_ident())
        if path == "unreadable":
            raise UserError("unreadable: no clip")
        return (path,)

    def rank_beside(self, path):
        self.both.wait(timeout=20)
        if path == "empty":
            raise UserError("there is nobody in the clip")
        return path


def quickest_pool():
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(2)


def test_files_are_computed_at_once_and_answered_in_their_order() -> None:
    predictor = Slow()
    paths = ["a", "unreadable", "empty", "b", "c"]
    found = list(classify_files(predictor, paths))
    assert [str(each) for each in found] == ["a", "unreadable: no clip", "there is nobody in the clip", "b", "c"]
    assert [isinstance(each, UserError) for each in found] == [False, True, True, False, False]
    assert predictor.read_by == {threading.get_ident()}


def test_many_files_say_what_each_says_alone(graphs, tmp_path, monkeypatch) -> None:
    pytest.importorskip("onnxruntime")
    from mmcl.deploy.onnx_predictor import OnnxPredictor

    monkeypatch.setattr("mmcl.deploy.onnx_predictor.processors", lambda: 2)
    monkeypatch.setattr(Predictor, "threads", 2)
    paths = [tmp_path / f"{number}.npy" for number in range(7)]
    for number, path in enumerate(paths):
        np.save(path, people(1, 1 + number % 2, 20 + number)[0].numpy())
    paths.insert(3, tmp_path / "none.npy")
    bundle = graphs / "bundle"
    for predictor in (OnnxPredictor(bundle, bundle / "model.onnx"), Predictor(bundle)):
        found = list(classify_files(predictor, paths))
        assert isinstance(found.pop(3), UserError)
        for path, ranking in zip(paths[:3] + paths[4:], found, strict=True):
            alone = predictor.classify_file(path)
            assert [label for label, *_ in ranking] == [label for label, *_ in alone]
            assert [p for *_, p in ranking] == pytest.approx([p for *_, p in alone], abs=1e-6)


def test_bounds_of_several_threads_leave_none_behind() -> None:
    def limit():
        return resource.getrlimit(resource.RLIMIT_AS)[0]

    before = limit()
    first, second = bounded_memory(2 * GIB), bounded_memory(GIB)
    with first:
        wide = limit()
        second.__enter__()
        assert before == resource.RLIM_INFINITY and limit() < wide
    assert limit() < wide  # the one that began first has ended
    second.__exit__(None, None, None)
    assert limit() == before
