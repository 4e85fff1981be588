"""A video in, labels out, through the whole verb, with an estimator that finds coloured squares."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import av
import numpy as np
import pytest
import torch
from made_people import LAYOUT, Squares, write_walk

from mmcl.common.errors import BadClip, UserError
from mmcl.deploy.films import clips_of, judge
from mmcl.deploy.predictor import Predictor
from mmcl.deploy.stream import Watched
from mmcl.encoders.building import build_encoder
from mmcl.models.bundle import describe, write_bundle
from mmcl.models.model import Model
from mmcl.pose import ESTIMATORS
from mmcl.pose.gathering import gather
from mmcl.pose.live import Live
from mmcl.pose.recording import Refinement, exchanged
from mmcl.pose.worker import Watch
from mmcl.predict import main as predict
from mmcl.skeletons.believable import fill, mend
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))
from making import write_small  # noqa: E402

CROSSING = [list(range(60, 260, 4)), list(range(260, 60, -4))]  # columns of 50 frames


@pytest.fixture(scope="module", autouse=True)
def squares():
    with patch.dict(ESTIMATORS._entries, {"squares": "made_people:Squares"}):
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film") / "bundle"
    write_small(folder)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_walk(tmp_path_factory.mktemp("video") / "cross.mp4", CROSSING)


@pytest.fixture(scope="module")
def glances(video):
    return list(Watch(Squares(Squares.options_type()), video))


def run(bundle, *words) -> int:
    return predict([str(bundle), *map(str, words), "--estimator", "squares"])


def test_each_person_gets_the_label_of_each_of_their_windows(bundle, video, glances, capsys) -> None:
    assert run(bundle, video, "--json", "--windows", "--span", 20, "--hop", 15, "--top", 6) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["person"], row["begin"]) for row in said] == [(who, at) for who in (1, 2) for at in (0, 0.5, 1.0)]
    recording, predictor = gather(glances, (320, 240), LAYOUT, Refinement()), Predictor(bundle, "mediapipe_33")
    clips = recording.columns()
    for row in said:
        begin = round(row["begin"] * 30)
        window = clips[row["person"] - 1 : row["person"], begin : begin + 20]
        expected = predictor.rank(fill(mend(window[..., :3]).joints)[0])
        assert [(p["label"], p["name"]) for p in row["predictions"]] == [each[:2] for each in expected]
        np.testing.assert_allclose([p["probability"] for p in row["predictions"]], [p for *_, p in expected], atol=2e-6)


def test_files_are_written(bundle, video, tmp_path, capsys) -> None:
    words = ["--csv", tmp_path / "a.csv", "--srt", tmp_path / "a.srt", "--draw", tmp_path / "a.mp4", "--together"]
    assert run(bundle, video, *words, "--span", 30) == 0
    out = capsys.readouterr().out
    assert "together" in out and "cross.mp4" in out
    assert (tmp_path / "a.csv").read_text().splitlines()[1].startswith(f"{video},all,0.000,")
    assert " --> " in (tmp_path / "a.srt").read_text()
    with av.open(str(tmp_path / "a.mp4")) as drawn:
        frames = [frame.to_ndarray(format="rgb24") for frame in drawn.decode(video=0)]
    assert len(frames) == 50 and frames[0].shape == (240, 320, 3)
    assert np.abs(frames[10].astype(int) - 120).max(axis=-1)[140:].max() > 60  # legs, where the film shows nothing


def test_a_bad_video_does_not_end_the_job(bundle, video, tmp_path, capsys) -> None:
    (tmp_path / "cut.mp4").write_bytes(b"nothing")
    assert run(bundle, tmp_path / "cut.mp4", tmp_path / "none.mp4", video, "--span", 50) == 2
    out, err = capsys.readouterr()
    assert out.count("cross.mp4") == 2 and "cut.mp4: not a readable video" in err and "none.mp4: no such video" in err
    (tmp_path / "a.csv").write_text("what was found before")
    assert run(bundle, tmp_path / "cut.mp4", "--csv", tmp_path / "a.csv") == 2
    assert (tmp_path / "a.csv").read_text() == "what was found before"  # no table of nothing in its place


def test_a_film_is_followed_as_it_goes_on(bundle, video, capsys) -> None:
    assert run(bundle, "--follow", video, "--json", "--span", 20, "--hop", 15) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted({row["person"] for row in said}) == [1, 2] and len(said) == 6
    assert [row["end"] for row in said if row["person"] == 1] == pytest.approx([19 / 30, 34 / 30, 49 / 30], abs=2e-3)


def test_a_window_of_a_slow_film_begins_with_its_first_frame(bundle, tmp_path, capsys) -> None:
    slow = write_walk(tmp_path / "slow.mp4", [[60 + 4 * step for step in range(30)]], fps=15)
    assert run(bundle, "--follow", slow, "--json", "--span", 20, "--hop", 5) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [(row["begin"], row["end"]) for row in said if row["end"] > 19 / 15 - 0.01]
    np.testing.assert_allclose(found, np.array([(0, 19), (5, 24), (10, 29)]) / 15, atol=2e-3)


def test_what_was_found_is_written_whatever_fails_behind_it(bundle, video, tmp_path) -> None:
    table = tmp_path / "a.csv"
    with patch("mmcl.deploy.annotate.annotate", side_effect=BadClip("gone")):
        assert run(bundle, video, "--csv", table, "--draw", tmp_path / "a.mp4", "--span", 50) == 2
    assert len(table.read_text().splitlines()) == 3
    with (
        patch("mmcl.deploy.watch.write_beside", side_effect=OSError("no room")),
        pytest.raises(OSError, match="no room"),
    ):
        run(bundle, video, "--csv", table, "--span", 25)
    assert len(table.read_text().splitlines()) > 1


def test_no_recording_is_written_over(bundle, video, tmp_path) -> None:
    copy = tmp_path / "in.mp4"
    copy.write_bytes(video.read_bytes())
    (tmp_path / "link.mp4").symlink_to(copy)
    for flag, file in (("draw", copy), ("csv", copy), ("srt", tmp_path / "link.mp4")):
        with pytest.raises(UserError, match=f"--{flag} .* is a video that is looked at"):
            run(bundle, copy, f"--{flag}", file)
    with pytest.raises(UserError, match="is what --csv writes"):
        run(bundle, copy, "--csv", tmp_path / "a", "--srt", tmp_path / "a")
    assert copy.read_bytes() == video.read_bytes()


def test_a_place_that_cannot_be_is_found_before_the_video_is_looked_at(bundle, video, tmp_path, monkeypatch) -> None:
    (tmp_path / "notes").write_text("mine")
    with patch("mmcl.deploy.watch.look_at", side_effect=AssertionError("it was looked at")):
        for flag in ("csv", "srt", "draw"):
            with pytest.raises(UserError, match=f"--{flag} .*notes is a file, and no folder"):
                run(bundle, video, f"--{flag}", tmp_path / "notes" / "new" / "a.mp4")
        monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
        with pytest.raises(UserError, match="--csv .*: nothing may be written in the folder"):
            run(bundle, video, "--csv", tmp_path / "new" / "a.csv")


def test_live_joints_are_where_those_of_the_whole_film_are(glances) -> None:
    live, whole = Live(LAYOUT, (320, 240), Refinement()), gather(glances, (320, 240), LAYOUT, Refinement())
    for glance in glances:
        people = live.step(glance)
    for joints in people.values():
        away = np.linalg.norm(whole.joints[:, -1].mean(axis=1) - joints[:, :3].mean(axis=0), axis=-1)
        assert away.min() < 0.35  # a smoothed path lags behind: a seventeenth of a second at 1.5 metres a second


def test_flat_models_are_shown_the_picture(glances) -> None:
    for mirrored in (False, True):
        recording = gather(glances, (320, 240), LAYOUT, Refinement(mirrored=mirrored))
        flat, space = clips_of(recording, planar=True), clips_of(recording, planar=False)
        assert flat.shape == space.shape == (2, 50, 33, 4) and not flat[..., 2].any()
        middle = flat[0, 0, :, :2].mean(axis=0) * 120 * ((-1 if mirrored else 1), -1) + (160, 120)
        np.testing.assert_allclose(middle, recording.pixels[0, 0].mean(axis=0), atol=0.1)


@pytest.mark.parametrize("mirrored", [False, True])
def test_confidences_reach_a_model_as_they_do_from_a_file(glances, tmp_path, mirrored) -> None:
    """Of a whole film, and live: each joint has its own, and one of which the estimator is not sure is missing."""
    sure = np.linspace(0, 0.95, 33, dtype=np.float32)  # of the nose, which is first, none
    poses = [replace(each.poses, confidence=np.tile(sure, (len(each.poses), 1))) for each in glances]
    seen = [replace(each, poses=found) for each, found in zip(glances, poses, strict=True)]
    how = Refinement(mirrored=mirrored)
    recording = gather(seen, (320, 240), LAYOUT, how)
    order = exchanged(LAYOUT) if mirrored else list(range(33))
    for planar in (False, True):
        clips = clips_of(recording, planar)
        np.testing.assert_allclose(np.median(clips[..., 3], axis=1), np.stack([sure[order]] * 2), atol=1e-6)
        assert not clips[:, :, 0].any() and clips[:, :, 1:, :2].any(axis=-1).all()
    live = Live(LAYOUT, (320, 240), how)
    last = [live.step(each) for each in seen][-1]
    for person in last.values():
        np.testing.assert_allclose(person[:, 3], sure[order], atol=1e-6)
        assert not person[0].any() and person[1:, :3].any(axis=-1).all()
    predictor = Predictor(confident(tmp_path / "bundle"), "mediapipe_33")
    watched = Watched(predictor.rank, predictor.joints, predictor.reading)
    found = judge(Path("film.mp4"), recording, watched, False, 50, 50, together=True).labels[0].ranking
    np.save(tmp_path / "clip.npy", recording.columns())  # what `mmcl pose` writes
    assert found == predictor.classify_file(tmp_path / "clip.npy")
    assert found != watched(clips_of(recording, planar=False)[..., :3])  # as if all joints were sure


def confident(folder: Path) -> Path:
    """A bundle that looks at confidences alone."""
    torch.manual_seed(1)
    layout = load_layout("utd_mhad_20")
    encoder = build_encoder("ctrgcn", layout, 3, {"width": 8, "depth": 3, "persons": 2, "channels": 1})
    preprocess = Preprocess(layout, layout, 2, PreprocessOptions(streams=("confidence",), window=16))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        encoder.train()(torch.rand(8, 2, 16, 20, 1))
    folder.mkdir()
    write_bundle(folder, Model(describe("ctrgcn", encoder.eval(), preprocess, ["a", "b", "c"]), encoder, preprocess))
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.npy", "b.mp4"], "not both at once"),
        (["a.npy", "--draw", "x.mp4"], "--draw belongs to videos"),
        (["a.mp4", "b.mp4", "--srt", "x.srt"], "of one video"),
        (["a.mp4", "--layout", "coco_17"], "the estimator says it"),
        (["--follow", "camera", "--csv", "x.csv"], "--csv belongs to video files"),
        (["a.mp4", "--draw", "x.avi"], "a drawn video ends in .mp4"),
        (["a.mp4", "--srt", "."], "this is a folder"),
        (["a.mp4", "--span", "0"], "--span and --hop must be one frame or more"),
    ],
)
def test_mistakes_are_said(bundle, words, said) -> None:
    with pytest.raises(UserError, match=said):
        run(bundle, *words)
