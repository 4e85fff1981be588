"""One clip as an animation: as many pictures as frames, for as long as it lasted, joints where they belong."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import recordings
import torch
from PIL import Image

from mmcl import show
from mmcl.common.errors import UserError
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.inspection.animation import HEAD, PANEL, Animation, write_animation
from mmcl.data.inspection.contact_sheet import crop_pictures
from mmcl.data.inspection.drawing import LEFT, RIGHT, TINTS
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.naming import file_stem
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.selection import find_clip
from mmcl.data.store import ClipStore
from mmcl.encoders.building import build_encoder
from mmcl.models.bundle import describe, write_bundle
from mmcl.models.model import Model
from mmcl.page.clips import as_in_pictures
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

SCRIPT = Path(show.__file__)


class OddClips(UTDMHAD):
    """One clip is planar, one has a single frame, one has two bodies and a joint that goes missing."""

    def read(self, source: ClipSource) -> RawClip:
        joints = super().read(source).joints
        if source.id == "a2_s1_t1":
            joints = joints * np.float32([1, 1, 0])
        elif source.id == "a3_s1_t1":
            joints = joints[:, :1]
        elif source.id == "a4_s1_t1":
            joints = np.concatenate([joints, joints + np.float32([0.8, 0, 0.4])])
            joints[0, 5:, 15] = 0
        return RawClip(joints)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    base = tmp_path_factory.mktemp("show")
    for action in (1, 2, 3, 4):
        recordings.write_take(base, action, 1, frames=25, video=25 if action == 1 else None)
    return prepare(OddClips(base), base / "out", workers=1, frames_per_clip=5, progress=False).store


def at(picture: Image.Image, panel: int, point: np.ndarray) -> np.ndarray:
    x, y = (point + (panel, HEAD)).round().astype(int)
    return np.asarray(picture)[y, x].astype(int)


def gif(path: Path) -> tuple[int, int]:
    """Frames and total milliseconds."""
    with Image.open(path) as picture:
        lengths = []
        for number in range(picture.n_frames):
            picture.seek(number)
            lengths.append(picture.info["duration"])
    return len(lengths), sum(lengths)


def mp4(path: Path) -> tuple[int, Fraction]:
    """Frames, and seconds from the first to the end of the last."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.codec_context.pix_fmt == "yuv420p" and stream.width % 2 == stream.height % 2 == 0
        return len(frames), Fraction(len(frames)) / stream.average_rate


@pytest.mark.parametrize(("name", "frames"), [("a1_s1_t1", 25), ("a2_s1_t1", 25), ("a3_s1_t1", 1), ("a4_s1_t1", 25)])
def test_an_animation_has_the_clips_frames_and_length(store: ClipStore, tmp_path: Path, name: str, frames: int) -> None:
    index = store.ids.index(name)
    for suffix in (".gif", ".mp4"):
        write_animation(store, index, tmp_path / f"clip{suffix}", progress=False)
    assert gif(tmp_path / "clip.gif") == (frames, round(frames * 100 / 30) * 10)
    assert mp4(tmp_path / "clip.mp4") == (frames, Fraction(frames, 30))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.gif", "clip.mp4"]  # nothing temporary is left


def test_slow_motion_and_clips_too_quick_for_a_gif(store: ClipStore, tmp_path: Path) -> None:
    write_animation(store, 0, tmp_path / "slow.gif", speed=0.5, progress=False)
    write_animation(store, 0, tmp_path / "slow.mp4", speed=0.5, progress=False)
    assert gif(tmp_path / "slow.gif") == (25, 1670) and mp4(tmp_path / "slow.mp4") == (25, Fraction(25, 15))
    write_animation(store, 0, tmp_path / "quick.gif", speed=4, progress=False)  # 120 frames a second: every third
    assert gif(tmp_path / "quick.gif") == (9, 220)


