"""From labels of overlapping windows to segments with a begin and an end, and files of them. Needs numpy alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmcl.common.printing import csv_cell, one_line
from mmcl.deploy.stream import Ranking

NONE = "none of these"  # the name of what a model rejects
TOGETHER = 0  # "person" of a label that all people of a window get together


@dataclass(frozen=True)
class WindowLabel:
    """What a model says of some frames of a recording.

    Attributes:
        person: whom it is about, from 1; :data:`TOGETHER` for all of them.
        begin: first frame.
        end: frame behind the last one.
        ranking: (label, name, probability) of all classes, most probable first.
        rejected: whether it is to be taken for none of them.
    """

    person: int
    begin: int
    end: int
    ranking: Ranking
    rejected: bool = False


@dataclass(frozen=True)
class Segment:
    """Frames of a recording with one and the same label.

    Attributes:
        person: as of :class:`WindowLabel`.
        begin: seconds.
        end: seconds.
        ranking: (label, name, probability) of all classes, most probable first: means over the frames. The probability
            is of that class wherever it stands; label and name of what is rejected are -1 and :data:`NONE`.
        rejected: whether it is none of the classes.
    """

    person: int
    begin: float
    end: float
    ranking: Ranking
    rejected: bool = False

    @property
    def name(self) -> str:
        """What it is called."""
        return NONE if self.rejected else self.ranking[0][1]

    @property
    def probability(self) -> float:
        """Mean probability of the first class, whether or not it is rejected."""
        return self.ranking[0][2]

    @property
    def who(self) -> str:
        """Whom it is about, in words."""
        return "together" if self.person == TOGETHER else f"person {self.person}"


def windows(frames: int, span: int, hop: int) -> list[slice]:
    """Windows of ``span`` frames, ``hop`` apart; the last one ends with the recording. A short recording is one."""
    if frames <= span:
        return [slice(0, frames)]
    starts = list(range(0, frames - span + 1, hop))
    if starts[-1] < frames - span:
        starts.append(frames - span)
    return [slice(start, start + span) for start in starts]


def join(labels: Sequence[WindowLabel], there: np.ndarray, fps: float, start: float = 0.0) -> list[Segment]:
    """Segments of one person.

    A frame is what the windows that hold it say in the mean, and rejected where most of them are. Neighbours that are
    called the same make a segment.

    Args:
        labels: of windows of one person, of the same classes each.
        there: (T,) bool, in which frames the person is.
        fps: frames a second.
        start: seconds at the first frame.
    """
    if not labels:
        return []
    names = {label: name for label, name, _ in labels[0].ranking}
    order = {label: column for column, label in enumerate(names)}
    total, covered, refused = np.zeros((len(there), len(order))), np.zeros(len(there)), np.zeros(len(there))
    for each in labels:
        row = np.zeros(len(order))
        for label, _, probability in each.ranking:
            row[order[label]] = probability
        total[each.begin : each.end] += row
        covered[each.begin : each.end] += 1
        refused[each.begin : each.end] += each.rejected
    mean = total / np.maximum(covered, 1)[:, None]
    called = np.where(refused * 2 > covered, -1, mean.argmax(axis=1))
    called = np.where((covered > 0) & there, called, -2)
    edges = np.flatnonzero(np.diff(called, prepend=-3, append=-3))
    segments = []
    for begin, end in zip(edges, edges[1:], strict=False):
        if called[begin] == -2:
            continue
        inside = mean[begin:end].mean(axis=0)
        first = (np.arange(len(inside)) == called[begin]).astype(
            int
        )  # its own class first, though another may have the larger mean
        ranked = sorted(names, key=lambda label: (-first[order[label]], -inside[order[label]]))
        ranking = Ranking((label, names[label], float(inside[order[label]])) for label in ranked)
        segments.append(
            Segment(labels[0].person, start + begin / fps, start + end / fps, ranking, bool(called[begin] == -1))
        )
    return segments


def to_csv(rows: Sequence[tuple[str, Segment]]) -> str:
    """A table of segments, each with the file that it is of."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "person", "begin", "end", "label", "name", "probability"])
    for file, each in rows:
        label = -1 if each.rejected else each.ranking[0][0]
        person = "all" if each.person == TOGETHER else each.person
        times = (f"{each.begin:.3f}", f"{each.end:.3f}")
        writer.writerow([csv_cell(file), person, *times, label, csv_cell(each.name), f"{each.probability:.4f}"])
    return text.getvalue()


def to_srt(segments: Sequence[Segment]) -> str:
    """Subtitles: a cue wherever somebody's label changes, a line for each person."""
    times = sorted({round(time, 3) for each in segments for time in (each.begin, each.end)})
    people = len({each.person for each in segments})
    cues: list[tuple[float, float, str]] = []
    for begin, end in zip(times, times[1:], strict=False):
        lines = [_line(each, people) for each in segments if each.begin <= begin + 1e-3 and each.end >= end - 1e-3]
        if lines and end - begin >= 1e-3:
            cues.append((begin, end, "\n".join(lines)))
    parts = [f"{n}\n{_clock(begin)} --> {_clock(end)}\n{text}\n" for n, (begin, end, text) in enumerate(cues, 1)]
    return "\n".join(parts)


def _line(each: Segment, people: int) -> str:
    said = f"{one_line(each.name)} {each.probability:.0%}" if not each.rejected else each.name
    return said if people == 1 else f"{each.who}: {said}"


def _clock(seconds: float) -> str:
    """``00:01:02,345``."""
    thousandths = round(seconds * 1000)
    minutes, thousandths = divmod(thousandths, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{thousandths // 1000:02d},{thousandths % 1000:03d}"
