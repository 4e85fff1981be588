"""Frames, boxes and crops against loops written out by hand."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import recordings
from PIL import Image

from mmcl.data import crops
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.preparation.worker import Job, make_row
from mmcl.data.readers.utd_mhad import UTDMHAD


@pytest.mark.parametrize(("frames", "count"), [(1, 5), (3, 5), (5, 5), (67, 5), (125, 8), (300, 1)])
def test_sampled_frames_are_the_middles_of_equal_segments(frames: int, count: int) -> None:
    expected = [int(frames * (2 * i + 1) / (2 * count)) for i in range(count)]
    assert crops.sample_frames(frames, count).tolist() == expected
    assert min(expected) >= 0 and max(expected) < frames


def test_video_frames_follow_time_not_index() -> None:
    indices = crops.sample_frames(60, 5)
    assert crops.video_frames(indices, 60, 60) is indices
    for total in (15, 30, 59, 61, 120, 240):
        mapped = crops.video_frames(indices, 60, total)
        assert (mapped >= 0).all() and (mapped < total).all()
        assert np.abs((mapped + 0.5) / total - (indices + 0.5) / 60).max() <= 1 / total


def test_box_is_square_and_holds_all_bodies_with_a_margin() -> None:
    points = np.array([[[100, 50], [120, 130]], [[150, 60], [140, 110]]], dtype=np.float32)
    x0, y0, x1, y1 = crops.person_box(points, 320, 240)
    assert x1 - x0 == y1 - y0 == 100  # 80 pixels tall, a quarter more
    assert (x0 + x1) / 2 == pytest.approx(125, abs=1) and (y0 + y1) / 2 == pytest.approx(90, abs=1)


def test_box_stays_in_the_picture_where_it_fits() -> None:
    points = np.array([[[2, 10], [60, 200]]], dtype=np.float32)
    x0, y0, x1, y1 = crops.person_box(points, 320, 240)
    assert x0 == 0 and y0 == 0 and x1 == y1 == 238
    x0, y0, x1, y1 = crops.person_box(np.array([[[150.0, 0], [170, 239]]]), 320, 240)
    assert x1 - x0 == y1 - y0 == 299 and y0 < 0 and y1 > 240  # taller than the picture: black above and below


@pytest.mark.parametrize(
    "points",
    [
        None,
        np.full((2, 20, 2), np.nan),
        np.full((1, 20, 2), 77.0),
        np.full((1, 20, 2), -1e6),
        np.full((1, 20, 2), np.inf),
    ],
    ids=["unknown", "NaN", "one point", "far outside", "infinite"],
)
def test_without_usable_joints_the_box_is_the_whole_picture(points: np.ndarray | None) -> None:
    assert crops.person_box(points, 320, 240).tolist() == [0, -40, 320, 280]


def test_one_wild_joint_does_not_blow_up_the_box() -> None:
    points = np.array([[[100, 50], [120, 130], [1e7, 90]]])
    x0, y0, x1, y1 = crops.person_box(points, 320, 240)
    assert x1 - x0 <= 320


def test_a_crop_is_the_pixels_of_its_box_and_black_outside() -> None:
    frame = np.random.default_rng(0).integers(60, 200, (24, 32, 3)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    box = np.array([-20, 60, 204, 284], dtype=np.float32)
    picture = np.asarray(Image.open(io.BytesIO(crops.crop(frame, box, 224)))).astype(int)
    expected = np.zeros((224, 224, 3), dtype=int)
    for y in range(224):
        for x in range(224):
            if 0 <= x - 20 < 320 and 0 <= y + 60 < 240:
                expected[y, x] = frame[y + 60, x - 20]
    assert np.abs(picture - expected).mean() < 6  # JPEG
    assert picture[:, :10].max() < 20


def test_points_go_where_the_crop_goes() -> None:
    frame = np.zeros((240, 320, 3), dtype=np.uint8)
    frame[98:103, 148:153] = 255
    box = np.array([50, 20, 250, 220], dtype=np.float32)
    picture = np.asarray(crops.decode(crops.crop(frame, box, 100))).max(axis=-1).astype(float)
    y, x = np.indices(picture.shape)
    centre = np.array([(x * picture).sum(), (y * picture).sum()]) / picture.sum() + 0.5
    assert crops.to_crop(np.array([150.5, 100.5]), box, 100) == pytest.approx(centre, abs=0.3)


class WithPixels(UTDMHAD):
    """Its files say where the joints are, in pixels of a picture three times as wide and twice as high as the video."""

    picture: tuple[int, int] | None = (960, 480)

    def read(self, source: ClipSource) -> RawClip:
        joints = super().read(source).joints
        pixels = UTDMHAD.pixels(self, joints, 320, 240) * (np.array(self.picture or (320, 240)) / (320, 240))
        return RawClip(joints=joints, pixels=pixels.astype(np.float32), picture=self.picture)

    def pixels(self, joints: np.ndarray, width: int, height: int) -> np.ndarray:
        raise AssertionError("the files have said it")


@pytest.mark.parametrize("picture", [(960, 480), None])
def test_pixels_of_another_picture_size_are_scaled(tmp_path: Path, picture: tuple[int, int] | None) -> None:
    recordings.write_take(tmp_path, 1, 1, video=20)
    known, by_camera = WithPixels(tmp_path), UTDMHAD(tmp_path)
    known.picture = picture
    rows = [make_row(reader.scan()[0], Job(reader, 20, 5, 224, 9)) for reader in (known, by_camera)]
    assert rows[0]["pixels"] == pytest.approx(rows[1]["pixels"], abs=1e-3)
    assert np.array_equal(rows[0]["boxes"], rows[1]["boxes"]) and rows[0]["crops"] == rows[1]["crops"]
    assert (np.diff(rows[0]["boxes"].reshape(5, 4)[:, [0, 2]]) < 240).all()  # a person, not the whole picture


class WithAbsentBody(UTDMHAD):
    """A second body that comes late, and a joint that is never seen."""

    def read(self, source: ClipSource) -> RawClip:
        body = super().read(source).joints
        second = np.where(np.arange(body.shape[1])[:, None, None] < 10, 0, body + np.float32([0.8, 0, 0]))
        body[:, :, 3] = 0
        return RawClip(joints=np.concatenate([body, second]))

    def pixels(self, joints: np.ndarray, width: int, height: int) -> np.ndarray:
        return np.nan_to_num(super().pixels(joints, width, height))  # a camera that puts the sensor itself at 0, 0


def test_joints_that_are_not_there_do_not_pull_the_box(tmp_path: Path) -> None:
    recordings.write_take(tmp_path, 1, 1, video=20)
    alone, both = UTDMHAD(tmp_path), WithAbsentBody(tmp_path)
    one, two = (make_row(reader.scan()[0], Job(reader, 20, 4, 224, 9)) for reader in (alone, both))
    pixels = two["pixels"].reshape(4, 2, 20, 2)
    assert np.isnan(pixels[:2, 1]).all() and np.isnan(pixels[:, 0, 3]).all() and np.isfinite(pixels[2:, 1]).all()
    boxes = np.stack([row["boxes"].reshape(4, 4) for row in (one, two)])
    assert np.array_equal(boxes[0, :2], boxes[1, :2])
    reach = pixels[2:, 1, :, 0].max(axis=1)  # there the second body is in the box, to the right of the first
    assert (boxes[0, 2:, 2] < reach).all() and (reach < boxes[1, 2:, 2]).all()


def test_crops_of_a_smaller_copy_of_an_ntu_video_show_the_same_person(test_data: Path, tmp_path: Path) -> None:
    from mmcl.data.readers.ntu import NTU60

    name = "S001C001P001R001A001_rgb.avi"
    with av.open(str(test_data / "ntu" / "rgb" / name)) as source, av.open(str(tmp_path / name), "w") as copy:
        stream = copy.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 640, 360, "yuv420p", 8_000_000
        for frame in source.decode(video=0):
            copy.mux(stream.encode(frame.reformat(640, 360, "yuv420p")))
        copy.mux(stream.encode())
    rows = []
    for folder in (test_data / "ntu" / "rgb", tmp_path):
        reader = NTU60(test_data / "ntu" / "skeleton", folder)
        clip = next(clip for clip in reader.scan() if clip.video is not None)
        rows.append(make_row(clip, Job(reader, 25, 3, 112, 60)))
    full, small = (row["boxes"].reshape(-1, 4) for row in rows)
    assert np.abs(full / 3 - small).max() < 2
    assert (full[:, 3] - full[:, 1]).min() > 300 and (full[:, 3] - full[:, 1]).max() < 900
    for ours, theirs in zip(rows[0]["crops"], rows[1]["crops"], strict=True):
        assert np.abs(np.asarray(crops.decode(ours)).astype(int) - np.asarray(crops.decode(theirs))).mean() < 8
