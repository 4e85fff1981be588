"""Groups of reports as a command line names them: the seeds of one thing each."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcl.common.documents import read_json
from mmcl.common.errors import UserError
from mmcl.evaluation.reporting.outdated import refuse_outdated
from mmcl.evaluation.reporting.saved import SavedReport, read_report

STUDY = "study.json"  # in the folder of a study: which runs were finished, and of which arm each is


def read_groups(words: Sequence[str], least: int = 2) -> dict[str, list[SavedReport]]:
    """Groups of a command line: name -> reports.

    Args:
        words: ``NAME=PATH,PATH,…``, ``PATH,PATH,…``, or the folder of a study, which stands for all its arms.
        least: groups that there must be.

    Raises:
        UserError: fewer groups, a name that comes twice, or a path that holds no report, or an outdated one.
    """
    groups: dict[str, list[SavedReport]] = {}
    for word in words:
        for name, paths in _named(word):
            if name in groups:
                raise UserError(f"two groups are called '{name}': write NAME=PATH,PATH,… with names of your own")
            groups[name] = [refuse_outdated(read_report(path)) for path in paths]
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


def read_pairing(words: Sequence[str]) -> dict[str, dict[Path, int]]:
    """Which runs of a study belong together, by the study's own rule, where the first group is its baseline.

    Args:
        words: as for :func:`read_groups`.

    Returns:
        Name of each arm that the study pairs with the baseline -> report folder -> seed, or draw of a random protocol.
    """
    folder = Path(words[0])
    if not (folder / STUDY).is_file():
        return {}
    runs, rows = _runs(folder), _rows(read_json(folder / STUDY))
    if not rows or runs[0][0] != rows[0].get("arm"):
        return {}
    drawn = {arm for arm, _, run in runs if run.get("draw") is not None}
    paired = drawn | {row.get("arm") for row in rows if row.get("matched")}
    numbers = {
        read_report(path).path: number for _, path, run in runs
        if isinstance(number := run.get("seed") if run.get("draw") is None else run["draw"], int)
    }  # fmt: skip
    return {arm: numbers for arm in dict.fromkeys(arm for arm, _, _ in runs) if arm in paired}


def _arms(folder: Path) -> dict[str, list[Path]]:
    """The finished runs of a study by arm, the baseline first, wherever its folder has been moved to."""
    arms: dict[str, list[Path]] = {}
    for arm, path, _ in _runs(folder):
        arms.setdefault(arm, []).append(path)
    return arms


def _runs(folder: Path) -> list[tuple[str, Path, Mapping[str, Any]]]:
    """Arm, folder and facts of the finished runs of a study, those of the baseline first."""
    content = read_json(folder / STUDY)
    runs = content.get("runs") if isinstance(content, Mapping) else None
    found: list[tuple[str, Path, Mapping[str, Any]]] = []
    for run in runs if isinstance(runs, list) else ():
        if not isinstance(run, Mapping) or not isinstance(run.get("arm"), str):
            raise UserError(f"{folder / STUDY} is damaged: its runs have no arms")
        parts = [run["arm"], str(run.get("seed")), *([] if run.get("draw") is None else [str(run["draw"])])]
        report = Path(str(run.get("report", ""))).name  # where it is not the run's report on its own test side
        found.append((run["arm"], folder.joinpath(*parts, report), run))
    if not found:
        raise UserError(f"{folder / STUDY} tells of no finished run")
    baseline = next((row.get("arm") for row in _rows(content)), None)
    return sorted(found, key=lambda one: one[0] != baseline)


def _rows(content: Any) -> list[Mapping[str, Any]]:
    """The rows of a study's table, the baseline first; none where it does not tell."""
    rows = content.get("rows") if isinstance(content, Mapping) else None
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _matching(entry: str) -> list[Path]:
    """The paths that an entry means: itself, or what a pattern finds, in order."""
    if Path(entry).exists() or not glob.has_magic(entry):
        return [Path(entry)]
    found = sorted(glob.glob(entry))
    if not found:
        raise UserError(f"nothing matches {entry}")
    return [Path(path) for path in found]
