"""The page runs a bundle in a real browser: the same probabilities as Python's, and no request that leaves it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import needs_browser, watched

from mmcl.deploy.files import read_joints
from mmcl.deploy.onnx_predictor import OnnxPredictor
from mmcl.skeletons.layout import load_layout


def answer(tab: Any) -> list[float]:
    tab.wait_for_selector("body[data-answer]", timeout=60_000)
    found: list[float] = json.loads(tab.evaluate("document.body.dataset.answer"))
    return found


def expected(page: Path, joints: np.ndarray) -> list[float]:
    ranking = OnnxPredictor(page / "bundle", page / "page" / "model.onnx").classify(joints)
    return [share for _, _, share in sorted(ranking)]


@needs_browser
def test_files_are_answered_as_by_python_and_nothing_leaves_the_page(page, address, browser, tmp_path) -> None:
    clip = np.random.default_rng(0).normal(size=(2, 150, 20, 3)).astype(np.float32)
    clip[0, 3, 4] = np.nan
    clip[1, 40:] = 0  # the second person leaves
    np.save(tmp_path / "two.npy", clip)
    tab, asked, errors = watched(browser, address)
    tab.set_input_files("#file", tmp_path / "two.npy")
    np.testing.assert_allclose(answer(tab), expected(page, clip), atol=1e-5)
    assert tab.locator("#bars li").count() == 5 and tab.locator("#timeline").is_visible()
    assert tab.locator("#bars .name", has_text="<b>stand</b> up").count() == 1  # a name is a text, not markup
    assert tab.locator("#score").text_content() == "familiarity" and tab.locator("#threshold").input_value() == "0.25"
    near = OnnxPredictor(page / "bundle", page / "page" / "model.onnx").classify(clip).familiarity
    for threshold in (near - 0.01, near + 0.01):
        tab.locator("#threshold").fill(f"{threshold:.3f}")
        assert tab.locator("#bars li.none").count() == (threshold > near)
    assert tab.locator("#below").text_content() == f"{100 * threshold:.0f} %"
    tab.locator("#skeleton").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#frame").text_content() == "0.03 s"
    tab.keyboard.press(" ")
    assert tab.locator("#play").text_content() == "Pause"
    assert asked and all(url.startswith((address, "blob:")) for url in asked) and not errors


@needs_browser
def test_a_file_is_dropped_and_a_wrong_one_is_named(page, address, browser, tmp_path) -> None:
    clip = np.random.default_rng(1).normal(size=(12, 20, 3))
    tab, _, errors = watched(browser, address, viewport={"width": 390, "height": 800}, color_scheme="dark")
    drop = """([name, text]) => {
        const data = new DataTransfer();
        data.items.add(new File([text], name));
        document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    tab.evaluate(drop, ["wrong.json", json.dumps(clip[:, :7].tolist())])
    tab.wait_for_selector("#status.bad")
    assert "this model takes (frames, 20, 3)" in tab.locator("#status").text_content()
    tab.evaluate(drop, ["one.csv", "\n".join(",".join(map(repr, row)) for row in clip.reshape(12, -1).tolist())])
    np.testing.assert_allclose(answer(tab), expected(page, clip[None].astype(np.float32)), atol=1e-5)
    wide = tab.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not wide and not errors  # nothing has to be scrolled sideways on a phone


READ = """async ([name, bytes, names]) => {
    const clips = await import("./clip.js");
    try {
        const clip = await clips.readClip(new File([new Uint8Array(bytes)], name), names);
        const {data, dims} = clips.asInput(clip, 0, clip.frames, 3);
        return {data: Array.from(data), dims};
    } catch (error) {
        return {refused: error.message};
    }
}"""


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def headed(clip: np.ndarray, header: list[str]) -> bytes:
    rows = [",".join(map(repr, row)) for row in clip.reshape(len(clip), -1).tolist()]
    return "\n".join([",".join(header), *rows]).encode()


@needs_browser
def test_a_file_is_read_as_by_predict_or_refused(page, address, browser, tmp_path) -> None:
    layout = load_layout("kinect_v1_20")
    names = list(layout.joints)
    clip = np.random.default_rng(2).normal(size=(12, 20, 3)).astype(np.float32)
    gaps, marked = clip.copy(), clip.copy()
    gaps[:, ::3, 2] = np.nan
    marked[:, [4, 7]] = -9999
    titles = [f"{name.title()}.{axis.upper()}" for name in names for axis in "xyz"]
    read = {
        "plain.npy": saved(clip),
        "a depth that is missing.npy": saved(gaps),
        "placeholders.npy": saved(marked),
        "two.npy": saved(np.stack([clip, clip + 3])),  # one behind the other, and each in its own slot
        "sure.npy": saved(np.concatenate([clip, np.full((12, 20, 1), 0.5, np.float32)], axis=2)),
        "titles.csv": headed(clip, titles),
        "numbers.csv": headed(clip, [f"x{joint}".replace("x", axis) for joint in range(20) for axis in "xyz"]),
        "pandas.csv": headed(clip, [str(column) for column in range(60)]),
    }
    refused = {
        "blocks.csv": headed(clip, [f"{axis}{joint}" for axis in "xyz" for joint in range(20)]),
        "other order.csv": headed(clip, titles[3:] + titles[:3]),
        "flat.npy": saved(clip[..., :2]),
        "frames first.npy": saved(np.stack([clip, clip], axis=1)),
        "states.npy": saved(np.concatenate([clip, np.full((12, 20, 1), 2.0, np.float32)], axis=2)),
    }
    rows = clip.astype(float).tolist()
    ragged = [rows[0][:19], [*rows[1], rows[0][0]], *rows[2:]]  # as many numbers as there should be
    wordy = clip.reshape(12, 60).astype(str).astype(object)
    wordy[:, 7] = "NA"
    read["gaps.csv"] = "\n".join(map(",".join, wordy)).encode()
    for word in ("lost", "0x10", "1.5.2"):
        wordy[3, 7] = word
        refused[f"{word}.csv"] = "\n".join(map(",".join, wordy)).encode()
    refused["ragged.json"] = json.dumps(ragged).encode()
    for word in ("", True, "1"):
        rows[5][4][2] = word
        refused[f"{word}.json"] = json.dumps(rows).encode()
    tab, _, errors = watched(browser, address)
    for name, content in (read | refused).items():
        found = tab.evaluate(READ, [name, list(content), names])
        if name in refused:
            why = "no confidence from 0 to 1" if name == "states.npy" else "`mmcl predict` reads such files"
            assert why in found["refused"], (name, found)
            continue
        (tmp_path / name).write_bytes(content)
        joints = read_joints(tmp_path / name, layout)
        np.testing.assert_allclose(np.reshape(found["data"], found["dims"])[0], joints, atol=1e-6, err_msg=name)
    assert not errors


@needs_browser
@pytest.mark.parametrize("threshold", [-0.2, 0.98765])
def test_a_threshold_is_that_of_the_bundle_and_no_slider_rounds_it(page, address, browser, tmp_path, threshold) -> None:
    clip = np.random.default_rng(0).normal(size=(1, 20, 20, 3)).astype(np.float32)
    np.save(tmp_path / "one.npy", clip)
    near = OnnxPredictor(page / "bundle", page / "page" / "model.onnx").classify(clip).familiarity
    facts = json.loads((page / "page" / "page.json").read_text()) | {"threshold": threshold}
    context = browser.new_context()
    context.route("**/page.json", lambda route: route.fulfill(json=facts))
    tab = context.new_page()
    tab.goto(address)
    tab.wait_for_selector("body[data-ready]", timeout=60_000)
    tab.set_input_files("#file", tmp_path / "one.npy")
    answer(tab)
    assert tab.locator("#bars li.none").count() == (threshold > near)
    assert tab.locator("#below").text_content() == f"{100 * threshold:.0f} %"
    assert tab.locator("#threshold").get_attribute("min") == "-1"
