"""The notebooks run as they stand, one after the other in one folder, and are kept without what they printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmcl.cli import call
from mmcl.common.errors import UserError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def cells(notebook: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return found


def execute(notebook: Path) -> dict[str, Any]:
    """Run the code cells in one namespace, as a kernel does; a mistake names its notebook and cell."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(notebook)):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{notebook.name}[{number}]", "exec"), space)
    return space


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where they work."""
    made = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        yield made


@pytest.fixture(scope="module")
def own_arrays(folder: Path) -> dict[str, Any]:
    return execute(NOTEBOOKS[0])


def test_they_are_short_and_hold_no_output() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["1_own_arrays", "2_zero_shot", "3_explain"]
    for notebook in NOTEBOOKS:
        text = "".join("".join(cell["source"]) for cell in cells(notebook))
        assert len(text.split()) < 450, notebook.name  # two minutes of reading
        for cell in cells(notebook):
            assert cell["cell_type"] == "markdown" or (not cell["outputs"] and cell["execution_count"] is None)


def test_own_arrays_become_a_bundle_that_answers(own_arrays: dict[str, Any], folder: Path) -> None:
    report = json.loads((folder / "runs/mine/report-test/report.json").read_text())
    assert report["n"] == 24 and report["top1"] > 0.3  # guessing gives 0.08
    assert own_arrays["model"].class_names == sorted({take.action for take in own_arrays["act"](1, 1)})
    assert '"scores":{' in (folder / "clip.html").read_text()
    assert (folder / "bundles/mine/model.safetensors").stat().st_size < 500_000


def test_withheld_classes_are_named_by_sentences(own_arrays: dict[str, Any], folder: Path, tower_folder: Any) -> None:
    (folder / "minilm").symlink_to(tower_folder("mini-sentence"))  # which other tests use, too
    execute(NOTEBOOKS[1])
    (report,) = (folder / "runs/open").glob("report-*/report.json")
    facts = json.loads(report.read_text())
    assert set(facts["unseen_classes"]) == {"look at a tablet", "make a phone call"} and facts["n"] == 4
    assert (folder / "bundles/open/vocabulary.safetensors").is_file()


def test_a_command_that_fails_in_a_notebook_says_why() -> None:
    with pytest.raises(UserError, match="unknown verb 'tran'"):
        call("tran --config own_joint")
    with pytest.raises(UserError, match="status 2"):
        call("predict")


def test_answers_are_explained(own_arrays: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    execute(NOTEBOOKS[2])
    assert (folder / "why/report.md").is_file()
    said = [line for line in capsys.readouterr().out.splitlines() if line.endswith("spoke for it")]
    assert [line.partition(":")[0] for line in said] == ["kick", "wave a hand"]
