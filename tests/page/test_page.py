"""The page runs a bundle in a real browser: the same probabilities as Python's, and no request that leaves it."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any

import av
import numpy as np
import pytest
import torch
from browsing import needs_browser, watched

from mmcl.common.errors import UserError
from mmcl.deploy.files import read_joints
from mmcl.deploy.onnx_predictor import OnnxPredictor
from mmcl.deploy.segments import windows
from mmcl.encoders.base import build_encoder
from mmcl.models.bundle import describe, load_bundle, write_bundle
from mmcl.models.familiarity import Familiarity, directions
from mmcl.models.model import Model
from mmcl.page.server import make_server
from mmcl.page.vendor import PACKAGES, unpack, vendored
from mmcl.page.write import is_page, write_page
from mmcl.serve import main as serve
from mmcl.skeletons.layout import Layout, load_layout
from mmcl.skeletons.preprocess import Preprocess, PreprocessOptions

NAMES = ["wave", "kick", "sit down", "<b>stand</b> up", "throw"]


@pytest.fixture(scope="session")
def page(make_once) -> Path:
    """Folder with ``bundle`` (two persons, no graph) and its ``page``, with videos where there are pose weights."""
    try:
        vendored()
    except UserError as error:
        pytest.skip(str(error))

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        layout = load_layout("kinect_v1_20")
        encoder = build_encoder("tcn", layout, len(NAMES), {"width": 8, "members": 1, "persons": 2})
        preprocess = Preprocess(layout, layout, 2, PreprocessOptions(window=16))
        encoder.train()(preprocess(torch.randn(16, 2, 20, 20, 3)))
        description = describe("tcn", encoder.eval(), preprocess, NAMES)
        (folder / "bundle").mkdir()
        kept = Familiarity(directions(torch.randn(10, encoder.feature_width)), torch.arange(10) % 5)
        facts = {"threshold": 0.25, "share": 0.01, "clips": 50, "side": "v", "weights": "w", "score": "familiarity"}
        model = Model(description.changed(rejection=facts), encoder, preprocess, familiarity=kept)
        write_bundle(folder / "bundle", model)
        write_page(folder / "bundle", folder / "page")
        shutil.copyfile(folder / "page" / "model.onnx", folder / "bundle" / "model.onnx")

    return make_once("page", make)


@pytest.fixture
def address(page) -> Iterator[str]:
    with make_server(page / "page", 0) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


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
        "two.npy": saved(np.stack([clip, clip[::-1]])),
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


def test_only_this_machine_is_served(page) -> None:
    with make_server(page / "page", 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        assert host == "127.0.0.1"
        for header, path, status in (("127.0.0.1", "/index.html", 200), (f"localhost:{port}", "/page.json", 200),
                                     ("evil.example", "/page.json", 403), ("localhost", "/vendor/", 404),
                                     ("evil.example", "HEAD /page.json", 403), ("localhost", "HEAD /page.json", 200),
                                     ("LocalHost", "/%00", 404),
                                     ("localhost", "/../../bundle/config.json", 404)):  # fmt: skip
            connection = HTTPConnection("127.0.0.1", port)
            connection.request(*(path.split() if " " in path else ("GET", path)), headers={"Host": header})
            assert connection.getresponse().status == status, path
            connection.close()
        server.shutdown()


def test_the_folder_says_what_it_is_and_takes_the_place_of_its_like(page, tmp_path, monkeypatch, capsys) -> None:
    def made_before(bundle: Path, layout: str | None, graph: Path) -> int:
        shutil.copyfile(page / "page" / graph.name, graph)
        return 3

    monkeypatch.setattr("mmcl.page.write._make_graph", made_before)
    assert is_page(page / "page") and not is_page(page / "bundle")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="mine"):
        serve([str(page / "bundle"), "--out", str(tmp_path / "mine")])
    assert serve([str(page / "bundle"), "--out", str(tmp_path / "page")]) == 0
    assert "5 classes" in capsys.readouterr().out
    facts = json.loads((tmp_path / "page" / "page.json").read_text())
    model = load_bundle(page / "bundle")
    assert facts["own"]["joints"] == model.layout.joint_count and facts["class_names"] == NAMES
    policy = (tmp_path / "page" / "index.html").read_text()
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "http" not in policy.split("<body>")[1]


def small(folder: Path, layout: Layout, **options: Any) -> Path:
    """A bundle of some joints, without a graph."""
    folder.mkdir(parents=True)
    preprocess = Preprocess(layout, layout, 1, PreprocessOptions(window=8, **options))
    channels = len(preprocess.options.streams) * (preprocess.options.dimensions or 3)
    channels -= 2 * ("confidence" in preprocess.options.streams)
    own = {"width": 8, "members": 1, "persons": 1, "channels": channels}
    encoder = build_encoder("tcn", layout, len(NAMES), own).eval()
    write_bundle(folder, Model(describe("tcn", encoder, preprocess, NAMES, count=False), encoder, preprocess))
    return folder


def test_films_are_taken_as_the_bundle_takes_joints(page, tmp_path, monkeypatch) -> None:
    weights = tmp_path / "pose.task"
    with zipfile.ZipFile(weights, "w") as archive:
        archive.writestr("network", b"")
    made: list[str | None] = []

    def write_graph(bundle: Path, layout: str | None, graph: Path) -> int:
        made.append(layout)
        graph.write_bytes(b"")
        return 7

    monkeypatch.setattr("mmcl.page.write._make_graph", write_graph)
    film = load_layout("mediapipe_33")
    turned = Layout.from_dict(film.to_dict() | {"joints": film.joints[::-1]})
    alike = Layout.from_dict(film.to_dict() | {"name": "mine"})
    for number, (layout, streams, columns) in enumerate(
        [(film, ("joint", "confidence"), 4), (alike, ("joint",), 3), (turned, ("joint",), 7)]
    ):
        made.clear()
        bundle = small(tmp_path / f"{number}", layout, streams=streams)
        facts = write_page(bundle, tmp_path / "page", str(weights))["film"]
        assert (facts["columns"], facts["layout"]) == (columns, "mediapipe_33")
        assert facts["graph"] == ("film.onnx" if layout is turned else "model.onnx")
        assert made == [None, *(["mediapipe_33"] if layout is turned else [])]
    planar = small(tmp_path / "planar", film, dimensions=2)
    monkeypatch.setenv("MMCL_POSE_WEIGHTS", str(weights))
    assert "takes joints of a picture" in write_page(planar, tmp_path / "page")["without_film"]
    with pytest.raises(UserError, match="the page finds joints in space, and this model takes joints of a picture"):
        write_page(planar, tmp_path / "page", str(weights))


def test_a_graph_that_predict_refuses_is_not_served(page, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    bundle = Path(shutil.copytree(page / "bundle", tmp_path / "bundle"))
    proto = onnx.load(bundle / "model.onnx")
    content = json.loads((bundle / "config.json").read_text())
    facts = {entry.key: entry.value for entry in proto.metadata_props}
    for key, value in (("encoder", {"name": "ctrgcn", "options": {}}), ("rejection", {})):
        onnx.helper.set_model_props(proto, facts | {key: json.dumps(content[key] | value | {"weights": "v"})})
        onnx.save(proto, bundle / "model.onnx")
        with pytest.raises(UserError, match=f"its {key} differ"):
            write_page(bundle, tmp_path / "page")
    onnx.helper.set_model_props(proto, facts)
    del proto.graph.output[[end.name for end in proto.graph.output].index("familiarity")]
    onnx.save(proto, bundle / "model.onnx")
    with pytest.raises(UserError, match="does not give the familiarity by which the bundle rejects"):
        write_page(bundle, tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_an_archive_that_was_not_tested_is_refused(tmp_path) -> None:
    archive = tmp_path / "x.tgz"
    with tarfile.open(archive, "w:gz") as out:
        entry = tarfile.TarInfo("package/dist/ort.wasm.min.mjs")
        entry.size = 4
        out.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(UserError, match="its digest differs"):
        unpack(archive, PACKAGES[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()
