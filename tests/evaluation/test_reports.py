"""Report folders: complete, joined by id, readable for any number of classes, with the wrong clips to look at."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from made_reports import NAMES, ids_of, invented, save
from PIL import Image

from mmcl.common.errors import UserError
from mmcl.data.store import ClipStore, open_store
from mmcl.evaluation.report import write_report
from mmcl.evaluation.reporting import pictures
from mmcl.evaluation.reporting import wrong_clips as drawing
from mmcl.evaluation.reporting.page import plain_page, table
from mmcl.evaluation.reporting.pictures import confusion_table
from mmcl.evaluation.reporting.saved import read_report
from mmcl.evaluation.top1 import scored

FACTS = {"protocol": "none/test", "data_fingerprint": "f", "checkpoint": "c", "selection": "last epoch"}


def links(page: str) -> set[str]:
    return set(re.findall(r"\]\(([^)]+)\)", page))


def test_a_report_is_complete_and_joins_by_id(tmp_path: Path) -> None:
    scores, labels = invented(0)
    folder, ids = tmp_path / "report", ids_of(200)
    report = write_report(folder, scored(scores, labels, ids, NAMES, {}), FACTS)
    assert json.loads((folder / "report.json").read_text()) == report
    assert {*FACTS, "n", "top1", "top5", "mean_class_accuracy", "ece", "nll"} <= set(report)
    wrong = list(csv.DictReader((folder / "wrong.csv").open()))
    assert len(wrong) == report["n"] - report["correct"]
    assert [row["probability"] for row in wrong] == sorted((row["probability"] for row in wrong), reverse=True)
    for row in wrong:
        number = ids.index(row["id"])
        assert (row["label"], row["predicted"]) == (NAMES[labels[number]], NAMES[scores[number].argmax()])
    saved = np.load(folder / "scores.npz")
    assert saved["ids"].tolist() == ids and saved["class_names"].tolist() == NAMES
    np.testing.assert_allclose(saved["scores"], scores, rtol=1e-6)
    page = (folder / "report.md").read_text()
    assert links(page) == {"confusion.png", "classes.png", "reliability.png"}
    assert all((folder / name).read_bytes()[:4] == b"\x89PNG" for name in links(page))
    assert "none/test" in page and f"{report['ece']:.2%}" in page and "1 of the 7 classes have no clip" in page


def test_a_report_never_replaces_what_is_no_report(tmp_path: Path) -> None:
    scores, labels = invented(0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("precious")
    with pytest.raises(UserError, match="holds something else"):
        save(tmp_path / "run", scores, labels)
    scores[7] = np.nan
    with pytest.raises(UserError, match="of 1 of 200 clips are not finite"):
        save(tmp_path / "report", scores, labels)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    for _ in range(2):  # an older report may go
        save(tmp_path / "report", *invented(0))


@pytest.mark.parametrize("classes", [2, 27, 120])
def test_no_class_name_lies_over_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int) -> None:
    drawn, save_figure = {}, pictures.save_figure
    monkeypatch.setattr(
        pictures, "save_figure", lambda figure, path: (drawn.update({path.name: figure}), save_figure(figure, path))
    )
    scores, labels = invented(1, 2.0, clips=4 * classes, classes=classes)
    names = [f"class {k}: $x_{{{k}}} costs 2$ | and a name much longer than any room for it" for k in range(classes)]
    folder = save(tmp_path / "report", scores, labels, names=names, pictures=True)  # dollars are no formula
    for name, axis in (("confusion.png", "x"), ("confusion.png", "y"), ("classes.png", "y")):
        texts = [tick.label1 for tick in getattr(drawn[name].axes[0], f"{axis}axis").get_major_ticks()]
        assert len(texts) >= len(np.unique(labels)) and not any(text.get_parse_math() for text in texts)
        assert min(text.get_fontsize() for text in texts) > 6
        spans = sorted(getattr(text.get_window_extent(), f"interval{axis}").tolist() for text in texts)
        assert all(before[1] <= after[0] + 1 for before, after in zip(spans, spans[1:], strict=False))
        width, height = Image.open(folder / name).size
        assert max(width, height) < 4000
    rows = [line for line in (folder / "report.md").read_text().splitlines() if line.startswith("| class")]
    assert rows and all(len(re.findall(r"(?<!\\)\|", row)) in (4, 5, 6) for row in rows)  # a bar ends no cell


def test_answers_outside_the_judged_classes_share_a_column() -> None:
    """A label map: clips of 3 of 40 classes, answers among all of them."""
    rng = np.random.default_rng(0)
    labels = rng.choice([4, 9, 30], 300)
    predicted = np.where(rng.random(300) < 0.5, labels, rng.integers(0, 40, 300))
    matrix, columns, shared = confusion_table(predicted, labels, [str(k) for k in range(40)])
    assert columns[:3] == [4, 9, 30] and matrix.shape == (3, 3 + 12 + 1)
    assert shared == len(set(predicted) - set(columns))
    for row, label in enumerate((4, 9, 30)):
        for column, answer in enumerate(columns):
            assert matrix[row, column] == sum((labels == label) & (predicted == answer))
    assert matrix.sum() == 300
    assert (
        confusion_table(labels, labels, [str(k) for k in range(40)])[0].tolist()
        == np.diag([sum(labels == k) for k in (4, 9, 30)]).tolist()
    )


def judged(store: ClipStore, skill: float = 0.3) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Invented answers for all clips of a store."""
    scores = np.random.default_rng(0).normal(size=(len(store), len(store.class_names)))
    scores[np.arange(len(store)), store.labels] += skill
    return scores, store.labels, store.ids