def test_joints_are_where_the_projection_says(store: ClipStore) -> None:
    index = store.ids.index("a1_s1_t1")
    animation, joints = Animation(store, index), store.joints(index).astype(np.float64)
    assert list(animation.panels) == ["front", "side", "video"]
    first = animation.points("front", 0)[0]
    scale = (first[15, 1] - first[0, 1]) / (joints[0, 0, 0, 1] - joints[0, 0, 15, 1])  # pixels a metre
    for frame in (0, 12, 24):
        picture = animation.picture(frame)
        for view, axis in (("front", 0), ("side", 2)):  # one scale for both views and all frames
            points = animation.points(view, frame)[0]
            assert np.ptp(points[:, 0] - scale * joints[0, frame, :, axis]) < 1e-3
            assert np.ptp(points[:, 1] + scale * joints[0, frame, :, 1]) < 1e-3
            assert points.min() > 0 and points.max() < PANEL
            assert np.abs(at(picture, animation.panels[view], points[11]) - RIGHT).sum() < 40  # right_hand
        left = animation.points("front", frame)[0, 7]  # from the side the right hand hides it
        assert np.abs(at(picture, animation.panels["front"], left) - LEFT).sum() < 40


def test_the_crop_beside_it_is_the_one_of_its_share_of_the_clip(store: ClipStore) -> None:
    index = store.ids.index("a1_s1_t1")
    animation = Animation(store, index)
    assert [animation.crop_at(frame) for frame in range(25)] == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5 + [4] * 5
    assert [animation.crop_at(int(frame)) for frame in store.frame_indices(index)] == [0, 1, 2, 3, 4]
    left = animation.panels["video"]
    for frame in (3, 21):
        panel = animation.picture(frame).crop((left, HEAD, left + PANEL, HEAD + PANEL))
        assert panel.tobytes() == animation.crops[animation.crop_at(frame)].tobytes()


def test_planar_clips_have_no_side_and_two_bodies_two_tints(store: ClipStore) -> None:
    assert list(Animation(store, store.ids.index("a2_s1_t1")).panels) == ["front"]
    both = Animation(store, store.ids.index("a4_s1_t1"))
    picture = both.picture(10)
    for body in (0, 1):
        hand = both.points("front", 10)[body, 7]
        assert np.abs(at(picture, both.panels["front"], hand) - TINTS[body][0]).sum() < 40
    assert np.isnan(both.points("front", 10)[0, 15]).all()  # the foot that went missing
    lowest = np.nanmax(both.views["front"][..., 1])
    assert lowest < both.floor < lowest + 12


