"""Videos, cameras and windows of a recording, in a real browser."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
from browsing import needs_browser, watched

from mmcl.deploy.segments import windows

STEPS = """async (spans) => {
    const { Model, windows } = await import("./model.js");
    const { asClip } = await import("./film.js");
    const model = Object.assign(new Model(), {facts: {columns: 3}});
    const clip = asClip(Array.from({length: 50}, (_, t) => t < 30 ? null : new Array(132).fill(1)));
    const run = async () => ({probabilities: {data: [1]}}), broken = async () => { throw new Error("out of memory"); };
    model.session = {outputNames: ["probabilities"], run};
    const rows = await model.overTime(clip, 20);
    model.session.run = broken;
    const said = await model.overTime(clip, 20).catch((error) => error.message);
    return [spans.map((each) => windows(...each)), rows.map(({begin, end}) => [begin, end]), said];
}"""


@needs_browser
def test_windows_reach_to_the_end_and_only_empty_ones_are_passed_over(page, address, browser) -> None:
    tab, _, _ = watched(browser, address)
    spans = [(50, 20, 10), (55, 20, 10), (20, 20, 10), (21, 20, 10), (7, 20, 10), (2, 2, 1)]
    found, rows, said = tab.evaluate(STEPS, spans)
    assert found == [[[part.start, part.stop] for part in windows(*each)] for each in spans]
    assert rows == [[20, 40], [30, 50]] and said == "out of memory"  # in the first two, nobody is there


FILM = """async () => {
    const { asClip, Film } = await import("./film.js");
    const { asInput } = await import("./clip.js");
    const video = window.video = new EventTarget();
    const found = () => video.dispatchEvent(new Event("seeked"));
    Object.defineProperty(video, "currentTime", {set() { setTimeout(found); }});
    const film = Object.assign(new Film(), {video, last: 0});
    const flat = Array.from({length: 33}, (_, joint) => ({x: 0, y: 0, z: 0, visibility: joint / 32}));
    const space = flat.map(() => ({x: 1, y: 2, z: 3, visibility: 0.5}));
    film.landmarker = {detectForVideo: () => ({landmarks: [flat], worldLandmarks: [space]})};
    const read = (duration) => { video.duration = duration; return film.read(15, () => {}, () => true); };
    const refused = [];
    for (const duration of [Infinity, NaN, 1e5]) refused.push(await read(duration).catch((error) => error.message));
    const clip = await read(1);
    return [refused, clip.frames, Array.from(asInput(clip, 0, 1, 4).data)];
}"""


@needs_browser
def test_a_film_has_an_end_and_its_joints_their_confidence(page, address, browser) -> None:
    tab, _, _ = watched(browser, address)
    refused, frames, joints = tab.evaluate(FILM)
    why = [*["does not say how long it is"] * 2, "has 100000 seconds, and at most 3600 are read"]
    assert all(words in said and "`mmcl predict`" in said for words, said in zip(why, refused, strict=True))
    sure = np.arange(33) / 32  # of the picture's landmarks, as `mmcl pose` has it; a joint that is not seen is missing
    np.testing.assert_allclose(np.reshape(joints, (33, 4)), np.c_[(sure > 0)[:, None] * (-1, -2, 3), sure], atol=1e-6)
    devtools = tab.context.new_cdp_session(tab)
    video = devtools.send("Runtime.evaluate", {"expression": "window.video"})["result"]["objectId"]
    assert frames == 15 and not devtools.send("DOMDebugger.getEventListeners", {"objectId": video})["listeners"]


@needs_browser
def test_a_page_does_not_answer_without_what_it_rejects_by(page, address, browser) -> None:
    tab, _, _ = watched(browser, address)
    said = tab.evaluate("""async () => {
        const { Model } = await import("./model.js"), ort = await import("./vendor/ort.wasm.min.mjs");
        ort.InferenceSession.create = async () => ({outputNames: ["probabilities"]});
        const load = (score) => Model.load("model.onnx", {}, score).then(() => "ready", (error) => error.message);
        return [await load("probability"), await load("familiarity")];
    }""")
    assert said[0] == "ready" and "does not give the familiarity by which the bundle rejects" in said[1]


LANDMARKER = """export class FilesetResolver { static async forVisionTasks() { return {}; } }
export class PoseLandmarker {
  static async createFromOptions() { return new PoseLandmarker(); }
  detectForVideo() { window.looks = (window.looks ?? 0) + 1; return { worldLandmarks: [] }; }
}"""  # finds nobody, and counts how often it was asked


@needs_browser
def test_a_film_that_is_being_read_gives_way_to_what_is_opened_then(page, address, browser, tmp_path) -> None:
    for name, frames in (("long", 600), ("short", 20)):
        with av.open(str(tmp_path / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=15)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for frame in range(frames):
                picture = np.full((240, 320, 3), frame % 250, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode())
    facts = json.loads((page / "page" / "page.json").read_text())
    facts |= {"film": facts["own"] | {"graph": "model.onnx"}}
    context = browser.new_context()
    context.route("**/page.json", lambda route: route.fulfill(json=facts))
    stub = {"content_type": "text/javascript", "body": LANDMARKER}
    context.route("**/vision_bundle.mjs", lambda route: route.fulfill(**stub))
    tab = context.new_page()
    tab.goto(address)
    tab.wait_for_selector("body[data-ready]", timeout=60_000)
    tab.set_input_files("#file", tmp_path / "long.mp4")
    tab.locator("#status", has_text="looking at long.mp4").wait_for(timeout=60_000)
    tab.set_input_files("#file", tmp_path / "short.mp4")
    tab.locator("#status", has_text="nobody is there").wait_for(timeout=60_000)
    looks = tab.evaluate("window.looks")
    tab.wait_for_timeout(700)
    assert 20 < looks == tab.evaluate("window.looks") < 300
    assert tab.locator("#status").text_content().startswith("nobody is there")


@needs_browser
def test_a_camera_is_looked_at_frame_by_frame(page, address, browser, tmp_path) -> None:
    if not (page / "page" / "pose.task").exists():
        pytest.skip("no pose weights here (`mmcl pose --fetch-weights`): the camera is not tried")
    tab, asked, errors = watched(browser, address)
    tab.click("#camera")  # the browser's made-up camera shows nobody
    tab.locator("#status", has_text="camera: ").wait_for(timeout=90_000)
    assert tab.locator("#camera").get_attribute("aria-pressed") == "true" and tab.locator("#video").is_visible()
    tab.click("#camera")
    assert tab.locator("#status").text_content() == "camera off"
    assert all(url.startswith((address, "blob:")) for url in asked), asked
