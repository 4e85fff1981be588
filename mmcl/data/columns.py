"""Files of a clip store: Arrow streams. What their columns are, how they are written and mapped.

Ragged arrays are flat lists: joints is M*T*V*C float32 numbers. A stream may end without an end mark, so a part grows
by appending record batches, and a part that was cut back to a whole batch is whole again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

FORMAT = 4
READABLE = (3, FORMAT)  # 3 has no confidence, joints in space alone, and no digests of its part files
WHOLE_NUMBERS = ("label", "subject", "camera", "setup", "trial", "bodies", "frames", "video_frames")
SHORT = ("id", "digest", *WHOLE_NUMBERS, "splits")  # what the index repeats of every clip
FLAT: dict[str, type[np.generic]] = {
    "joints": np.float32, "confidence": np.float16, "frame_indices": np.int32, "boxes": np.float32,
    "pixels": np.float32,
}  # fmt: skip


def schema(columns: Iterable[str] | None = None) -> pa.Schema:
    """Columns of a store's parts (or the named ones), with the metadata by which `datasets` recognises them.

    id; digest, see :func:`clip_digest`; splits, the lists of its dataset's own files that a clip is on; label,
    subject, camera, setup, trial; bodies M; frames T; video_frames (0 without video); joints M*T*V*C metres, or of
    planar joints halves of the picture's height; confidence M*T*V, from 0 to 1 (none where nobody says it);
    frame_indices, the m sampled skeleton frames; crops, a JPEG for each of them (none without video); boxes m*4, x0 y0
    x1 y1 of the crops in video pixels; pixels m*M*V*2, the sampled frames' joints in video pixels (NaN where unknown).
    """
    from datasets import Features, List, Value

    known: dict[str, Any] = {"id": Value("string"), "digest": Value("binary")}
    known |= {name: Value("int32") for name in WHOLE_NUMBERS}
    known |= {"splits": List(Value("string"))}
    known |= {"joints": List(Value("float32")), "confidence": List(Value("float16"))}
    known |= {"frame_indices": List(Value("int32"))}
    known |= {"crops": List(Value("binary")), "boxes": List(Value("float32")), "pixels": List(Value("float32"))}
    return Features({name: known[name] for name in columns or known}).arrow_schema


def batch_of(rows: Sequence[Mapping[str, Any]], columns: pa.Schema) -> pa.RecordBatch:
    """Rows, one value for each column, as one record batch."""
    return pa.record_batch([_array(column, [row[column.name] for row in rows]) for column in columns], schema=columns)


def _array(column: pa.Field, values: list[Any]) -> pa.Array:
    if column.name not in FLAT:
        return pa.array(values, column.type)
    # pa.array() would look at every number by itself, which takes longer than reading them from the recording
    flat = np.concatenate([np.asarray(value, dtype=FLAT[column.name]).reshape(-1) for value in values])
    ends = np.cumsum([0, *(np.size(value) for value in values)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat), type=column.type)


def stream(columns: pa.Schema, batches: Iterable[pa.RecordBatch]) -> bytes:
    """A whole Arrow stream."""
    return b"".join([columns.serialize().to_pybytes(), *(batch.serialize().to_pybytes() for batch in batches)])


def check_lists(found: pa.Schema, columns: Iterable[str]) -> None:
    """Whether a part has these list columns, each of its type.

    Raises:
        ValueError: naming one that it lacks, or that holds something else.
    """
    for name in columns:
        at = found.get_field_index(name)  # -1, too, where there are two
        kind = found.field(at).type if at >= 0 else pa.null()
        wanted = pa.from_numpy_dtype(FLAT[name]) if name in FLAT else pa.binary()
        if not (pa.types.is_list(kind) and kind.value_type == wanted):
            raise ValueError(f"its column {name} is {kind if at >= 0 else 'missing'}, not a list of {wanted}")


def map_file(file: Path) -> list[pa.RecordBatch]:
    """Record batches of one file; their buffers are views on the memory-mapped file, and keep it mapped.

    Raises:
        ValueError: the content is no Arrow stream, or a cell is empty.
    """
    with pa.memory_map(str(file)) as mapped:
        content = mapped.read_buffer()
    try:
        batches = list(pa.ipc.open_stream(content))
        for batch in batches:
            batch.validate(full=True)  # else a damaged offset would be followed to wherever it points
            if any(column.null_count for column in batch.columns):
                raise ValueError("a cell without a value")
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"no readable Arrow stream: {error}") from error
    return batches


def clip_digest(row: Mapping[str, Any]) -> bytes:
    """sha256 over what training can see of one clip: id, label, people, camera, lists, joints, confidence and crops."""
    total = hashlib.sha256(json.dumps({key: row[key] for key in ("id", "splits", *WHOLE_NUMBERS)}).encode())
    total.update(np.ascontiguousarray(row["joints"], dtype="<f4").tobytes())
    total.update(np.ascontiguousarray(row.get("confidence", ()), dtype="<f2").tobytes())
    for jpeg in row["crops"]:
        total.update(hashlib.sha256(jpeg).digest())
    return total.digest()


def content_fingerprint(digests: Iterable[bytes], facts: Mapping[str, Any]) -> str:
    """sha256 over what the numbers of a store mean, and over the clips' digests, in clip order.

    It does not depend on how clips are spread over files, nor on where or by how many processes they were made.

    Args:
        digests: see :func:`clip_digest`.
        facts: content of ``store.json``, of which layout, frame rate, class names and coordinates are looked at.
    """
    meaning = [facts["layout"], float(facts["fps"]), facts["class_names"]]
    if (dimensions := facts.get("dimensions", 3)) != 3:
        meaning.append(dimensions)
    total = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
    for digest in digests:
        total.update(digest)
    return total.hexdigest()


def file_digest(file: Path) -> str:
    """sha256 (hexadecimal) of a file."""
    total = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            total.update(block)
    return total.hexdigest()
