"""Groups of reports as a command line names them: the seeds of one thing each."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.evaluation.reporting.saved import SavedReport, read_report

STUDY = "study.json"  # in the folder of a study: which runs were finished, and of which arm each is


def read_groups(words: Sequence[str], least: int = 2) -> dict[str, list[SavedReport]]:
    """Groups of a command line: name -> reports.

    Args:
        words: ``NAME=PATH,PATH,…``, ``PATH,PATH,…``, or the folder of a study, which stands for all its arms.
        least: groups that there must be.

    Raises:
        UserError: fewer groups, a name that comes twice, or a path that holds no report.
    """
    groups: dict[str, list[SavedReport]] = {}
    for word in words:
        for name, paths in _named(word):
            if name in groups:
                raise UserError(f"two groups are called '{name}': write NAME=PATH,PATH,… with names of your own")
            groups[name] = [read_report(path) for path in paths]
    if len(groups) < least:
        raise UserError("nothing to compare: give at least two groups (NAME=PATH,PATH,… holds the seeds of one)")
    return groups


def _named(word: str) -> Iterator[tuple[str, list[Path]]]:
    """The groups that a word stands for, each with its paths."""
    if (Path(word) / STUDY).is_file():
        yield from _arms(Path(word)).items()
        return
    name, sign, paths = word.partition("=")
    if not sign or "/" in name or Path(word).exists():  # folders may be called lr=0.1
        name = paths = word
    entries = [paths] if Path(paths).exists() else paths.split(",")
    yield name, [path for entry in entries for path in _matching(entry)]


def _arms(folder: Path) -> dict[str, list[Path]]:
    """The finished runs of a study by arm, wherever its folder has been moved to."""
    content = read_json(folder / STUDY)
    runs = content.get("runs") if isinstance(content, Mapping) else None
    arms: dict[str, list[Path]] = {}
    for run in runs if isinstance(runs, list) else ():
        if not isinstance(run, Mapping) or not isinstance(run.get("arm"), str):
            raise UserError(f"{folder / STUDY} is damaged: its runs have no arms")
        parts = [run["arm"], str(run.get("seed")), *([] if run.get("draw") is None else [str(run["draw"])])]
        report = Path(str(run.get("report", ""))).name  # where it is not the run's report on its own test side
        arms.setdefault(run["arm"], []).append(folder.joinpath(*parts, report))
    if not arms:
        raise UserError(f"{folder / STUDY} tells of no finished run")
    return arms


def _matching(entry: str) -> list[Path]:
    """The paths that an entry means: itself, or what a pattern finds, in order."""
    if Path(entry).exists() or not glob.has_magic(entry):
        return [Path(entry)]
    found = sorted(glob.glob(entry))
    if not found:
        raise UserError(f"nothing matches {entry}")
    return [Path(path) for path in found]
