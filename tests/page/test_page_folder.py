"""What the folder of a page holds, who is served, and what makes no page."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from browsing import NAMES

from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.models.bundle import describe, load_bundle, write_bundle
from mmcl.models.model import Model
from mmcl.page.server import make_server
from mmcl.page.vendor import PACKAGES, unpack
from mmcl.page.write import is_page, write_page
from mmcl.serve import main as serve
from mmcl.skeletons.layout import Layout, load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions


def test_a_browser_that_goes_away_is_nothing_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with make_server(tmp_path, 0) as server:
        for error, told in ((ConnectionResetError("reset"), False), (ValueError("a fault of ours"), True)):
            try:
                raise error
            except (OSError, ValueError):
                server.handle_error(None, ("127.0.0.1", 1))
            assert ("Traceback" in capsys.readouterr().err) is told


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
