"""Pictures of skeletons: every bone where it belongs, both bodies told apart, rows worth looking at."""

from __future__ import annotations

from pathlib import Path

import made_stores
import numpy as np
import pytest
import recordings
from PIL import Image, ImageDraw

from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.crops import to_crop
from mmcl.data.inspection.contact_sheet import (
    GAP,
    HEAD,
    LABEL,
    TILE,
    choose,
    contact_sheet,
    crop_pictures,
    frame_pictures,
)
from mmcl.data.inspection.drawing import LEFT, MOST, RIGHT, TINTS, TORSO, _shorten, draw_skeleton, flat_points, write
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.store import ClipStore
from mmcl.skeletons.layout import layout_names, load_layout


def count(picture: np.ndarray, colour: tuple[int, int, int], within: int = 30) -> int:
    return int((np.abs(picture.astype(int) - colour).sum(axis=-1) < within).sum())


class PairsReader(UTDMHAD):
    """Somebody joins in the second take of one class, half-way through and to the right; nobody has a number."""

    pair = "a2_s2_t1"

    def scan(self) -> list[ClipSource]:
        return [ClipSource(clip.id, clip.label, 0, skeleton=clip.skeleton, video=clip.video) for clip in super().scan()]

    def read(self, source: ClipSource) -> RawClip:
        body = super().read(source).joints
        if source.id != self.pair:
            return RawClip(body)
        late = np.arange(body.shape[1])[:, None, None] < body.shape[1] // 2
        return RawClip(np.concatenate([body, np.where(late, 0, body + np.float32([1, 0, 0]))]))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Two takes of each of three classes, one of them with two bodies, one with video."""
    base = tmp_path_factory.mktemp("pairs")
    for action in (1, 2, 3):
        for subject in (1, 2):
            recordings.write_take(base, action, subject, video=20 if (action, subject) == (3, 2) else None)
    return prepare(PairsReader(base), base / "out", workers=1, frames_per_clip=4, progress=False).store


@pytest.mark.parametrize(("name", "body"), [*((name, 0) for name in layout_names()), ("coco_17", 1)])
def test_bones_join_the_joints_of_the_layout_in_their_colour(name: str, body: int) -> None:
    """Any two joints alone: between them there is a bone, of the colour of its outer end, or there is nothing.

    What links left and right is grey. Of the pairs without a bone some are tried.
    """
    layout = load_layout(name)
    colours = [
        TINTS[body][0 if joint.startswith("left_") else 1 if joint.startswith("right_") else 2]
        for joint in layout.joints
    ]
    ends = np.array([[40.5, 40.5], [160.5, 120.5]])
    expected = {}
    for outer, inner in layout.edges + layout.links:
        sides = {layout.joints[outer].partition("_")[0], layout.joints[inner].partition("_")[0]}
        expected[outer, inner] = TINTS[body][2] if sides == {"left", "right"} else colours[outer]
    everything = [(a, b) for a in range(layout.joint_count) for b in range(a)]
    apart = [(a, b) for a, b in everything if not {(a, b), (b, a)} & set(expected)]
    expected |= {apart[i]: (255, 255, 255) for i in np.random.default_rng(0).integers(0, len(apart), 60)}
    for pair, colour in expected.items():
        points = np.full((2, layout.joint_count, 2), np.nan)
        points[body, list(pair)] = ends
        picture = np.asarray(draw_skeleton(Image.new("RGB", (200, 160), "white"), points, layout)).astype(int)
        assert np.abs(picture[80, 100] - colour).sum() < 30, [layout.joints[joint] for joint in pair]
        for joint, (x, y) in zip(pair, ends.astype(int), strict=True):
            assert np.abs(picture[y, x] - colours[joint]).sum() < 30


@pytest.mark.parametrize(("text", "letters"), [("wave", 200), ("w" * 40, 200), ("w" * 3000, 200), ("i" * 3000, 10**6)])
def test_as_much_of_a_text_is_written_as_fits(text: str, letters: int) -> None:
    """By a handful of measurements, and not by one a letter."""

    class Ruler:
        measured = 0

        def textlength(self, text: str, font: object) -> int:
            self.measured += len(text)
            return len(text) * 10

    for room in (0, 5, 10, 95, letters):
        ruler = Ruler()
        shown = _shorten(ruler, text, None, room)  # type: ignore[arg-type]
        fits = text if len(text) * 10 <= room and len(text) <= MOST else text[: max(min(room // 10 - 1, MOST), 0)] + "…"
        assert shown == fits and ruler.measured < 12 * MOST


@pytest.mark.parametrize("text", ["a\nb", "a\0b", "a\r\x1b[31mb"])
def test_a_text_of_several_lines_is_written_on_one(text: str) -> None:
    image = Image.new("RGB", (200, 60), "white")
    write(ImageDraw.Draw(image), (5, 5), text, 15, "black", 150)
    assert 0 < np.flatnonzero((np.asarray(image) < 128).any(axis=(1, 2))).max() < 30


def test_the_left_side_is_drawn_blue_where_the_left_side_is() -> None:
    layout = load_layout("utd_mhad_20")
    points = flat_points(recordings.STANDING[None, None].astype(np.float32), 200)[0]
    picture = np.asarray(draw_skeleton(Image.new("RGB", (200, 200), "white"), points, layout)).astype(int)
    blue, red = ((np.abs(picture - colour).sum(axis=-1) < 60).nonzero() for colour in (LEFT, RIGHT))
    assert len(blue[0]) > 100 and len(red[0]) > 100
    assert blue[1].max() < 100 < red[1].min()  # this person faces us: x grows to the right of the picture
    head, foot = points[0, 0], points[0, 15]
    assert head[1] < foot[1]


def test_what_is_absent_is_not_drawn() -> None:
    joints = np.stack([recordings.STANDING, 0 * recordings.STANDING])[None].astype(np.float32)
    joints[0, 0, 3] = 0
    points = flat_points(joints, 100)
    assert np.isnan(points[0, 1]).all() and np.isnan(points[0, 0, 3]).all() and np.isfinite(points[0, 0, 4:]).all()
    alone = flat_points(joints[:, :1], 100)
    assert np.array_equal(points[:, 0], alone[:, 0], equal_nan=True)  # zeros do not shrink the picture either
    points[0, 0, 5] = 1e12  # a joint just beside the camera
    assert draw_skeleton(Image.new("RGB", (99, 99)), points[0], load_layout("utd_mhad_20")).getbbox() is not None
    empty = Image.new("RGB", (50, 50), "white")
    assert draw_skeleton(empty, np.full((1, 20, 2), np.nan), load_layout("utd_mhad_20")).tobytes() == empty.tobytes()


def test_two_bodies_are_told_apart_where_both_are_there(pairs: ClipStore) -> None:
    assert choose(pairs, 3) == [pairs.ids.index(name) for name in ("a1_s1_t1", "a2_s2_t1", "a3_s2_t1")]
    sheet = np.asarray(contact_sheet(pairs, 3))
    tiles = [sheet[HEAD + 206 : HEAD + 206 + TILE, LABEL + 206 * column :][:, :TILE] for column in range(4)]
    assert all(count(tile, LEFT) > 20 for tile in tiles)
    second = [min(count(tile, colour) for colour in TINTS[1]) for tile in tiles]
    assert second[:2] == [0, 0] and min(second[2:]) > 20
    assert count(sheet[:HEAD], TINTS[1][0]) > 50  # the legend explains them
    assert count(np.asarray(contact_sheet(pairs, 1))[:HEAD], TINTS[1][0]) > 50  # one row is enough to show a pair


def test_the_skeleton_lies_over_the_crop_where_the_joints_are(pairs: ClipStore) -> None:
    index = pairs.ids.index("a3_s2_t1")
    pictures = crop_pictures(pairs, index, 200)
    assert len(pictures) == 4
    for picture, pixels, box in zip(pictures, pairs.pixels(index), pairs.boxes(index), strict=True):
        hand = to_crop(pixels, box, 200)[0, 7].round().astype(int)  # left_hand, the end of its limb
        assert np.abs(np.asarray(picture)[hand[1], hand[0]].astype(int) - LEFT).sum() < 40


def test_the_sheet_shows_different_classes_and_subjects(utd_store: ClipStore) -> None:
    chosen = choose(utd_store, 6)
    assert len({int(utd_store.labels[index]) for index in chosen}) == 6
    assert {int(utd_store.subjects[index]) for index in chosen} == {3, 6}
    assert len(choose(utd_store, 100)) == 8
    sheet = np.asarray(contact_sheet(utd_store, 2))
    assert count(sheet, LEFT) > 500 and count(sheet, RIGHT) > 500 and count(sheet, TORSO) > 200


def test_a_row_shows_no_more_frames_than_there_is_room_for(tmp_path: Path) -> None:
    def sampled(number: int, frames: int, *others: int) -> dict[str, object]:
        return made_stores.row(number, frames, *others) | {"frame_indices": np.arange(frames)}

    store = made_stores.write_store(tmp_path / "store", 2, frames=400, make=sampled)
    assert contact_sheet(store).width == LABEL + 10 * (TILE + GAP) + GAP
    assert len(frame_pictures(store, 0, 50)) == 10 and len(frame_pictures(store, 0, 50, most=3)) == 3


def test_a_real_clip_of_two_people(test_data: Path, tmp_path: Path) -> None:
    from mmcl.data.readers.ntu import NTU60

    store = prepare(NTU60(test_data / "ntu" / "skeleton"), tmp_path / "out", workers=1, progress=False).store
    sheet = np.asarray(contact_sheet(store, 1))  # of the three clips the one that shows most
    assert all(count(sheet, colour) > 100 for tints in TINTS for colour in tints)
