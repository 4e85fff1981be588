"""Pickles are programs: what NumPy and plain containers need is let through, anything else is named and refused."""

from __future__ import annotations

import collections
import datetime
import gzip
import io
import operator
import os
import pickle
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcl.common.errors import UserError
from mmcl.data.readers.safe_pickle import load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
RNG = np.random.default_rng(0)
CONTENT = {
    "half": RNG.normal(size=(2, 30, 17, 2)).astype(np.float16),
    "small": np.arange(4, dtype=np.uint8),
    "fortran": np.arange(24.0).reshape(4, 6).T,
    "turned": RNG.normal(size=(3, 4, 5)).transpose(2, 0, 1),
    "empty": np.zeros((0, 3), np.float32),
    "truth": np.array([True, False]),
    "words": np.array(["ab", "ç"]),
    "numbers": [np.int64(5), np.float32(0.1), 2.5, -7, 2**70, True, None],
    "texts": ("x" * 300, np.str_("hällo"), "", b"", b"abc", b"\xff" * 300),
    "nested": (1, (2, (3, [4])), (), [], {}),
    "sets": [{"a", "b"}, frozenset([1, 2]), set()],
}


def load(folder: Path, data: bytes) -> Any:
    (folder / "x.pkl").write_bytes(data)
    return load_pickle(folder / "x.pkl")


def refusal(folder: Path, data: bytes) -> str:
    with pytest.raises(UserError) as error:
        load(folder, data)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    return str(error.value)


def same(a: Any, b: Any) -> bool:
    if isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and (a.dtype, a.shape) == (b.dtype, b.shape) and np.array_equal(a, b)
    if isinstance(b, dict):
        return type(a) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in b)
    if isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_and_containers_come_out_as_they_went_in(tmp_path: Path, protocol: int) -> None:
    assert same(load(tmp_path, pickle.dumps(CONTENT, protocol)), CONTENT)
    grouped = collections.defaultdict(list, train=["a"])
    ordered = collections.OrderedDict(z=1, a=grouped)
    assert same(load(tmp_path, pickle.dumps(ordered, protocol)), {"z": 1, "a": {"train": ["a"]}})


def test_names_of_older_numpy_are_known(tmp_path: Path) -> None:
    for protocol in (2, 4, 5):
        data = pickle.dumps(CONTENT["half"], protocol)
        old = data.replace(b"numpy._core.", b"numpy.core.")
        for length in (len("numpy._core.multiarray"), len("numpy._core.numeric")):  # announced before the text
            old = old.replace(b"\x8c" + bytes([length]) + b"numpy.core", b"\x8c" + bytes([length - 1]) + b"numpy.core")
        frame = data.count(b"numpy._core.")
        if protocol > 2:
            old = old[:3] + (int.from_bytes(old[3:11], "little") - frame).to_bytes(8, "little") + old[11:]
        assert b"_core" not in old and same(load(tmp_path, old), CONTENT["half"])


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_code_runs(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    for call, name in (
        (Runs(os.system, f"touch {marker}"), f"{os.name}.system"),
        (Runs(eval, f"open({str(marker)!r}, 'w')"), "builtins.eval"),
        (Runs(os.makedirs, str(marker)), "os.makedirs"),
        (Runs(np.save, str(marker), CONTENT["half"]), "numpy.save"),
        (Runs(operator.methodcaller("touch"), marker), "operator.methodcaller"),
    ):
        for content in (call, {"annotations": [{"keypoint": CONTENT["half"]}, call]}):
            message = refusal(tmp_path, pickle.dumps(content, protocol))
            assert f"asks for {name}: not loaded" in message.replace("numpy._core", "numpy")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Runs(os.makedirs, str(marker)), protocol))
    assert marker.exists()  # the trap works, where it is let


def test_other_objects_are_refused_by_name(tmp_path: Path) -> None:
    for content, name in (
        (tmp_path, "pathlib"),
        (datetime.date(2024, 1, 1), "datetime.date"),
        (3 + 4j, "builtins.complex"),
        (np.random.default_rng(0), "numpy.random"),
        (np.array([{"a": 1}]), "an array of 'O8'"),
        (np.zeros(2, dtype="i4,f8"), "an array of 'V12'"),
        (np.zeros(2, dtype=">f4"), "native numbers"),
        ({(1, 2): 3}, "uses a tuple as a key"),
        ({2**80}, "uses a int as a key"),
    ):
        assert name in refusal(tmp_path, pickle.dumps(content, 4))
    assert "asks for os.\\nfoo\\x1b" in refusal(tmp_path, b"\x80\x04\x8c\x02os\x8c\x05\nfoo\x1b\x93.")
    assert "operation BINPERSID" in refusal(tmp_path, b"\x80\x04NQ.")
    assert "operation INST" in refusal(tmp_path, b"(ios\nsystem\n.")
    assert "operation NEWOBJ" in refusal(tmp_path, b"\x80\x02cnumpy\nndarray\n)\x81.")
    assert "operation EXT1" in refusal(tmp_path, b"\x80\x02\x82\x01.")
    assert "state of something" in refusal(tmp_path, b"\x80\x02}}b.")
    # What may be named is no function of NumPy's: calling it makes no array of that size.
    huge = b"\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R."
    assert "damaged" in refusal(tmp_path, huge)


