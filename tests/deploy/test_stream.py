"""A stream says what its window would get as a clip, in memory that does not grow; lines are frames or nothing."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from making import people, write_small

from mmcl.common.errors import BadClip, UserError
from mmcl.deploy.files import Reading
from mmcl.deploy.follow import Frames
from mmcl.deploy.predictor import Predictor
from mmcl.deploy.stream import Stream
from mmcl.models.bundle import load_bundle
from mmcl.predict import main as predict
from mmcl.skeletons.believable import fill
from mmcl.skeletons.layout import load_layout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream") / "bundle"
    write_small(folder)
    return folder


def test_every_hop_is_the_offline_prediction_of_its_window(bundle) -> None:
    predictor = Predictor(bundle)
    frames = people(1, 2, 70)[0].numpy()  # (2, 70, 20, 3)
    frames[1, :35] = 0  # the second person comes later
    frames[0, 50:] = 0  # and the first one leaves
    stream = Stream(predictor.rank, 20, 2, span=30, hop=7)
    said = [stream.push(frames[:, number]) for number in range(70)]
    due = [each for each in said if each is not None]
    assert [each.frame for each in due] == [30, 37, 44, 51, 58, 65]
    for each in due:
        window = frames[:, each.frame - 30 : each.frame]
        clip = np.ascontiguousarray(window[window.any(axis=(1, 2, 3))])
        assert each.ranking == predictor.rank(clip)
        with torch.no_grad():
            scores = predictor.model()(torch.from_numpy(clip)[None]).softmax(-1)[0]
        assert each.ranking[0][2] == pytest.approx(float(scores.max()), abs=1e-6)
    assert stream._ring.shape == (6, 30, 20, 3) and stream.finish() is None


def test_whoever_is_in_the_window_is_seen_whatever_slot_they_are_in(bundle) -> None:
    """Third of three slots, a model of two persons: a file leaves the empty ones out, and so does a stream."""
    predictor, frames = Predictor(bundle), people(1, 1, 30)[0].numpy()
    stream = Stream(predictor.rank, 20, 2, span=30, hop=1)
    for number in range(30):
        said = stream.push(np.concatenate([np.zeros((2, 20, 3), np.float32), frames[:, number]]))
    assert said is not None and said.ranking == predictor.rank(frames)


def test_short_and_empty_streams(bundle) -> None:
    predictor, frames = Predictor(bundle), people(1, 3, 12)[0].numpy()
    stream = Stream(predictor.rank, 20, 2, span=30, hop=5)
    assert stream.finish() is None
    assert all(stream.push(frames[:, number]) is None for number in range(12))
    found = stream.finish()
    assert found is not None and found.frame == 12 and found.ranking == predictor.rank(frames[:2].copy())
    nobody = Stream(predictor.rank, 20, 2, span=2, hop=1)
    nobody.push(np.zeros((0, 20, 3), np.float32))
    said = nobody.push(np.zeros((1, 20, 3), np.float32))
    assert said is not None and said.ranking == []
    gap = Stream(predictor.rank, 20, 2, span=2, hop=1)
    holes = frames[:, :2].copy()
    holes[0, 1, 4, 2] = np.nan
    assert gap.push(holes[:, 0]) is None
    with pytest.raises(BadClip, match="infinite"):
        gap.push(np.full_like(frames[:, 0], np.inf))
    said = gap.push(holes[:, 1])
    holes[0, 1, 4] = 0
    assert said is not None and said.frame == 2 and said.ranking == predictor.rank(holes)
    with pytest.raises(UserError, match="a frame must be"):
        nobody.push(np.zeros((1, 19, 3), np.float32))
    with pytest.raises(UserError, match="do not fit into memory"):
        Stream(predictor.rank, 20, 2, 10**15, 1)
    for span, hop in ((0, 1), (1, 0)):
        with pytest.raises(UserError, match="--span and --hop"):
            Stream(predictor.rank, 20, 2, span, hop)


def somebody(frames: int = 20) -> np.ndarray:
    """(T, 20, 3) in UTD-MHAD's joints: a person who is believed."""
    rng = np.random.default_rng(3)
    middle = [(0.0, 0.7), (0.0, 0.5), (0.0, 0.25), (0.0, 0.0)]  # head, spine_shoulder, mid_spine, base_spine
    arm = [(0.2, 0.45), (0.25, 0.2), (0.27, 0.0), (0.28, -0.08)]
    leg = [(0.1, -0.05), (0.11, -0.45), (0.12, -0.8), (0.12, -0.85)]
    places = middle + [(side * x, y) for limb in (arm, leg) for side in (-1, 1) for x, y in limb]
    person = np.array([(x, y, 2.5) for x, y in places], dtype=np.float32)
    person[[15, 19], 2] -= 0.1  # toes point to the sensor
    return (person + rng.normal(0, 0.004, (frames, 20, 3))).astype(np.float32)


KINECT = load_layout("kinect_v1_20")


