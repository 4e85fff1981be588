"""Options of readers are flags of ``mmcl prepare``; files in other axes, units and with confidence; planar joints."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from own_clips import LAYOUT, RNG, listed, made, text, write
from own_clips import person as one_person
from recordings import person

from mmcl.common.errors import BadClip, UserError
from mmcl.data.dataset import ClipDataset, plain_batches
from mmcl.data.inspection.checks import check
from mmcl.data.inspection.contact_sheet import contact_sheet
from mmcl.data.loader import loader
from mmcl.data.preparation.build import prepare
from mmcl.data.readers import READERS
from mmcl.data.readers.folder import Folder
from mmcl.data.readers.folder_options import FolderOptions
from mmcl.data.readers.options import option
from mmcl.data.readers.pyskl import PySKLOptions
from mmcl.data.store import open_store
from mmcl.evaluate import main as evaluate
from mmcl.export import main as export
from mmcl.predict import main as predict
from mmcl.prepare import build_parser
from mmcl.prepare import main as prepare_verb
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.train import main as train


def help_of(dataset: str) -> str:
    return " ".join(build_parser(dataset).format_help().split())


def test_every_option_of_every_reader_is_a_flag_with_help() -> None:
    flags = {"folder": ("layout", "fps", "name", "unit", "axes", "columns"), "pyskl": ("layout", "fps"),
             "sysu": ("axes",), "demo": ("subjects", "clips-per-subject", "seed", "layout", "first-subject"),
             "utd-mhad": ()}  # fmt: skip
    for dataset, names in flags.items():
        words = help_of(dataset)
        assert all(re.search(rf"--{name} \S+ +\w", words) for name in names), words
        assert ("--axes" in words) == ("axes" in names)
    assert "--unit {m,cm,mm} of coordinates in space (m)" in help_of("folder")


def test_a_word_behind_an_option_is_no_data_set_and_numbers_have_bounds(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="pose: "):  # and not: --layout is not for ntu60
        prepare_verb(["--out", "ntu60", "folder", "--source", "pose", "--layout", "utd_mhad_20"])
    for words in (["--timeout", "1e300"], ["--timeout", "0"]):
        with pytest.raises(UserError, match="--timeout .* at most 86400"):
            prepare_verb(["folder", "--source", "x", "--out", "y", *words])
    with pytest.raises(SystemExit):
        prepare_verb(["folder", "--source", "x", "--out", "y", "--frames", "9" * 23])
    assert "must be from 1 to 1,000,000" in capsys.readouterr().err and not (tmp_path / "y").exists()


@dataclass(frozen=True)
class StrangersOptions:
    gain: float = option(2.0, "what coordinates are multiplied by", "G")
    side: Literal["left", "right"] = option("left", "which hand")
    mirrored: bool = option(False, "whether the files are mirrored")
    cameras: int | None = option(None, "how many cameras there are")


class Stranger(Folder):
    """A reader of another package: its own options, no line of mmcl knows them."""

    name = "stranger"
    options_type = StrangersOptions
    seen: StrangersOptions | None = None

    def __init__(self, source: Path, video: Path | None, options: StrangersOptions) -> None:
        super().__init__(source, video, FolderOptions(LAYOUT))
        type(self).seen = self.options = options

    def read(self, source):  # the parent's, without its options
        raise BadClip("not read")


def test_a_strangers_reader_brings_its_own_flags(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(READERS._entries, "stranger", f"{__name__}:Stranger")
    root = listed(tmp_path / "in", "a,0", "b,1")
    words = ["stranger", "--source", str(root), "--out", str(tmp_path / "out"), "--workers", "1"]
    with pytest.raises(UserError, match="all 2 clips are bad"):
        prepare_verb([*words, "--gain", "3", "--mirrored", "--side=right", "--cameras", "4"])
    assert Stranger.seen == StrangersOptions(3.0, "right", True, 4)
    with pytest.raises(UserError, match="--gain is for stranger, not for folder"):
        prepare_verb(["folder", "--source", str(root), "--out", str(tmp_path / "out"), "--gain=3"])
    with pytest.raises(UserError, match="unknown option '--gian': `mmcl prepare stranger --help`"):
        prepare_verb([*words, "--gian", "3"])
    with pytest.raises(SystemExit):
        prepare_verb([*words, "--side", "middle"])


def test_axes_units_rates_and_confidence_are_told_on_the_command_line(tmp_path) -> None:
    """MediaPipe's world landmarks: y down and x to the right, centimetres here, and a visibility behind each joint."""
    truth = one_person(6).astype(np.float32)  # of noise, no geometry could tell in which order it lies
    visible = RNG.random((6, 20, 1)).astype(np.float32)
    visible[3, 4] = 0
    root = listed(tmp_path / "in", "a,0", "b,1")
    for name in ("a", "b"):
        columns = np.concatenate([truth * (-100, -100, 100), visible], axis=-1)
        (root / f"{name}.csv").write_text(text(columns))
    words = ["folder", "--source", str(root), "--out", str(tmp_path / "out"), "--layout", LAYOUT, "--workers", "1"]
    prepare_verb([*words[:4], str(tmp_path / "guessed"), *words[5:]])  # of four, the last is how sure it is
    np.testing.assert_array_equal(open_store(tmp_path / "guessed").numbers(0)[0, ..., 3] > 0, visible[..., 0] > 0)
    prepare_verb([*words, "--unit", "cm", "--axes=-x-yz", "--fps", "25", "--columns", "xyzc"])
    store = open_store(tmp_path / "out")
    assert store.fps == 25 and store.dimensions == 3
    expected = np.where(visible > 0, truth, 0)
    np.testing.assert_allclose(store.joints(0)[0], expected, rtol=1e-5, atol=1e-7)
    assert store.joints(0).dtype == np.float32
    np.testing.assert_allclose(store.confidence(0)[0], visible[..., 0], atol=5e-4)  # half precision
    assert store.confidence(0)[0, 3, 4] == 0