def array(shape: bytes, data: bytes, dtype: bytes = b"f8") -> bytes:
    """A pickled array that announces a shape."""
    kind = b"cnumpy\ndtype\n(U" + bytes([len(dtype)]) + dtype
    kind = b"cnumpy\ndtype\n(X" + len(dtype).to_bytes(4, "little") + dtype + b"\x89\x88tR"
    start = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    return start + b"(K\x01" + shape + kind + b"\x89B" + len(data).to_bytes(4, "little") + data + b"tb."


TRILLION = b"\x8a\x06" + (10**12).to_bytes(6, "little")
BOMBS = {
    "announced shape": array(TRILLION + b"\x85", b"\0" * 80),
    "announced shape of nothing": array(TRILLION + b"\x85", b"", b"S0"),
    "negative shape": array(b"J\xff\xff\xff\xff\x85", b"\0" * 80),
    "announced bytes": b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"abc.",
    "announced byte array": b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"abc.",
    "announced text": b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b"abc.",
    "announced frame": b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"N",
    "memo index": b"\x80\x02Nr\xff\xff\xff\x7f0]h\x01.",
    "empty lists": b"\x80\x02(" + b"]" * 1_000_000 + b"l.",
    "empty sets": b"\x80\x04(" + b"\x8f" * 200_000 + b"l.",
    "marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
    "nested lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "one text, many bytes": b"\x80\x02X" + (50_000).to_bytes(4, "little") + b"a" * 50_000 + b"q\x00("
    + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 10_000 + b"l.",
    "one list, many sets": b"\x80\x02](" + b"".join(b"M" + i.to_bytes(2, "little") for i in range(60_000)) + b"eq\x00("
    + b"cbuiltins\nset\nh\x00\x85R" * 10_000 + b"l.",
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_stays_small(tmp_path: Path, kind: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(tmp_path, BOMBS[kind])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_tuples_of_tuples_are_never_walked(tmp_path: Path) -> None:
    """Sixty levels of pairs of the same pair: 2^60 leaves for whoever prints, compares or hashes it."""
    pair: Any = ()
    for _ in range(60):
        pair = (pair, pair)
    assert "uses a tuple as a key" in refusal(tmp_path, keyed(pair))
    assert type(load(tmp_path, pickle.dumps(pair))) is tuple


def keyed(value: Any) -> bytes:
    """A pickle of {value: None}, without hashing it here."""
    return b"\x80\x03}" + pickle.dumps(value, 3)[2:-1] + b"Ns."


def test_every_cut_and_many_flips_end_in_one_line(tmp_path: Path) -> None:
    data = pickle.dumps({"split": {"a": ["b"]}, "annotations": [CONTENT["half"][:1, :3], CONTENT["texts"]]}, 4)
    for length in range(0, len(data) - 1, 7):
        assert "damaged or cut off" in refusal(tmp_path, data[:length])
    flips = np.random.default_rng(1)
    for _ in range(300):
        mutated = bytearray(data)
        for place in flips.integers(0, len(data), 3):
            mutated[place] ^= int(flips.integers(1, 256))
        try:
            load(tmp_path, bytes(mutated))
        except UserError as error:
            assert "\n" not in str(error)


def test_what_is_no_file_is_said_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in ((tmp_path, "not a file"), (tmp_path / "pipe", "not a file"), (tmp_path / "x", "no such")):
        with pytest.raises(UserError, match=message):
            load_pickle(path)
    buffer = io.BytesIO()
    np.savez(buffer, x=CONTENT["half"])
    assert "no pickle, but compressed (gzip): unpack it first" in refusal(tmp_path, gzip.compress(pickle.dumps({})))
    for data in (buffer.getvalue(), b"id,label\na,1\n", b""):
        assert "no pickle" in refusal(tmp_path, data) or "not a pickle" in refusal(tmp_path, data)