def test_the_surest_wrong_clips_are_drawn_and_linked(demo_store: Path, tmp_path: Path) -> None:
    store = open_store(demo_store)
    scores, labels, ids = judged(store)
    verdict = scored(scores, labels, ids, store.class_names, {})
    write_report(tmp_path / "report", verdict, FACTS, store, turning=3, video=True)
    wrong = list(csv.DictReader((tmp_path / "report" / "wrong.csv").open()))
    drawn = [row["sheet"] for row in wrong if row["sheet"]]
    assert len(wrong) > 24 and drawn == [row["sheet"] for row in wrong[:24]] and len(set(drawn)) == 24
    assert {f"wrong/{path.name}" for path in (tmp_path / "report" / "wrong").iterdir()} == set(drawn)
    assert set(drawn) <= links((tmp_path / "report" / "report.md").read_text())
    sheet = np.asarray(Image.open(tmp_path / "report" / drawn[0]).convert("RGB")).astype(int)
    crop = Image.open(__import__("io").BytesIO(store.crops(ids.index(wrong[0]["id"]))[0])).convert("RGB")
    tile = sheet[drawing.HEAD : drawing.HEAD + drawing.TILE, 6 : 6 + drawing.TILE]
    corner = np.asarray(crop.resize((drawing.TILE, drawing.TILE), Image.Resampling.LANCZOS)).astype(int)[:20, :20]
    assert np.abs(tile[:20, :20] - corner).max() == 0  # the clip's own first crop
    write_report(tmp_path / "plain", verdict, FACTS, store)
    sheet = np.asarray(Image.open(tmp_path / "plain" / drawn[0]).convert("RGB"))
    tile = sheet[drawing.HEAD : drawing.HEAD + drawing.TILE, 6 : 6 + drawing.TILE]
    assert len(np.unique(tile[:20, :20].reshape(-1, 3), axis=0)) == 1  # paper: nobody's recordings unasked
    assert "wrong.html" in links((tmp_path / "report" / "report.md").read_text())
    page = (tmp_path / "report" / "wrong.html").read_text(encoding="utf-8")
    clips = json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])["clips"]
    assert [clip["about"].partition(":")[0] for clip in clips] == [row["id"] for row in wrong[:3]]
    for clip, row in zip(clips, wrong, strict=False):
        assert clip["title"] == f"{row['label']}, taken for {row['predicted']} ({float(row['probability']):.0%})"
        assert clip["answers"][0] == [row["predicted"], pytest.approx(float(row["probability"]), abs=1e-4)]
        assert "pictures" not in clip  # nobody's recordings go into a report unasked


def test_clips_without_video_of_two_people_are_drawn_too(test_data: Path, tmp_path: Path) -> None:
    from mmcl.data.inspection.drawing import TINTS
    from mmcl.data.preparation.build import prepare
    from mmcl.data.readers.ntu import NTU60

    store = prepare(NTU60(test_data / "ntu" / "skeleton"), tmp_path / "out", workers=1, progress=False).store
    scores = np.eye(60)[[59, 58, 1]]  # all wrong
    write_report(tmp_path / "report", scored(scores, store.labels, store.ids, store.class_names, {}), FACTS, store)
    assert not (tmp_path / "report" / "wrong.html").exists()
    sheets = sorted((tmp_path / "report" / "wrong").iterdir())
    assert len(sheets) == 3
    pair = next(path for path in sheets if "A058" in path.name)
    pixels = np.asarray(Image.open(pair).convert("RGB"))[drawing.HEAD :].astype(int)
    for tints in TINTS:
        assert all((np.abs(pixels - colour).sum(axis=-1) < 30).sum() > 50 for colour in tints)


