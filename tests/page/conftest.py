"""One page of a bundle for all tests, served at an address of its own, and one browser for all tests of a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from browsing import CHROMIUM, NAMES

from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.models.bundle import describe, write_bundle
from mmcl.models.familiarity import Familiarity, directions
from mmcl.models.model import Model
from mmcl.page.server import make_server
from mmcl.page.vendor import vendored
from mmcl.page.write import write_page
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    film = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with api.sync_playwright() as player:
        found = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *film])
        yield found
        found.close()


@pytest.fixture(scope="session")
def page(make_once) -> Path:
    """Folder with ``bundle`` (two persons) and its ``page``, with videos where there are pose weights."""
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