@pytest.mark.parametrize(("axes", "columns"), [("zxy", (2, 0, 1)), ("-x-yz", (0, 1, 2)), ("-y-zx", (1, 2, 0))])
def test_axes_are_put_right_column_by_column(tmp_path, axes, columns) -> None:
    truth = made()[0]
    signs = [-1 if f"-{'xyz'[axis]}" in axes else 1 for axis in columns]
    write(listed(tmp_path, "a,0") / "a.npy", truth[..., list(columns)] * signs)
    reader = Folder(tmp_path, options=FolderOptions(LAYOUT, axes=axes))
    np.testing.assert_allclose(reader.read(reader.scan()[0]).joints[0], truth, rtol=1e-6)


def planar(tmp_path: Path, score: bool = True) -> Path:
    """Twelve clips of two classes in pixels of a picture, each joint with how sure it is."""
    lines = [f"c{number:02d},{number % 2},{number % 3},640,480" for number in range(12)]
    root = listed(tmp_path / "in", *lines, header="id,label,subject,width,height")
    for number in range(12):
        body = person(20).transpose(2, 0, 1) * (200, -200, 0) + (320, 240, 0) + RNG.normal(size=(20, 20, 3))
        sure = np.full((20, 20, 1), 0.5 + number / 100)
        sure[0, 3] = 0
        write(root / f"c{number:02d}.npy", np.concatenate([body[..., :2], *([sure] if score else [])], axis=-1))
    return root