def test_what_cannot_be_drawn_costs_no_report(
    demo_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(demo_store)
    scores, labels, ids = judged(store)
    surest = drawing.wrong_clips(scores, scores.argmax(axis=1), labels, ids, store.class_names)
    whole = store.crops
    for clip in range(len(ids)):
        whole(clip)  # each is compared with its digest, of which its id is a part, when it is first read
    damaged = {ids.index(row["id"]) for row in surest[:1]}
    monkeypatch.setattr(store, "crops", lambda index: [b"no picture"] if index in damaged else whole(index))
    names = ["a/b\\../" + name for name in ids]
    names[ids.index(surest[1]["id"])] = "somebody else's"
    monkeypatch.setattr(store, "ids", ["a/b\\../" + name for name in ids])
    rows = drawing.wrong_clips(scores, scores.argmax(axis=1), labels, names, store.class_names)
    (tmp_path / "report").mkdir()
    troubles = drawing.draw_sheets(rows, store, tmp_path / "report", video=True)
    assert f"a/b\\../{surest[0]['id']} could not be drawn" in troubles and "somebody else's is not in" in troubles
    assert len(list((tmp_path / "report" / "wrong").glob("*.png"))) == 22, troubles  # ids are no paths
    monkeypatch.setattr(drawing, "SECONDS", -1.0)
    (tmp_path / "late").mkdir()
    assert "24 wrong clips were not drawn" in drawing.draw_sheets(rows, store, tmp_path / "late")


def test_damaged_and_old_reports_are_refused(tmp_path: Path) -> None:
    scores, labels = invented(0)
    folder = save(tmp_path / "report", scores, labels, order=np.random.default_rng(0).permutation(200))
    report = read_report(folder)
    assert report.ids == ids_of(200)
    np.testing.assert_allclose(report.scores, scores, rtol=1e-6)
    np.testing.assert_array_equal(report.labels, labels)
    arrays = dict(np.load(folder / "scores.npz"))
    for change, complaint in (
        ({"class_names": None}, "older mmcl"),
        ({"scores": arrays["scores"][:, :5]}, "damaged"),
        ({"labels": labels + 5}, "damaged"),
        ({"ids": arrays["ids"][[0, *range(199)]]}, "1 clips are in scores.npz more than once"),
        ({"scores": arrays["scores"] + np.inf}, "not finite"),
        ({"ids": np.array([None] * 200)}, "damaged"),
        ({"ids": np.full(len(arrays["ids"]), 0x110000, np.uint32).view("<U1")}, "ids hold what is no text"),
        ({"class_names": np.full(len(arrays["class_names"]), 0x110000, ">u4").view(">U1")}, "hold what is no text"),
        ({"class_names": np.arange(len(arrays["class_names"]))}, "class_names are no list of names"),
        ({"scores": arrays["scores"].astype(np.complex64)}, "scores are complex64, and must be real numbers"),
        ({"scores": arrays["scores"].astype("U9")}, "must be real numbers"),
        ({"labels": labels + 0.4}, "labels are float64, and must be whole numbers"),
        ({"correct": np.full(len(labels), "no")}, "correct are <U2, and must be True and False"),
    ):
        merged = {name: array for name, array in (arrays | change).items() if array is not None}
        np.savez(folder / "scores.npz", **merged)
        with pytest.raises(UserError, match=complaint):
            read_report(folder)
    content = (folder / "scores.npz").read_bytes()
    for broken in (content[: len(content) // 2], b"", b"PK nonsense"):
        (folder / "scores.npz").write_bytes(broken)
        with pytest.raises(UserError, match="damaged"):
            read_report(folder)
    with pytest.raises(UserError, match=r"holds no report\.json"):
        read_report(tmp_path)


def test_arrays_of_one_name_and_pipes_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "report", *invented(0))
    with ZipFile(folder / "scores.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("labels.npy", archive.read("labels.npy"))
    with pytest.raises(UserError, match="two arrays of one name"):
        read_report(folder)
    (folder / "scores.npz").unlink()
    os.mkfifo(folder / "scores.npz")
    writer = os.open(folder / "scores.npz", os.O_RDWR)  # whoever opened the pipe would find it empty, and not wait
    try:
        with pytest.raises(UserError, match=r"scores\.npz is no file"):
            read_report(folder)
    finally:
        os.close(writer)


def test_tables_keep_their_cells() -> None:
    assert table(["a", "b"], [("x|y", 1)]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


def test_a_plain_page_has_pictures_before_tables_and_intervals_in_one_cell() -> None:
    right = {"accuracy": 0.75, "sensitivity": 0.5}
    groups = {"deletion": {"gap": {"mean": 0.25, "low": 0.125, "high": 0.375}, "by_joints": {"1": {"all": right}}}}
    lost = {"stability": {"input": {"mean": None, "low": None, "high": None}, "head": 0.5}}
    page = plain_page({"main": "gap"}, {"gap": 0.25, **groups, **lost}, 8, ["![curves](curves.png)"])
    lines = page.splitlines()
    assert "| gap | 0.25 [0.125, 0.375] |" in lines
    assert lines[lines.index("| by joints | accuracy | sensitivity |") + 2] == "| 1, all | 0.75 | 0.5 |"
    assert "| head | 0.5 |" in lines and page.count("| gap | 0.25 |") == 1
    assert lines.index("![curves](curves.png)") < lines.index("## Deletion") < lines.index("## Stability")