def test_lines_are_frames_or_refused() -> None:
    frame, frames = np.random.default_rng(0).normal(size=(2, 20, 3)), Frames(KINECT)
    for line in (
        json.dumps(frame.tolist()), json.dumps(frame.ravel().tolist()), ",".join(map(str, frame.ravel())),
        "; ".join(map(str, frame.ravel())), " ".join(map(str, frame.ravel())) + "\n",
        ";".join(map(str, frame.ravel())).replace(".", ","), "\t".join(map(str, frame.ravel())).replace(".", ","),
    ):  # fmt: skip
        np.testing.assert_allclose(frames.parse(line), frame, rtol=1e-6)
    turned = Frames(KINECT, Reading(unit="mm", axes="-x-yz")).parse(json.dumps(frame[0].tolist()))
    np.testing.assert_allclose(turned, frame[:1] * [-1, -1, 1] / 1000, rtol=1e-6)
    for nothing in ("", "NA", "null", "NaN", " none "):
        holes = [[nothing, "1", "1"] if number == 3 else ["1", "2", "3"] for number in range(20)]
        assert not frames.parse(",".join(sum(holes, [])))[0, 3].any()
    null = json.dumps([[None, 1, 1] if number == 3 else [1, 2, 3] for number in range(20)])
    assert not frames.parse(null)[0, 3].any() and frames.parse(null)[0, 4].tolist() == [1, 2, 3]
    seen = np.concatenate([frame[0], np.full((20, 1), 0.9)], axis=1)
    assert frames.parse(json.dumps(seen.tolist())).shape == (1, 20, 3)
    for wrong in (95.0, float("inf"), 1e39):  # as of files: percentages are no confidences
        seen[4, 3] = wrong
        with pytest.raises(BadClip, match="confidences go up to"):
            frames.parse(json.dumps(seen.tolist()))
    many = np.random.default_rng(1).uniform(0.1, 1, (3, 20, 4))
    for line in (
        json.dumps(many.ravel().tolist()),
        ",".join(map(str, many.ravel())),
    ):  # or four bodies of three numbers
        with pytest.raises(BadClip, match="4 of 3 numbers a joint or 3 of 4 numbers a joint"):
            frames.parse(line)
        for columns, shape in (("xyzc", (3, 20, 3)), ("xyz", (4, 20, 3))):
            assert Frames(KINECT, Reading(columns=columns)).parse(line).shape == shape
    assert frames.parse(json.dumps(many.tolist())).shape == (3, 20, 3)
    for line in ("", "words", "1,2,3", "[1,2", "[[1,2],[3]]", '["a"]', ",".join(["inf"] * 60), "[" * 100_000, "1e400"):
        with pytest.raises(BadClip):
            frames.parse(line)


def test_a_header_says_which_number_is_which() -> None:
    frame, frames = np.random.default_rng(0).normal(size=(20, 3)), Frames(KINECT)
    assert frames.takes_header(",".join(["time", *(f"{axis}{joint}" for axis in "xyz" for joint in range(20))]))
    np.testing.assert_allclose(frames.parse(",".join(map(str, [0.5, *frame.T.ravel()])))[0], frame, rtol=1e-6)
    with pytest.raises(BadClip, match="60 numbers, and the header names 61"):
        frames.parse(",".join(map(str, frame.ravel())))
    sure = np.concatenate([frame, np.arange(20)[:, None] / 19], axis=1)
    four = Frames(KINECT).parse(",".join(map(str, sure.ravel())))
    assert not four[0, 0].any() and four[0, 1:] == pytest.approx(frame[1:], rel=1e-6)  # no confidence: not seen


