"""NTU RGB+D: from the text files into the store, by an independent reading of the same lines."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import ntu_files
import numpy as np
import pytest
import recordings

from mmcl.common.errors import BadClip, UserError
from mmcl.data.preparation.build import prepare
from mmcl.data.prompts import load_prompts
from mmcl.data.readers.ntu import NTU60, NTU120, missing_skeletons
from mmcl.data.readers.ntu_skeleton import parse

TAKES = {"S001C001P001R001A001": (103, 1), "S001C001P001R001A002": (158, 1), "S001C003P008R002A058": (70, 2)}


def naive(path: Path) -> tuple[int, dict[int, dict[int, np.ndarray]]]:
    """Frames of a file, and body id -> frame -> (25, 12) float64: line by line, trusting the file."""
    lines = iter(path.read_text().split("\n"))
    total = int(next(lines))
    bodies: dict[int, dict[int, np.ndarray]] = {}
    for frame in range(total):
        for _ in range(int(next(lines))):
            body = int(next(lines).split()[0])
            rows = [[float(word) for word in next(lines).split()] for _ in range(int(next(lines)))]
            bodies.setdefault(body, {})[frame] = np.array(rows)
    return total, bodies


@pytest.fixture(scope="module")
def real(test_data: Path) -> Path:
    return test_data / "ntu"


def test_the_store_holds_what_the_files_hold(real: Path, tmp_path: Path) -> None:
    store = prepare(NTU60(real), tmp_path / "out", workers=1, progress=False).store
    assert store.ids == list(TAKES) and (store.layout.name, store.fps) == ("kinect_v2_25", 30)
    assert store.labels.tolist() == [0, 1, 57] and store.subjects.tolist() == [1, 1, 8]
    assert store.cameras.tolist() == [1, 1, 3] and store.trials.tolist() == [1, 1, 2]
    assert store.video_frames.tolist() == [103, 158, 0]  # one picture for each skeleton frame
    for index, (clip, (frames, people)) in enumerate(TAKES.items()):
        total, bodies = naive(real / "skeleton" / f"{clip}.skeleton")
        assert store.joints(index).shape == (people, frames, 25, 3) and len(bodies) == people and total == frames
        stacked = [np.stack([poses[frame] for frame in range(total)]) for poses in bodies.values()]
        moving = sorted(stacked, key=lambda body: -body[..., :3].reshape(-1, 3).var(axis=0).sum())
        assert np.array_equal(store.joints(index), np.float32(moving)[..., :3])
        if store.video_frames[index]:
            assert np.array_equal(store.pixels(index)[:, 0], np.float32(moving[0][store.frame_indices(index), :, 5:7]))


@pytest.mark.parametrize("clip", [0, 1])
def test_joints_land_on_the_person_in_the_picture(real: Path, clip: int) -> None:
    """A dark shirt before a bright wall: the trunk's joints are on the shirt, points beside them on the wall."""
    import av

    reader = NTU60(real)
    source = reader.scan()[clip]
    raw = reader.read(source)
    assert raw.pixels is not None and raw.picture == (1920, 1080)
    with av.open(str(source.video)) as container:
        pictures = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert len(pictures) == raw.joints.shape[1] and pictures[0].shape == (1080, 1920)

    def dark(shift: int) -> float:
        """Share of trunk joints (mid spine, shoulders) that are much darker than what is left and right of them."""
        spots = [
            pictures[frame][v - 5 : v + 5, [u + shift, u - 300, u + 300]].mean(axis=0)
            for frame in range(0, len(pictures), 9)
            for u, v in raw.pixels[0, frame, [1, 4, 8, 20]].astype(int)
        ]
        return float(np.mean([here < (left + right) / 2 - 60 for here, left, right in spots]))

    assert dark(0) > 0.95 and dark(150) == dark(-150) == 0


def test_pixels_are_scaled_to_a_smaller_copy_of_the_video(tmp_path: Path) -> None:
    clip = ntu_files.name()
    ntu_files.write(tmp_path / "ntu", clip)
    recordings.write_video(tmp_path / "ntu" / "nturgb+d_rgb" / f"{clip}_rgb.avi", 20, (960, 540), codec="mpeg4")
    store = prepare(NTU60(tmp_path / "ntu"), tmp_path / "out", workers=1, progress=False).store
    poses = ntu_files.person(20)[store.frame_indices(0)]
    assert np.allclose(store.pixels(0)[:, 0], ntu_files.pixels(poses) / 2, atol=0.05)


