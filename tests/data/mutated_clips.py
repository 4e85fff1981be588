"""Files of one clip each, one of them good and many not, by what was done to them: "good" is the valid one."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from mutations import damaged, damaged_text
from numpy.lib import format as npy_format
from scipy.io import savemat

# (T, V, 3), no zeros: those in a store would be a mutation's.
TWENTY = np.abs(np.random.default_rng(0).normal(size=(6, 20, 3))) + 0.1
MARKER = Path(os.environ.get("TMPDIR", "/tmp")) / f"mmcl-mutated-{os.getpid()}"


class Touch:
    """Makes the marker when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.makedirs, (str(MARKER), 0o777, True)


def mat(variable: str, values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, {variable: values}, **options)
    return buffer.getvalue()


def mats(variable: str) -> dict[str, bytes]:
    """(20, 3, T) in MATLAB files."""
    good = TWENTY.transpose(1, 2, 0)
    plain, packed, words = mat(variable, good), mat(variable, good, do_compression=True), mat(variable, "walk" * 15)

    def announced(data: bytes, *numbers: list[int]) -> bytes:
        before, after = (np.array(entry, dtype="<u4").tobytes() for entry in numbers)
        assert before in data
        return data.replace(before, after)

    return {
        "good": plain,
        "packed": packed,
        **damaged(plain),
        **{f"packed, {name}": data for name, data in damaged(packed).items()},
        "a billion frames": announced(plain, [20, 3, 6], [20, 3, 10**9]),
        "gigabytes of numbers": announced(plain, [good.nbytes], [4 * 10**9]),
        "gigabytes unpacked": mat(variable, np.zeros((20, 3, 150_000)), do_compression=True),
        "a billion letters": announced(words, [1, 60], [10**9, 60]),
        "frames without numbers": mat(variable, good[:, :, :0]),
        "seven joints": mat(variable, good[:7]),
        "two bodies": mat(variable, np.stack([good, good])),
        "NaN": mat(variable, good * np.nan),
        "cell": mat(variable, np.array([good, "walk"], dtype=object)),
        "structure": mat(variable, {"x": good}),
        "words": words,
        "whole numbers": mat(variable, (good * 100).astype(np.int16)),
        "version 4": mat(variable, good[:, :, 0], format="4"),
        "other name": mat("other", good),
    }


def npy(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def announced_npy(shape: Any, kind: str = "<f4") -> bytes:
    """A header that announces a shape, before a few numbers."""
    buffer = io.BytesIO()
    npy_format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(range(200))


def npys(joints: np.ndarray = TWENTY) -> dict[str, bytes]:
    """(T, 20, 3), or what else is given, in .npy files."""
    good = npy(joints.astype(np.float32))
    return {
        "good": good,
        **damaged(good),
        "a billion frames": announced_npy((10**9, 20, 3)),
        "a billion of nothing": announced_npy((10**9, 20, 0)),
        "numbers beyond all": announced_npy((2**62, 2**62, 3)),
        "negative frames": announced_npy((-6, 20, 3)),
        "no whole number": announced_npy((6.5, 20, 3)),
        "sixty-six axes": announced_npy((1,) * 66),
        "nothing large": announced_npy((10**9, 20, 3), "<V0"),
        "a mile of brackets": b"\x93NUMPY\x01\x00\x60\xea" + b"(" * 60_000,
        "seven bodies": npy(np.stack([TWENTY] * 7)),
        "no bodies": npy(np.zeros((0, 6, 20, 3))),
        "NaN": npy(TWENTY * np.nan),
        "infinite": npy(TWENTY * np.inf),
        "too large": npy(TWENTY * 1e300),
        "words": npy(np.full((6, 20, 3), "walk")),
        "code": npy(np.array([Touch()], dtype=object), allow_pickle=True),
        "structure": npy(np.zeros((6, 20, 3), dtype="f4,f4")),
        "one number": npy(np.array(3.0)),
    }


def npz(method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npzs() -> dict[str, bytes]:
    """The same in .npz files."""
    arrays = npys()
    good = npz(a=arrays["good"])
    zeros = npy(np.zeros((600_000, 20, 3)))
    return {
        "good": good,
        **damaged(good),
        **{f"inside, {name}": npz(a=data) for name, data in arrays.items() if name != "good"},
        "gigabytes unpacked": npz(a=zeros),
        "size that lies": npz(a=zeros).replace(np.uint32(len(zeros)).tobytes(), np.uint32(5000).tobytes()),
        "another method": npz(zipfile.ZIP_LZMA, a=arrays["good"]),
        "no array": npz(),
        "two arrays": npz(a=arrays["good"], b=arrays["good"]),
    }


def texts(good: str, **more: str) -> dict[str, bytes]:
    return {"good": good.encode(), **damaged_text(good), **{name: text.encode() for name, text in more.items()}}


def jsons(label: int | None = None) -> dict[str, bytes]:
    """(T, 20, 3) in JSON, in NW-UCLA's form."""

    def clip(skeletons: Any) -> str:
        return json.dumps({"file_name": "x", "skeletons": skeletons, "label": label})

    numbers = TWENTY.round(3).tolist()
    return texts(
        clip(numbers),
        deep="[" * 200_000 + "]" * 200_000,
        deeper='{"skeletons":' * 5000,
        list=json.dumps(numbers),
        empty="{}",
        nothing="null",
        words=clip("walk"),
        frames=clip([]),
        bodies=clip([numbers] * 7),
        ragged=clip([*numbers, numbers[0][:3]]),
        huge=clip([[[10**400] * 3] * 20]),
        announced='{"frames": 1000000000, "skeletons": [], "label": 1}',
        code='{"skeletons": "__import__(\'os\').system(\'true\')", "label": 1}',
    )


def csvs() -> dict[str, bytes]:
    """T lines of 60 numbers."""
    good = "\n".join(",".join(f"{value:.3f}" for value in frame.ravel()) for frame in TWENTY)
    return texts(good, quotes='"' * 1001, cells="," * 200_000, words="walk\n" * 30, rows="1\n" * 100_000)


def skeletons() -> dict[str, bytes]:
    """NTU's text files: one body or two, and seven at times."""
    rng = np.random.default_rng(0)

    def body(number: int) -> list[str]:
        joints = np.concatenate([rng.random((25, 3)) + 1, rng.random((25, 8)) * 500], axis=1)
        rows = [" ".join(f"{value:.4f}" for value in joint) + " 2" for joint in joints]
        return [f"7205759403793110{number} 0 1 1 1 1 0 0.1 0.2 2", "25", *rows]

    def clip(counts: list[int], announced: int | None = None) -> str:
        lines = [str(len(counts) if announced is None else announced)]
        for count in counts:
            lines += [str(count), *(line for number in range(count) for line in body(number))]
        return "\n".join(lines) + "\n"

    good = clip([1, 2] * 8)
    return texts(
        good,
        no_bodies=clip([0] * 12),
        some_bodies=clip([0, 1] * 12),
        seven_bodies=clip([7] * 12),
        a_billion_frames=clip([1] * 12, 10**9),
        fewer_frames=clip([1] * 12, 5),
        no_frames="0\n",
        only_counts="1000000000\n" + "1\n" * 10_000,
        a_billion_bodies="3\n1000000000\n",
        a_billion_joints=good.replace("\n25\n", "\n1000000000\n", 1),
        all_nan=good.replace("1.", "nan"),
    )