def test_planar_joints_keep_two_coordinates_and_their_score(tmp_path, capsys) -> None:
    root = planar(tmp_path)
    reader = Folder(root, options=FolderOptions(LAYOUT, columns="xyc"))
    store = prepare(reader, tmp_path / "out", workers=1, progress=False).store
    assert store.dimensions == 2 and store.joints(3).shape == (1, 20, 20, 2)
    assert store.joints_in_space(3).shape == (1, 20, 20, 3)
    file = np.load(root / "c03.npy")
    expected = (file[..., :2] - (320, 240)) / (240, -240)
    expected[0, 3] = 0
    np.testing.assert_allclose(store.joints(3)[0], expected, atol=1e-6)
    np.testing.assert_allclose(store.confidence(3)[0], np.where(expected.any(-1), 0.53, 0), atol=5e-4)
    report = check(store, progress=False)
    assert "metres (planar keypoints have none)" in report.unchecked and not report.store.has_video
    contact_sheet(store)
    with pytest.raises(UserError, match="another store .different columns, dimensions|all 12 clips are bad|different"):
        prepare(Folder(root, options=FolderOptions(LAYOUT, columns="xyz")), tmp_path / "out", workers=1, progress=False)


def test_confidence_goes_all_the_way_to_the_encoder(tmp_path) -> None:
    reader = Folder(planar(tmp_path), options=FolderOptions(LAYOUT, columns="xyc"))
    store = prepare(reader, tmp_path / "out", workers=1, progress=False).store
    assert store.has_confidence and store.channels == 4
    made = ClipDataset(store)[(0, 5)].joints
    assert made.shape == (1, 20, 20, 4) and made.dtype == np.float32 and not made[..., 2].any()
    batch = next(iter(loader(ClipDataset(store), plain_batches([5, 6], 2))))
    options = PreprocessOptions(
        streams=("joint", "confidence"), dimensions=2, window=20, crop=1.0, centring="none", gaps="zero"
    )  # fmt: skip
    preprocess = Preprocess(store.layout, store.layout, 1, options)
    assert preprocess.channels == 3
    x = preprocess(batch["joints"], batch["lengths"])  # the path of evaluation, export and prediction
    np.testing.assert_allclose(x[:, 0, ..., :2], np.stack([store.joints(clip)[0] for clip in (5, 6)]), atol=1e-6)
    np.testing.assert_allclose(x[:, 0, ..., 2], np.stack([store.confidence(clip)[0] for clip in (5, 6)]), atol=1e-6)
    assert x[0, 0, 0, 3].abs().sum() == 0  # the joint without confidence is missing
    alone = Preprocess(store.layout, store.layout, 1, replace(options, streams=("joint",)))
    np.testing.assert_array_equal(alone(batch["joints"], batch["lengths"]), x[..., :2])


@pytest.mark.parametrize("score", [False, True])
def test_planar_joints_are_trained_on_judged_and_predicted(tmp_path, monkeypatch, capsys, score) -> None:
    columns, streams = ("xyc", "[joint,confidence]") if score else (None, "[joint]")
    reader = Folder(planar(tmp_path, score), options=FolderOptions(LAYOUT, name="flat", columns=columns))
    assert reader.dimensions == 2
    prepare(reader, tmp_path / "out", workers=1, progress=False)
    (tmp_path / "own.yaml").write_text("a: {dataset: flat, train: {subject: [0, 1]}, test: {subject: 2}}")
    words = [f"--data.path={tmp_path / 'out'}", f"--data.protocol={tmp_path / 'own.yaml'}", "--data.workers=0"]
    words += ["--encoder.name=tcn", "--encoder.width=16", "--data.batch_size=8", "--preprocess.window=16"]
    words += ["--schedule.epochs=1", "--engine.trackers=[]", f"--out={tmp_path / 'run'}"]
    assert train([*words, f"--preprocess.streams={streams}"]) == 0
    assert evaluate(["--checkpoint", str(tmp_path / "run")]) == 0
    assert "top-1" in capsys.readouterr().out
    assert export(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "weights")]) == 0
    files_and_frames(tmp_path, tmp_path / "weights", score, monkeypatch, capsys)
    if score:  # a graph takes x, y and the confidence
        words = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "bundle"), "--onnx", "--drop-weights"]
        assert export(words) == 0
        to_judge = ["--data", str(tmp_path / "out"), "--protocol", str(tmp_path / "own.yaml")]
        assert evaluate(["--checkpoint", str(tmp_path / "bundle"), *to_judge, "--out", str(tmp_path / "report")]) == 0
        own = np.load(tmp_path / "run" / "report-test" / "scores.npz")["scores"]
        np.testing.assert_allclose(np.load(tmp_path / "report" / "scores.npz")["scores"], own, atol=1e-4)
        files_and_frames(tmp_path, tmp_path / "bundle", score, monkeypatch, capsys)