def test_missing_skeletons_are_the_official_lists(real: Path) -> None:
    both = (real / "missing_skeletons_120.txt").read_text().split()
    first = (real / "missing_skeletons_60.txt").read_text().split()
    assert len(both) == 535 and missing_skeletons() == set(both)
    assert len(first) == 302 and {name for name in both if int(name[1:4]) <= 17} == set(first)


def test_sixty_actions_are_part_of_the_hundred_and_twenty(tmp_path: Path) -> None:
    names = [ntu_files.name(action, setup=setup) for action, setup in ((1, 1), (60, 17), (61, 18), (120, 32), (5, 20))]
    listed = ["S001C002P005R002A008", "S019C001P046R001A075"]
    strange = ["S001C001P001R001A000", "S001C001P001R001A121", "S033C001P001R001A001"]
    for name in (*names, *listed, *strange):
        ntu_files.write(tmp_path / "s", name, [])
    ((small, few), (large, many)) = ((reader, reader.scan()) for reader in (NTU60(tmp_path), NTU120(tmp_path)))
    assert [clip.id for clip in few] == names[:2] and [clip.label for clip in few] == [0, 59]
    assert [clip.id for clip in many] == sorted(names) and [clip.label for clip in many] == [0, 59, 60, 4, 119]
    (tmp_path / "s" / "notes.txt").write_text("no recording")
    (tmp_path / "s" / "S001C001P001R001A001.SKELETON").write_text("no name of a recording")
    (small, _), (large, _) = ((reader, reader.scan()) for reader in (NTU60(tmp_path), NTU120(tmp_path)))
    strange.insert(1, "S001C001P001R001A001.SKELETON")
    assert [name for name, _ in small.left_out] == [listed[0], *strange]
    assert [name for name, _ in large.left_out] == [*listed, *strange] and "no name" in large.left_out[-1][1]
    assert "missing skeletons" in large.left_out[1][1]


def test_what_is_left_out_is_named_in_the_store(tmp_path: Path) -> None:
    for name in (ntu_files.name(), "S001C002P005R002A008"):
        ntu_files.write(tmp_path / "s", name)
    summary = prepare(NTU60(tmp_path / "s"), tmp_path / "out", workers=1, progress=False)
    assert summary.store.ids == [ntu_files.name()] and summary.skipped == []
    with (tmp_path / "out" / "skipped.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["S001C002P005R002A008"]


def test_archives_are_read_like_folders(tmp_path: Path) -> None:
    """The folder; the folder around it; one archive; and the two official archives side by side, as downloaded."""
    old, new, both = tmp_path / "old", tmp_path / "new", tmp_path / "both" / "nturgb+d_skeletons"
    for number in range(6):
        late = number > 3
        name = ntu_files.name(100 + number if late else number + 1, performer=number + 1, setup=20 if late else 2)
        frames = ntu_files.frames_of(9, (ntu_files.FIRST_ID + number, 0, ntu_files.person(9, seed=number)))
        for folder in (new if late else old, both):
            ntu_files.write(folder, name, frames, newline="\r\n" if number == 2 else "\n")
    (tmp_path / "zips").mkdir()
    ntu_files.zip_folder(old, tmp_path / "zips" / "nturgbd_skeletons_s001_to_s017.zip")
    ntu_files.zip_folder(new, tmp_path / "zips" / "nturgbd_skeletons_s018_to_s032.zip", inner="")
    (tmp_path / "zips" / "nturgbd_rgb_s001.zip").write_bytes(b"not looked into")
    expected = {clip.id: NTU120(both).read(clip).joints for clip in NTU120(both).scan()}
    assert len(expected) == 6
    whole = ntu_files.zip_folder(both, tmp_path / "all.zip")
    for source in (both.parent, tmp_path / "zips", whole):
        reader = NTU120(source)
        clips = reader.scan()
        copy = pickle.loads(pickle.dumps(reader))
        assert [clip.id for clip in clips] == list(expected)
        assert all(np.array_equal(copy.read(clip).joints, expected[clip.id]) for clip in reversed(clips))
    assert len(NTU60(tmp_path / "zips").scan()) == 4


def test_videos_are_found_where_people_unpack_them(tmp_path: Path) -> None:
    clip, other = ntu_files.name(), tmp_path / "other"
    skeletons = ntu_files.write(tmp_path / "ntu" / "nturgb+d_skeletons", clip).parent
    assert NTU60(skeletons).scan()[0].video is None
    video = tmp_path / "ntu" / "nturgb+d_rgb" / f"{clip}_rgb.avi"
    pictures = other / f"{clip}_rgb"
    for path in (video, pictures / "0001.jpg"):
        path.parent.mkdir(parents=True)
        path.touch()
    assert NTU60(skeletons).scan()[0].video == str(video)
    assert NTU60(tmp_path / "ntu").scan()[0].video == str(video)
    assert NTU60(skeletons, other).scan()[0].video == str(pictures)
    with pytest.raises(UserError, match=f"no {clip}_rgb.avi"):
        NTU60(skeletons, tmp_path).scan()


def test_a_wrong_source_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UserError, match=r"--source is a folder of \.skeleton files"):
            NTU60(path).scan()
    (tmp_path / "nturgbd_skeletons_s001_to_s017.zip").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(UserError, match="s017.zip: damaged or cut off"):
        NTU60(tmp_path)
    with pytest.raises(UserError, match="video folder does not exist"):
        NTU60(tmp_path, tmp_path / "nothing")


