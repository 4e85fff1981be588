"""The table of accuracy and time: what its rows are of, and which of them no other one beats."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation.made_reports import invented, save
from PIL import Image
from tasks.made_teachers import made_teacher, write_teacher

from mmcl.bench import main
from mmcl.benchmarks import frontier_picture
from mmcl.benchmarks.frontier_networks import model_paths
from mmcl.benchmarks.frontier_page import frontier_table
from mmcl.benchmarks.frontier_picture import draw_frontier
from mmcl.benchmarks.frontier_points import Point, on_frontier
from mmcl.benchmarks.timing import Timing
from mmcl.common.errors import UserError
from mmcl.data.store import open_store
from mmcl.encoders.counting import count_macs, count_parameters
from mmcl.evaluation.reporting.groups import read_groups
from mmcl.evaluation.reporting.saved import read_report
from mmcl.models.folder import open_model

TIMING = Timing(0.01, 0.009, 0.011, 3.0, 2.9, 3.1, 9, 1)


def point(name: str, value: float, seconds: float) -> Point:
    times = {"published": TIMING, "fp32": TIMING, "int8": replace(TIMING, seconds=seconds)}
    return Point(name, [value], value - 0.01, value + 0.01, 1, 1000, 10**6, 0.99, times)


def test_a_row_is_on_the_frontier_where_no_other_is_as_right_and_faster(tmp_path) -> None:
    rows = {"fast": (0.8, 1e-3), "slow": (0.9, 5e-3), "beaten": (0.79, 2e-3), "same": (0.9, 5e-3), "late": (0.9, 6e-3)}
    points = [point(name, *numbers) for name, numbers in rows.items()]
    assert on_frontier(points) == [True, True, False, True, False]
    facts = {"machine": {"processor": "p", "instructions": "", "processors": 2, "load": 0.1, "waiting": "not set",
                         "versions": {"torch": "2", "onnxruntime": "1"}}, "threads": 1, "protocol": "own"}  # fmt: skip
    table = frontier_table(points, facts)
    line = "| slow | 1 | 90.00 (89.00 to 91.00) | 1,000 | 1.0 | 10.00 | 5.00 | 3.0 (2.9 to 3.1) | 99.0% | yes |"
    assert line in table
    draw_frontier(tmp_path / "frontier.png", points)
    assert Image.open(tmp_path / "frontier.png").size > (400, 300)


def test_names_are_not_written_over_each_other(tmp_path, monkeypatch) -> None:
    rows = {"learned": (0.926, 5e-3), "fixed": (0.923, 5e-3), "again": (0.926, 5e-3), "far": (0.8, 5e-3)}
    drawn = []
    monkeypatch.setattr(frontier_picture, "save_figure", lambda figure, path: drawn.append(figure))
    draw_frontier(tmp_path / "frontier.png", [point(name, *numbers) for name, numbers in rows.items()])
    boxes = {text.get_text(): text.get_window_extent() for text in drawn[0].axes[0].texts}
    assert boxes["fixed"].y1 < boxes["learned"].y0 and boxes["again"].y1 < boxes["learned"].y0
    height = drawn[0].axes[0].transData.transform((5, 80))[1]
    assert boxes["far"].y0 > height  # above its point, where nothing is in the way


def test_sizes_of_one_thing_are_joined_from_the_smallest_on_and_named_once(tmp_path, monkeypatch) -> None:
    rows = {"net": (0.9, 4e-3), "net.small": (0.8, 2e-3), "else": (0.7, 1e-3), "net.large": (0.95, 9e-3)}
    points = [replace(point(name, *numbers), parameters=int(1e6 * numbers[1])) for name, numbers in rows.items()]
    drawn = []
    monkeypatch.setattr(frontier_picture, "save_figure", lambda figure, path: drawn.append(figure))
    draw_frontier(tmp_path / "frontier.png", points)
    axes = drawn[0].axes[0]
    named = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(named) == ["net", "else"]
    assert named["net"].get_xydata().ravel().tolist() == pytest.approx([2, 80, 4, 90, 9, 95])
    assert named["net"].get_color() != named["else"].get_color() and not axes.texts
    draw_frontier(tmp_path / "frontier.png", [replace(each, parameters=5) for each in points])
    assert [text.get_text() for text in drawn[1].axes[0].texts] == list(rows) and drawn[1].axes[0].get_legend() is None


def rows_of(demo_store: Path, folder: Path, bundles: list[str]) -> list[dict[str, Any]]:
    """What is measured of a model, and of an ensemble of it and another one."""
    facts = {"data": str(demo_store), "protocol": "demo/cross_subject"}
    scores, labels = invented(1)
    save(folder / "one", scores, labels, checkpoint=bundles[0], **facts)
    members = [{"report": str(folder / "away" / Path(path).name), "checkpoint": path} for path in bundles]
    save(folder / "both", scores, labels, members=members, **facts)
    words = ["frontier", f"one={folder}/one", f"both={folder}/both", "--out", str(folder / "out")]
    assert main([*words, "--seconds", "0.01"]) == 0
    rows: list[dict[str, Any]] = json.loads((folder / "out" / "frontier.json").read_text())["points"]
    for row, used in zip(rows, (bundles[:1], bundles), strict=True):
        models = [open_model(path) for path in used]
        assert row["networks"] == len(used)
        assert row["parameters"] == sum(count_parameters(model.encoder) for model in models)
        assert row["macs"] == sum(count_macs(model.encoder, model.preprocess.options.window) for model in models)
        assert row["low"] < row["value"] < row["high"] and 0 <= row["agreement"] <= 1
    return rows


def test_rows_are_measured_side_by_side_and_an_ensemble_is_all_its_members(
    demo_store, graphs, tmp_path, capsys
) -> None:
    shutil.copytree(graphs / "bundle", tmp_path / "other")
    one, both = rows_of(demo_store, tmp_path, [str(graphs / "bundle"), str(tmp_path / "other")])
    assert both["times"]["fp32"]["seconds"] > one["times"]["fp32"]["seconds"]
    page, printed = (tmp_path / "out" / "frontier.md").read_text(), capsys.readouterr().out
    assert "| both (2 networks) | 1 |" in printed and "demo/cross_subject" in printed
    assert printed.splitlines()[0] in page


@pytest.mark.slow
def test_models_without_graphs_get_some(demo_store, tmp_path) -> None:
    names = list(open_store(demo_store).class_names)
    made = {stream: made_teacher(names, stream) for stream in ("joint", "bone")}
    rows_of(demo_store, tmp_path, [write_teacher(tmp_path / f"{name}-bundle", model) for name, model in made.items()])


def test_what_goes_by_another_number_than_top_1_is_refused(tmp_path) -> None:
    save(tmp_path / "one", *invented(1), checkpoint="gone")
    file = tmp_path / "one" / "report.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "main": "auroc", "auroc": 0.9}))
    with pytest.raises(UserError, match="one goes by auroc, and a frontier is of top-1"):
        main(["frontier", f"one={tmp_path}/one", "--out", str(tmp_path / "out")])


def test_a_study_stands_for_its_arms_wherever_it_was_moved_to(tmp_path) -> None:
    scores, labels = invented(1)
    for arm in ("a", "b"):
        for seed in (0, 1):
            save(tmp_path / "moved" / arm / str(seed) / "report-test", scores, labels, checkpoint="gone")
    runs = [{"arm": arm, "seed": seed, "draw": None, "folder": "old/x"} for seed in (0, 1) for arm in ("a", "b")]
    (tmp_path / "moved" / "study.json").write_text(json.dumps({"runs": runs}))
    groups = read_groups([str(tmp_path / "moved")])
    assert {name: [report.path.parent.name for report in reports] for name, reports in groups.items()} == {
        "a": ["0", "1"], "b": ["0", "1"]
    }  # fmt: skip
    report = read_report(tmp_path / "moved" / "a" / "0")
    with pytest.raises(UserError, match="judged gone, which is not there"):
        model_paths(report)
    moved = tmp_path / "moved" / "a" / "0" / "checkpoints" / "gone"
    moved.mkdir(parents=True)
    assert model_paths(report) == [moved]
    (tmp_path / "moved" / "study.json").write_text('{"runs": [3]}')
    with pytest.raises(UserError, match="damaged"):
        read_groups([str(tmp_path / "moved")])