def files_and_frames(folder: Path, bundle: Path, score: bool, monkeypatch, capsys) -> None:
    """`mmcl predict` says of files in pixels, and of their frames, what `mmcl evaluate` said of the clips."""
    saved = np.load(folder / "run" / "report-test" / "scores.npz")
    odds = np.exp(saved["scores"] - saved["scores"].max(axis=1, keepdims=True))
    believed = dict(zip(saved["ids"].tolist(), odds / odds.sum(axis=1, keepdims=True), strict=True))
    words = [str(bundle), "--json", "--top", "2", "--picture", "640x480", *(["--columns", "xyc"] if score else [])]
    files = [folder / "in" / f"{name}.npy" for name in believed]
    capsys.readouterr()
    assert predict([*words, *map(str, files)]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for file, one in zip(files, said, strict=True):
        found = {each["label"]: each["probability"] for each in one["predictions"]}
        assert [found[0], found[1]] == pytest.approx(believed[file.stem], abs=5e-3)  # the store rounds confidences
        lines = "\n".join(",".join(map(str, frame.ravel())) for frame in np.load(file).reshape(20, -1))
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        assert predict([*words, "--follow", "-", "--span", "20"]) == 0
        streamed = json.loads(capsys.readouterr().out)["predictions"]
        assert {each["label"]: each["probability"] for each in streamed} == pytest.approx(found, abs=1e-5)
    without = np.load(files[0])[..., :2]
    np.save(folder / "without.npy", without)
    plain = [str(bundle), "--picture", "640x480", str(folder / "without.npy")]
    assert predict(plain) == 0  # a file that says no confidence is sure of its joints
    assert predict([str(bundle), str(folder / "without.npy")]) == 2
    assert "--picture" in capsys.readouterr().err


def test_a_clip_of_other_coordinates_than_the_first_costs_itself(tmp_path) -> None:
    root = listed(tmp_path, "a,0,,", "b,1,640,480", header="id,label,width,height")
    write(root / "a.npy", made())
    write(root / "b.npy", RNG.random((1, 6, 20, 2)) * 400)
    reader = Folder(root, options=FolderOptions(LAYOUT))
    assert reader.dimensions == 3
    with pytest.raises(BadClip, match="2 coordinates a joint, the first clip has 3"):
        reader.read(reader.scan()[1])
    other = Folder(root, options=FolderOptions(LAYOUT, columns="xy"))
    assert other.dimensions == 2 and other.read(other.scan()[1]).joints.shape == (1, 6, 20, 2)


@pytest.mark.parametrize(("options", "complaint"), [
    (FolderOptions(LAYOUT, columns="zyx"), "columns 'zyx': choose one of xyz, xyzc, xy, xyc"),
    (FolderOptions(LAYOUT, axes="x-yy"), "axes 'x-yy': expected x, y and z in the order of the columns"),
    (FolderOptions(LAYOUT, fps=float("nan")), "fps nan"),
])  # fmt: skip
def test_options_that_cannot_be_are_refused(tmp_path, options, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        Folder(listed(tmp_path, "a,0"), options=options)


def test_a_pickles_frame_rate_is_told(tmp_path) -> None:
    import pickle

    entry = {"frame_dir": "a", "label": 0, "keypoint": RNG.random((1, 6, 17, 2)), "img_shape": (480, 640)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([entry]))
    reader = READERS["pyskl"](tmp_path / "x.pkl", options=PySKLOptions(fps=24))
    assert reader.fps == 24 and reader.dimensions == 2 and reader.read(reader.scan()[0]).confidence is None
    with pytest.raises(UserError, match="fps 0: give frames per second"):
        READERS["pyskl"](tmp_path / "x.pkl", options=PySKLOptions(fps=0))