def test_a_pipe_is_followed_and_a_bad_line_costs_itself(bundle, tmp_path, monkeypatch, capsys) -> None:
    frames = somebody(50)[None]
    lines = [",".join(map(str, frames[0, number].ravel())) for number in range(50)]
    lines.insert(10, "not a frame")
    lines.insert(20, "1" * (3 << 20))  # longer than any frame
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    words = [str(bundle), "--json", "--top", "2"]
    assert predict([*words, "--follow", "-", "--span", "40", "--hop", "10"]) == 0
    out, complaints = capsys.readouterr()
    assert complaints.count("warning") == 2 and "line 11 is left out" in complaints and "line 21" in complaints
    said = [json.loads(line) for line in out.splitlines()]
    assert [each["frame"] for each in said] == [40, 50]
    np.save(tmp_path / "window.npy", frames[:, 10:50])
    assert predict([*words, str(tmp_path / "window.npy")]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"] == said[1]["predictions"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    for source, complaint in (("-", "no frames came"), (str(tmp_path / "no.txt"), "cannot be followed")):
        with pytest.raises(UserError, match=complaint):
            predict([*words, "--follow", source])


def test_bytes_that_are_no_text_cost_their_own_line(bundle) -> None:
    frame = ",".join(map(str, somebody(1).ravel().tolist()))
    command = [sys.executable, "-m", "mmcl", "predict", str(bundle), "--follow", "-", "--span", "1", "--hop", "1"]
    done = subprocess.run(
        command, input=b"\xff\xfe\n" + frame.encode() + b"\n", capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert done.returncode == 0 and b"line 1 is left out" in done.stderr and done.stdout.split()[0] == b"1"


def test_a_growing_file_is_followed_until_ctrl_c(bundle, tmp_path) -> None:
    source, lines = tmp_path / "frames.txt", [json.dumps(frame.tolist()) for frame in somebody(12)]
    source.write_text("\n".join(lines[:6]) + "\n")
    command = [sys.executable, "-u", "-m", "mmcl", "predict", str(bundle), "--follow", str(source), "--tail"]
    command += ["--span", "4", "--hop", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().split()[0] == "4"
        with source.open("a") as file:
            file.write("\n".join(lines[6:])[:-5])  # the last line is not whole yet
        assert process.stdout.readline().split()[0] == "8"
        time.sleep(0.1)
        with source.open("a") as file:
            file.write(lines[-1][-5:] + "\n")
        assert process.stdout.readline().split()[0] == "12"
        os.kill(process.pid, signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0 and complaints == ""
    finally:
        process.kill()


def test_frames_with_nobody_count_and_objects_are_frames(bundle, monkeypatch, capsys) -> None:
    frames = somebody()
    lines = [json.dumps({"joints": frame.tolist()}) for frame in frames]
    for number in (3, 4, 10, 19):
        lines[number], frames[number] = "[]", 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    words = [str(bundle), "--follow", "-", "--span", "20", "--hop", "1", "--json"]
    assert predict(words) == 0
    out, complaints = capsys.readouterr()
    assert not complaints and [json.loads(line)["frame"] for line in out.splitlines()] == [20]
    filled = torch.from_numpy(fill(frames[None])[0])
    offline = load_bundle(bundle)(filled[None]).softmax(-1)[0]
    assert json.loads(out)["predictions"][0]["probability"] == pytest.approx(float(offline.detach().max()), abs=1e-5)
    monkeypatch.setattr(sys, "stdin", io.StringIO('1,2,3\n{"bones": []}\n'))
    with pytest.raises(UserError, match="no frames came"):
        predict(words)
    assert capsys.readouterr().err.count("is left out") == 2


def test_what_is_hard_to_believe_is_said_of_files_and_streams(bundle, tmp_path, monkeypatch, capsys) -> None:
    person = somebody()
    np.save(tmp_path / "metres.npy", person)
    np.save(tmp_path / "millimetres.npy", person * 1000)
    np.save(tmp_path / "azure.npy", person * [-1, -1, 1])
    ends = np.concatenate([np.zeros((7, 20, 3)), person])
    ends[10, 4] = -9999
    ends[15, 4] = -9999
    np.save(tmp_path / "ends.npy", ends)
    words = [str(bundle), "--json"]

    def said(name: str, *more: str) -> tuple[list[object], str]:
        assert predict([*words, str(tmp_path / name), *more]) == 0
        out, complaints = capsys.readouterr()
        return json.loads(out)["predictions"], complaints

    right, nothing = said("metres.npy")
    assert nothing == ""
    assert "divide by 1000 (--unit mm)" in said("millimetres.npy")[1]
    assert said("millimetres.npy", "--unit", "mm")[1] == ""
    assert "negate x and y, a half turn (--axes=-x-yz)" in said("azure.npy")[1]
    assert said("azure.npy", "--axes=-x-yz") == (right, "")
    complaint = said("ends.npy")[1]
    assert complaint.count("note: ") == 2 and "7 in front" in complaint and "-9999 in all coordinates" in complaint
    assert predict([*words, str(tmp_path / "azure.npy"), str(tmp_path / "ends.npy"), "--strict"]) == 2
    assert "stands on its head" in capsys.readouterr().err
    lines = [json.dumps((frame * [-1, -1, 1]).tolist()) for frame in person]
    for strict in ([], ["--strict"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
        follow = [*words, "--follow", "-", "--span", "8", "--hop", "4", *strict]
        if strict:
            with pytest.raises(UserError, match="stands on its head.*refused by --strict"):
                predict(follow)
        else:
            assert predict(follow) == 0 and capsys.readouterr().err.count("stands on its head") == 1


def test_a_bad_file_costs_itself(bundle, tmp_path, capsys) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", people(1, 1, 20)[0, 0].numpy() * 0.2)
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    assert predict([str(bundle), *(str(tmp_path / f"{name}.npy") for name in ("a", "bad", "gone", "b"))]) == 2
    out, complaints = capsys.readouterr()
    assert [line.split()[0][-5:] for line in out.splitlines()] == ["a.npy", "b.npy"]
    assert complaints.count("error: ") == 2
    with pytest.raises(UserError, match="--span and --hop belong to --follow"):
        predict([str(bundle), str(tmp_path / "a.npy"), "--hop", "3"])


def test_files_or_follow(bundle) -> None:
    with pytest.raises(UserError, match="--tail belongs to --follow"):
        predict([str(bundle), "a.npy", "--tail"])
    for words in ([], ["a.npy", "--follow", "-"]):
        with pytest.raises(UserError, match="give skeleton files, or --follow"):
            predict([str(bundle), *words])
