"""What a data check has found, and the verdict that follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mmcl.data.inspection.measures import Measures
from mmcl.data.store import ClipStore

Splits = Mapping[str, Mapping[str, np.ndarray]]  # protocol -> side ("train", "test") -> clip positions
OK, NOTE, WARN, BAD = "OK", "NOTE", "WARN", "BAD"


@dataclass(frozen=True)
class Finding:
    """One line of the report: level (NOTE, WARN or BAD), what is wrong, how many, first few names, what to do."""

    level: str
    what: str
    count: int
    names: list[str]
    advice: str

    def __str__(self) -> str:
        shown = ", ".join(self.names[:4]) + (", …" if len(self.names) > 4 else "")
        return f"{self.level}  {self.what}: {self.count}" + (f" ({shown})" if shown else "") + f" -> {self.advice}"


@dataclass
class Report:
    """What was looked at and found.

    Attributes:
        store: the clips.
        measures: of each clip.
        splits: protocol -> side -> clip positions.
        mended: (id, what, kind of remark) of what was mended while the clips were prepared.
        findings: what is wrong, worst first.
        passed: names of the checks that found nothing.
        unchecked: names of the checks that this store does not allow, with the reason.
        floors: protocol -> what raw joints alone reach on its test side, in words.
    """

    store: ClipStore
    measures: list[Measures]
    splits: Splits
    mended: list[tuple[str, str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    floors: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The worst level found: OK, WARN or BAD."""
        levels = {finding.level for finding in self.findings}
        return BAD if BAD in levels else WARN if WARN in levels else OK

    def clips(self, level: str, what: str, indices: Iterable[int] | np.ndarray, advice: str) -> bool:
        """Note a finding about clips, if there are any. Returns whether there are."""
        names = [self.store.ids[int(index)] for index in indices]
        if names:
            self.findings.append(Finding(level, what, len(names), names, advice))
        return bool(names)

    def whole(self, level: str, what: str, wrong: bool, names: list[str], advice: str) -> bool:
        """Note a finding about the store as a whole. Returns ``wrong``."""
        if wrong:
            self.findings.append(Finding(level, what, max(len(names), 1), names, advice))
        return wrong

    def sort(self) -> None:
        """Put the worst findings first."""
        self.findings.sort(key=lambda finding: (BAD, WARN, NOTE).index(finding.level))

    def settle(self, name: str, *found: bool) -> None:
        """A check is over: it has passed unless something was found."""
        if not any(found):
            self.passed.append(name)