def test_prompts_name_the_official_classes() -> None:
    first, both = load_prompts("ntu60"), load_prompts("ntu120")
    assert (len(first.names), len(set(both.names)), len(set(both.descriptions))) == (60, 120, 120)
    assert first.names == both.names[:60] and first.descriptions == both.descriptions[:60]
    spots = {1: "drink water", 23: "hand waving", 50: "punching", 58: "handshaking", 60: "walking apart", 80: "squat"}
    spots |= {61: "put on headphone", 96: "cross arms", 106: "hit other person", 120: "finger-guessing game"}
    assert all(both.names[action - 1].startswith(name) for action, name in spots.items())
    assert NTU120.actions == len(both.names) and NTU60.actions == len(first.names)


def test_bad_files_say_what_is_wrong() -> None:
    good = ntu_files.text(ntu_files.frames_of(9, (1, 0, ntu_files.person(9)))).encode()
    lines = good.split(b"\n")
    header, joint = b"1 0 1 1 1 1 0 0.0276 -0.0574 2", lines[4]
    cases = {
        b"": "the file is empty",
        good[: len(good) // 2]: "announces 9 frames, ends in frame 5",
        b"\n".join(lines[:29]): "announces 9 frames, ends after frame 1",
        good.replace(b"9", b"1000000000", 1): "announces 1000000000 frames, ends after frame 9",
        good.replace(b"9", b"8", 1): "announces 8 frames, goes on after them in line 226",
        good.replace(b"\n1\n", b"\n1000000000\n", 1): "line 30 is not the 10 numbers of a body",
        good.replace(b"\n25\n", b"\n24\n", 1): "line 4 announces 24 joints, expected 25",
        good.replace(b"\n25\n", b"\n-1\n", 1): "line 4 is not a number of joints: '-1'",
        good.replace(header, header[2:], 1): "line 3 is not the 10 numbers of a body",
        good.replace(joint, joint + b" 7", 1): "a joint has 13 numbers, expected 12",
        good.replace(joint, b"", 1): "a joint has 0 numbers, expected 12",
        good.replace(joint, b"x" + joint, 1): "something else than a number among the joints",
        good.replace(joint, joint.replace(b" ", b"\xff", 1), 1): "not a text file",
        good + b"more\n": "goes on after them",
        b"3\n0\n0\n0\n": "no body in any of its 3 frames",
        b"PK\3\4": "is not a number of frames",
    }
    for data, reason in cases.items():
        with pytest.raises(BadClip, match=reason):
            parse(data)
    assert parse(good.replace(joint, b"\t" + joint.replace(b" ", b"  ") + b" "))[0] == 9  # blanks are not damage


def test_a_joint_without_coordinates_is_a_missing_joint() -> None:
    poses = ntu_files.person(9)
    poses[3, 7], poses[4, 8, 0] = np.nan, np.inf
    poses[5] = 0
    total, [track] = parse(ntu_files.text(ntu_files.frames_of(9, (1, 0, poses))).encode())
    assert total == 9 and track.frames.tolist() == [0, 1, 2, 3, 4, 6, 7, 8]
    missing = ~track.joints.any(axis=-1)
    assert np.argwhere(missing).tolist() == [[3, 7], [4, 8]]
    assert np.array_equal(np.isnan(track.pixels).all(axis=-1), missing)
