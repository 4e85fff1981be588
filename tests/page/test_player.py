"""The page that plays clips: in a real browser it draws joints where they are, turns, plays, and asks for nothing."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import needs_browser, watched

from mmcl.page.clips import scores_over_time
from mmcl.page.player import as_data, player
from mmcl.page.skeleton import MISSING, encode_joints
from mmcl.skeletons.layout import Layout

OWN = "document.body.dataset.owned = 1"
EVIL = f"</script><script>{OWN}</script><img src=x onerror='{OWN}'>&amp;\u4e2d"
PARENTS = {"left_hand": EVIL, "right_hand": EVIL}
LAYOUT = Layout.from_dict({"name": "three", "joints": [EVIL, "left_hand", "right_hand"], "parents": PARENTS})
LEFT, RIGHT = (0x2D, 0x7D, 0xFF), (0xF0, 0x3C, 0x3C)
FRAMES, FPS = 40, 20.0


def joints() -> np.ndarray:
    """Two people; the left hand of the first rises, its right hand is missing from frame 10 to 19."""
    clip = np.zeros((2, FRAMES, 3, 3), dtype=np.float32)
    clip[0] = [[0, 1.5, 2], [-0.6, 1, 1.6], [0.6, 1, 2.4]]
    clip[0, :, 1, 1] += np.linspace(0, 0.8, FRAMES)
    clip[0, 10:20, 2] = 0
    clip[1, 30:] = clip[0, 30:] + np.float32([1.5, 0, 0.5])
    return clip


def clip(**more: Any) -> dict[str, Any]:
    return {"title": EVIL, "about": EVIL, "fps": FPS, "flip": 1, **encode_joints(joints()), **more}


SCORES = {
    "names": [EVIL, "clap"], "windows": [[0, 20], [10, 30], [20, 40]], "shares": [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]],
    "rejected": [False, True, False], "threshold": 0.7,
}  # fmt: skip


def written(folder: Path, *clips: dict[str, Any]) -> str:
    (folder / "page.html").write_text(player(clips, LAYOUT, EVIL), encoding="utf-8")
    return (folder / "page.html").as_uri()


def spot(tab: Any, place: np.ndarray) -> np.ndarray:
    """Colour of the canvas at a point in CSS pixels."""
    look = "([x, y]) => [...document.getElementById('skeleton').getContext('2d').getImageData(x, y, 1, 1).data]"
    return np.array(tab.evaluate(look, [float(part) for part in place.round()])[:3])


def expected(tab: Any, point: np.ndarray, yaw: float = -0.3, pitch: float = 0.15) -> np.ndarray:
    """Where a point is on the canvas, by matrices: turned about the vertical, then tilted, then flat."""
    box = tab.locator("#skeleton").bounding_box()
    width, height = (box[side] - 2 for side in ("width", "height"))  # less its border
    known = joints().reshape(-1, 3)
    known = np.sort(known[known.any(axis=1)], axis=0)  # as many as are there: the page may leave out one in 200
    cut = len(known) // 200
    low, high = known[cut], known[-1 - cut]
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    right, up, _ = tilt @ turn @ (point - (low + high) / 2) * 0.85 * min(width, height) / (high - low).max()
    return np.array([width / 2 + right, height / 2 - up])


@needs_browser
def test_joints_are_drawn_where_they_are_and_the_view_turns(browser, tmp_path) -> None:
    tab, _, errors = watched(browser, written(tmp_path, clip()))
    for joint, colour in ((1, LEFT), (2, RIGHT)):
        assert np.abs(spot(tab, expected(tab, joints()[0, 0, joint])) - colour).max() < 12
    box = tab.locator("#skeleton").bounding_box()
    tab.mouse.move(box["x"] + 200, box["y"] + 350)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 320, box["y"] + 380)  # 120 pixels to the right, 30 down
    tab.mouse.up()
    for joint, colour in ((1, LEFT), (2, RIGHT)):
        assert np.abs(spot(tab, expected(tab, joints()[0, 0, joint], -1.3, 0.35)) - colour).max() < 12
    before = tab.locator("#skeleton").screenshot()
    tab.mouse.wheel(0, -400)
    assert tab.locator("#skeleton").screenshot() != before
    tab.keyboard.press("0")
    hand = expected(tab, joints()[0, 0, 1])
    assert np.abs(spot(tab, hand) - LEFT).max() < 12
    plain = tab.locator("#skeleton").screenshot()
    tab.mouse.move(box["x"] + hand[0] + 1, box["y"] + hand[1] + 1)
    assert tab.locator("#skeleton").screenshot() != plain  # the joint says its name
    tab.locator("#mirror").click()
    assert np.abs(spot(tab, hand) - LEFT).max() > 50 and not errors


@needs_browser
def test_it_plays_steps_and_says_what_the_windows_are(browser, tmp_path) -> None:
    tab, _, errors = watched(browser, written(tmp_path, clip(scores=SCORES), clip(answers=[["jog", 0.75]])))
    frame = tab.locator("#frame")
    assert frame.text_content() == "0 / 39 · 0.00 s"
    tab.keyboard.press("ArrowRight")
    assert frame.text_content() == "1 / 39 · 0.05 s"
    tab.keyboard.press("End")
    tab.keyboard.press("ArrowRight")
    assert frame.text_content() == "39 / 39 · 1.95 s"
    assert tab.locator("#bars .name").all_text_contents() == ["clap", EVIL]
    tab.locator("#time").fill("19")
    assert tab.locator("#window").text_content() == "window from 0.50 s to 1.50 s"
    assert tab.locator("#bars .name").all_text_contents() == ["none of these", "clap", EVIL]
    tab.locator("#lines").click(position={"x": 46, "y": 60})
    assert frame.text_content().startswith("0 / 39")
    tab.locator("#speed").select_option("4")
    tab.locator("#skeleton").focus()
    tab.keyboard.press(" ")
    assert tab.locator("#play").text_content() == "Pause"
    tab.locator("#frame", has_text=re.compile(r"^(?:[4-9]|[1-3]\d) / ")).wait_for(timeout=10_000)
    tab.keyboard.press(" ")
    assert tab.locator("#play").text_content() == "Play"
    tab.locator("#next").click()
    assert tab.locator("#bars li").all_text_contents() == ["jog75 %"] and tab.locator("#scores").is_hidden()
    assert not errors


@needs_browser
def test_missing_joints_are_hollow_and_people_who_are_away_are_not_drawn(browser, tmp_path) -> None:
    tab, _, _ = watched(browser, written(tmp_path, clip()))
    tab.locator("#time").fill("15")
    where = expected(tab, joints()[0, 0, 2])  # it stays where it was
    rim = [spot(tab, where + offset) for offset in ([4, 0], [-4, 0], [0, 4], [0, -4], [3, 3], [-3, -3])]
    assert min(np.abs(each - RIGHT).max() for each in rim) < 60 < np.abs(spot(tab, where) - RIGHT).max()
    other = expected(tab, joints()[1, 35, 2])
    assert np.abs(spot(tab, other) - (0xF0, 0x90, 0)).max() > 60
    tab.locator("#time").fill("35")
    assert np.abs(spot(tab, other) - (0xF0, 0x90, 0)).max() < 12


@needs_browser
def test_no_name_becomes_markup_and_nothing_is_asked_for(browser, tmp_path) -> None:
    address = written(tmp_path, clip(scores=SCORES), clip())
    tab, asked, errors = watched(browser, address, viewport={"width": 390, "height": 800}, color_scheme="dark")
    assert tab.locator("#title").text_content() == EVIL and tab.locator("#about").text_content() == EVIL
    assert tab.locator("#legend .chip").first.text_content() == EVIL
    assert tab.locator("script").count() == 2 and tab.locator("body img:not(#picture)").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert asked == [address] and not errors
    # Even a script that did get in would not run, nor reach anybody.
    tab.evaluate("text => document.body.append(Object.assign(document.createElement('script'), {text}))", OWN)
    assert tab.evaluate("fetch('http://127.0.0.1:9/').then(() => 'reached', () => 'refused')") == "refused"
    assert tab.evaluate("document.body.dataset.owned") is None
    assert len(errors) >= 2 and all("Content Security Policy" in error or "fetch" in error for error in errors)
    assert asked == [address]


def test_data_come_back_as_they_were() -> None:
    said = {"name": EVIL, "more": ["a & b", "\u2028\u2029"]}
    assert json.loads(as_data(said)) == said and not re.search("[<>&\u2028\u2029]", as_data(said))


def test_joints_come_back_to_half_a_millimetre() -> None:
    clip = np.random.default_rng(0).normal(size=(2, 30, 3, 3)).astype(np.float32)
    clip[0, 4, 1], clip[0, 5, 1] = 0, (1e-5, 0, 0)  # missing; at the origin
    clip[1, 3, 2] = np.nan
    said = encode_joints(clip)
    numbers = np.frombuffer(base64.b64decode(said["joints"]), "<i2").reshape(clip.shape)
    gone = (numbers == MISSING).all(axis=-1)
    assert np.argwhere(gone).tolist() == [[0, 4, 1], [1, 3, 2]] and not gone[0, 5, 1]
    assert numbers[0, 5, 1].any()  # a page takes zeros alone for missing
    rest = ~gone
    rest[0, 5, 1] = False
    assert np.abs(numbers[rest] * said["unit"] - clip[rest]).max() <= 0.0005 + 1e-6
    clip[0, 0, 0, 0] = 1e6  # one wild joint does not cost the others their millimetres
    assert encode_joints(clip)["unit"] == 0.001
    assert encode_joints(clip * 0)["persons"] == 2
    assert encode_joints(np.full((1, 2, 3, 3), 5000.0))["unit"] == pytest.approx(2 * 5000 / 32767)


def test_scores_are_those_of_the_windows() -> None:
    """Against a classifier whose answer follows from the window: the share of class 0 is a mean of coordinates."""
    clip = np.zeros((1, 50, 3, 3), dtype=np.float32)
    clip[0, :, 0, 0] = np.linspace(0.01, 1, 50)
    clip[0, 20:34] = 0  # nobody is there

    def classify(part: np.ndarray) -> list[tuple[int, str, float]]:
        share = float(part[0, :, 0, 0].mean())
        return sorted([(0, "zero", share), (1, "one", 1 - share)], key=lambda row: -row[2])

    found = scores_over_time(clip, classify, 10, 5, lambda ranking: ranking[0][2] < 0.6, 0.6)
    assert found["windows"] == [[0, 10], [5, 15], [10, 20], [15, 25], [30, 40], [35, 45], [40, 50]]
    assert [found["names"], found["threshold"]] == [["zero", "one"], 0.6]
    for (begin, end), (zero, one), rejected in zip(found["windows"], found["shares"], found["rejected"], strict=True):
        assert [zero, one] == pytest.approx([(mean := clip[0, begin:end, 0, 0].mean()), 1 - mean], abs=1e-4)
        assert rejected == (max(one, zero) < 0.6)
    assert any(found["rejected"]) and not all(found["rejected"])
    assert scores_over_time(clip * 0, classify, 10, 5, lambda ranking: False) is None
    long = scores_over_time(np.ones((1, 5000, 3, 3), np.float32), classify, 10, 1, lambda ranking: False)
    assert 500 < len(long["windows"]) <= 601
