"""Stores whose bytes have changed are found out: by the first read of a clip, and by ``mmcl check``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import made_stores
import numpy as np
import pyarrow as pa
import pytest

from mmcl.check import main as check
from mmcl.common.errors import UserError
from mmcl.data.clip import ClipSource
from mmcl.data.clip_parts import DamagedClip
from mmcl.data.columns import map_file, stream
from mmcl.data.dataset import ClipDataset, plain_batches
from mmcl.data.loader import loader
from mmcl.data.preparation.sources import check_ids
from mmcl.data.store import ClipStore, open_store
from mmcl.train import main as train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return made_stores.write_store(tmp_path_factory.mktemp("made") / "store", 40, crops=2)


@pytest.fixture
def copy(made: ClipStore, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.path, tmp_path / "copy"))


def overwrite(file: Path, where: int, data: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(where)
        opened.write(data)


def read_all(path: Path) -> list[bytes]:
    store = open_store(path)
    return [store.joints(i).tobytes() + b"".join(store.crops(i)) + bytes([store.labels[i]]) for i in range(len(store))]


@pytest.mark.parametrize("seed", range(40))
def test_no_changed_byte_gets_into_training(made, copy, seed, capsys) -> None:
    """3 to 200 bytes at one place of any file: either nothing that is read differs, or it is refused."""
    rng = np.random.default_rng(seed)
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.name != "skipped.csv")
    file = files[-1] if seed % 2 else files[int(rng.integers(len(files)))]
    size = int(rng.integers(3, 200))
    where = int(rng.integers(0, max(file.stat().st_size - size, 1)))
    overwrite(file, where, rng.bytes(size))
    try:
        assert read_all(copy) == read_all(made.path)  # padding, or boxes, which nobody learns from
    except UserError as error:
        assert str(copy) in str(error) and "\n" not in str(error)
    if file.suffix == ".arrow" and file.name != "index.arrow":
        assert check([str(copy), "--full", "--out", str(copy.parent / "report")]) == 1
        assert "BAD  files whose bytes have changed: 1 (clips/part-00000.arrow)" in capsys.readouterr().out


def test_one_changed_coordinate_ends_a_read_and_is_named(made, copy, capsys, tmp_path) -> None:
    part = copy / "clips" / "part-00000.arrow"
    needle = made.joints(7).tobytes()
    where = part.read_bytes().index(needle) + 401
    overwrite(part, where, b"\x01")
    store = open_store(copy)
    assert store.joints(6).shape == (1, 20, 25, 3)
    for read in (store.joints, store.crops, store.confidence):
        with pytest.raises(DamagedClip, match="clip clip000007 is not what was prepared"):
            read(7)
    with pytest.raises(UserError, match="clip000007"):
        list(loader(ClipDataset(store), plain_batches(range(40), 8), workers=1))
    assert check([str(copy), "--out", str(tmp_path / "report")]) == 1
    out = capsys.readouterr().out
    assert "BAD  not what was prepared: 1 (clip000007) -> a damaged disk or copy" in out and "verdict: BAD" in out
    assert check([str(made.path), "--full", "--out", str(tmp_path / "report")]) in (0, 1)
    assert "passed: content as it was prepared" in capsys.readouterr().out


def test_a_label_that_changed_in_the_index_is_found_out(made, copy) -> None:
    index = map_file(copy / "index.arrow")[0]
    column = index.schema.get_field_index("label")
    labels = index.column(column).to_numpy().copy()
    labels[3] = (labels[3] + 1) % 5
    changed = index.set_column(column, index.schema.field(column), pa.array(labels, pa.int32()))
    (copy / "index.arrow").write_bytes(stream(index.schema, [changed]))
    with pytest.raises(DamagedClip, match="clip000003"):
        open_store(copy).joints(3)


def test_training_ends_in_one_line(demo_store, tmp_path, capsys) -> None:
    copy = Path(shutil.copytree(demo_store, tmp_path / "store"))
    store = open_store(copy)
    clip = int(np.flatnonzero(store.subjects == 1)[0])
    part = copy / "clips" / "part-00000.arrow"
    overwrite(part, part.read_bytes().index(store.joints(clip).tobytes()) + 100, b"\x55\x55\x55")
    words = [f"--data.path={copy}", "--data.protocol=demo/cross_subject", "--data.workers=0", "--encoder.width=8"]
    words += ["--encoder.depth=3", "--data.batch_size=24", "--preprocess.window=16", "--augmentation.crop_floor=16"]
    with pytest.raises(DamagedClip, match=f"clip {store.ids[clip]} is not what was prepared"):
        train([*words, "--schedule.epochs=1", "--engine.trackers=[]", f"--out={tmp_path / 'run'}"])


@pytest.mark.parametrize("name", ["../../elsewhere.arrow", "/etc/passwd", "part-00000.arrow/../../x", "part-1.arrow"])
def test_a_store_that_names_files_elsewhere_is_not_opened(copy, name) -> None:
    facts = json.loads((copy / "store.json").read_text())
    facts["parts"][0]["file"] = name
    (copy / "store.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="no name of a part"):
        open_store(copy)


def test_a_store_of_format_3_is_read(made, copy) -> None:
    part = copy / "clips" / "part-00000.arrow"
    batches = [batch.drop_columns("confidence") for batch in map_file(part)]
    part.write_bytes(stream(batches[0].schema, batches))
    facts = json.loads((copy / "store.json").read_text())
    for entry in facts["parts"]:
        entry |= {"bytes": part.stat().st_size}
        del entry["sha256"]
    (copy / "store.json").write_text(json.dumps({**facts, "format": 3}))
    store = open_store(copy)
    assert store.fingerprint == made.fingerprint and read_all(copy) == read_all(made.path)
    assert store.confidence(3) is None and made.confidence(3) is None
    assert store.dimensions == 3 and store.parts.damaged_files() == []
    (copy / "store.json").write_text(json.dumps({**facts, "format": 5}))
    with pytest.raises(UserError, match="format 5, this mmcl reads 3 and 4"):
        open_store(copy)


@pytest.mark.parametrize(
    ("file", "column", "changed", "complaint"),
    [
        ("index.arrow", "splits", None, "the index has no column splits"),
        ("index.arrow", "splits", pa.array([0] * 40), "its column splits is int64"),
        ("clips/part-00000.arrow", "joints", None, "its column joints is missing, not a list of float"),
        ("clips/part-00000.arrow", "pixels", pa.array([["x"]] * 40), "its column pixels is list<item: string>"),
        ("clips/part-00000.arrow", "crops", pa.array([None] * 40, pa.list_(pa.binary())), "a cell without a value"),
        ("clips/part-00000.arrow", "boxes", pa.array([[0.0] * 3] * 40, pa.list_(pa.float32())), "clip clip000000 is"),
        ("clips/part-00000.arrow", "frame_indices", pa.array([[99]] * 40, pa.list_(pa.int32())), "clip clip000000 is"),
    ],
    ids=str,
)
def test_columns_of_another_kind_are_found_out(copy, file, column, changed, complaint) -> None:
    batches = [batch.drop_columns(column) for batch in map_file(copy / file)]
    if changed is not None:
        batches = [batch.append_column(column, changed) for batch in batches]
    (copy / file).write_bytes(stream(batches[0].schema, batches))
    facts = json.loads((copy / "store.json").read_text())
    facts["index_bytes"] = (copy / "index.arrow").stat().st_size
    facts["parts"][0]["bytes"] = (copy / "clips" / "part-00000.arrow").stat().st_size
    (copy / "store.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=complaint):
        store = open_store(copy)
        _ = store.joints(0), store.boxes(0), store.frame_indices(0)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["a" * 201, *"bcde"], "a class has 201 characters, more than 200"),
        (["a\nb", *"bcde"], r"a name holds control characters: 'a\\nb'"),
        (["a\0b", *"bcde"], r"a name holds control characters: 'a\\x00b'"),
    ],
)
def test_names_of_classes_that_no_store_has(copy, names, complaint) -> None:
    facts = json.loads((copy / "store.json").read_text())
    (copy / "store.json").write_text(json.dumps({**facts, "class_names": names}))
    with pytest.raises(UserError, match=complaint):
        open_store(copy)


@pytest.mark.parametrize(
    ("name", "in_store", "made"),
    [
        ("q" * 501, "an id has 501 characters", "clip qqq.* has 501 characters"),
        ("a\nb", "an id holds control characters: 'a", r"clip 'a\\nb' holds control characters"),
        ("a\0b", "an id holds control characters: 'a", r"clip 'a\\x00b' holds control characters"),
    ],
)
def test_names_of_clips_that_no_store_has(tmp_path, name, in_store, made) -> None:
    with pytest.raises(UserError, match=in_store):
        made_stores.write_store(tmp_path / "store", 1, make=lambda *facts: {**made_stores.row(*facts), "id": name})
    with pytest.raises(UserError, match=made):
        check_ids([ClipSource(name, 0, 1)])


def test_parts_without_digests_are_those_of_format_3(copy) -> None:
    facts = json.loads((copy / "store.json").read_text())
    del facts["parts"][0]["sha256"]
    (copy / "store.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="a part has no sha256"):
        open_store(copy)