def test_the_script_finds_clips_by_id_and_position(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert show.main(["a3_s1_t1", "--data", str(store.path)]) == 0
    assert gif(tmp_path / "a3_s1_t1.gif")[0] == 1
    assert "a3_s1_t1 (wave, 1 frame, 0.0 s): a3_s1_t1.gif" in capsys.readouterr().out
    assert show.main(["2", "--data", str(store.path), "--out", "deep/third.mp4"]) == 0
    assert mp4(tmp_path / "deep" / "third.mp4")[0] == 1
    for wanted in ("a3_s1_t7", "4", "-1"):
        with pytest.raises(UserError, match=rf"no clip '{wanted}'; did you mean .*a\d_s1_t1.* 0 to 3"):
            find_clip(store, wanted)
    with pytest.raises(UserError, match=r"\.gif or a \.mp4"):
        show.main(["0", "--data", str(store.path), "--out", "clip.avi"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a3_s1_t1.gif", "deep"]


def content(page: Path) -> dict[str, Any]:
    """What a page says of its one clip."""
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    (clip,) = json.loads(data)["clips"]
    return clip


def test_a_page_takes_pictures_along_only_where_that_is_asked_for(
    store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert show.main(["a1_s1_t1", "--data", str(store.path), "--html"]) == 0
    page = tmp_path / "a1_s1_t1.html"
    assert f"a1_s1_t1.html ({page.stat().st_size / 1000:.0f} kB)" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert "image/jpeg" not in text and "http:" not in text and "https:" not in text and len(text) < 40_000
    assert show.main(["a1_s1_t1", "--data", str(store.path), "--out", "with.html", "--frames"]) == 0
    pictures = content(tmp_path / "with.html")["pictures"]
    assert pictures["frames"] == store.frame_indices(0).tolist() and len(pictures["jpegs"]) == 5
    jpeg = Image.open(io.BytesIO(base64.b64decode(pictures["jpegs"][2].partition(",")[2])))
    own = np.asarray(crop_pictures(store, 0, 256)[2]).astype(int)
    assert jpeg.size == (256, 256) and np.abs(np.asarray(jpeg).astype(int) - own).mean() < 8
    assert content(page)["flip"] == 1  # these recordings' pictures have x to the right
    monkeypatch.setattr(store, "pixels", lambda index: ClipStore.pixels(store, index) * (-1, 1))
    assert as_in_pictures(store, 0) == -1


def test_a_page_draws_what_a_bundle_says_of_windows(store: ClipStore, tmp_path: Path) -> None:
    encoder = build_encoder("ctrgcn", store.layout, len(store.class_names), {"width": 8, "depth": 3, "persons": 2})
    preprocess = Preprocess(store.layout, store.layout, 2, PreprocessOptions(window=10))
    model = Model(describe("ctrgcn", encoder.eval(), preprocess, store.class_names), encoder, preprocess)
    (tmp_path / "bundle").mkdir()
    write_bundle(tmp_path / "bundle", model)
    words = ["a4_s1_t1", "--data", str(store.path), "--out", str(tmp_path / "clip.html")]
    assert show.main([*words, "--bundle", str(tmp_path / "bundle"), "--hop", "5"]) == 0
    scores, index = content(tmp_path / "clip.html")["scores"], store.ids.index("a4_s1_t1")
    assert scores["windows"] == [[0, 10], [5, 15], [10, 20], [15, 25]] and scores["threshold"] is None
    for (begin, end), shares in zip(scores["windows"], scores["shares"], strict=True):
        own = model(torch.from_numpy(store.joints(index)[None, :, begin:end].copy())).softmax(dim=-1)[0]
        known = [float(own[store.class_names.index(name)]) for name in scores["names"]]
        assert shares == pytest.approx(known, abs=1e-4) and max(shares) == pytest.approx(float(own.max()), abs=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--frames"], "--frames belongs to pages"),
        (["--bundle", "x", "--out", "clip.mp4"], "--bundle belongs to pages"),
        (["--html", "--out", "clip.gif"], r"does not end in \.html"),
        (["--html", "--span", "9"], "name it with --bundle"),
        (["--html", "--bundle", "x", "--hop", "0"], "--hop is 0: it must be at least 1"),
    ],
)
def test_what_belongs_to_pages_is_refused_of_animations(store: ClipStore, words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        show.main(["0", "--data", str(store.path), *words])


def test_as_a_file_it_ends_with_one_line_for_a_mistake(store: ClipStore) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "a1_s1_t2", "--data", str(store.path)], capture_output=True, text=True
    )
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: ") and "a1_s1_t1" in ended.stderr


def test_a_real_take(utd_store: ClipStore, tmp_path: Path) -> None:
    index = utd_store.ids.index("a12_s3_t2")
    write_animation(utd_store, index, tmp_path / "clip.gif", progress=False)
    frames = int(utd_store.frames[index])
    assert gif(tmp_path / "clip.gif") == (frames, round(frames * 100 / 30) * 10)
    assert (tmp_path / "clip.gif").stat().st_size < 3e6


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a/b c", "a_b_c"), ("../../x", "_.._x"), ("-rf", "rf"), ("跳" * 90, "跳" * 66), ("a\0\nb", "a_b")],
)
def test_a_file_is_called_what_any_file_can_be(name: str, stem: str) -> None:
    assert file_stem(name) == stem
