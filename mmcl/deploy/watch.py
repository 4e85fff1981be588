"""The side of ``mmcl predict`` that looks at videos and cameras: from pictures to labels over time, said or written."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.common.errors import BadClip, UserError
from mmcl.common.files import write_text
from mmcl.common.printing import complain, json_line, one_line, printable
from mmcl.data.opening import check_film
from mmcl.deploy.films import FilmLabels, judge
from mmcl.deploy.segments import NONE, Segment, WindowLabel, to_csv, to_srt
from mmcl.deploy.stream import Ranking, Watched
from mmcl.deploy.streams import AnyStream, open_streams
from mmcl.models.description import Description
from mmcl.models.rejection import Rejection
from mmcl.pose.base import Estimator
from mmcl.pose.flags import estimator_of, refinement_of
from mmcl.pose.gathering import gather
from mmcl.pose.live import Live
from mmcl.pose.watching import missing, watched
from mmcl.pose.worker import Watch
from mmcl.skeletons.layout import load_layout


def film_estimator(arguments: argparse.Namespace) -> Estimator:
    """The estimator that is to look at the videos; says by ``arguments.layout`` which joints a model will be shown.

    Raises:
        UserError: it is not to be had.
    """
    estimator = estimator_of(arguments)
    arguments.layout = estimator.layout
    return estimator


def watch_files(
    predictor: Any, only: list[str] | None, description: Description, estimator: Estimator,
    arguments: argparse.Namespace, rule: Rejection | None = None,
) -> int:  # fmt: skip
    """Look at the videos of a command line, print what people do, and write what was asked for; the exit status."""
    span, hop = span_and_hop(arguments, description)
    classify, rejects = Watched(predictor.rank, predictor.joints, predictor.reading), rejects_by(rule)
    estimator.check(arguments.files)
    rows: list[tuple[str, Segment]] = []
    judged = failed = 0
    try:
        for path in arguments.files:
            try:
                recording = look_at(path, estimator, arguments)
                found = judge(path, recording, classify, description.planar, span, hop, arguments.together, rejects)
                judged += 1
                rows += [(str(path), segment) for segment in found.segments]
                say(found, arguments, only)
                write_beside(found, arguments)
            except (BadClip, UserError) as error:  # a bad video does not end the job
                said = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
                complain("error", said)
                failed += 1
    finally:  # whatever ends the job, what was found is kept; an earlier table does not make way for nothing
        if arguments.csv and judged:
            write_text(arguments.csv, to_csv(rows))
    return 2 if failed else 0


def write_beside(found: FilmLabels, arguments: argparse.Namespace) -> None:
    """The subtitles and the drawn video, where they were asked for.

    Raises:
        BadClip: the video cannot be read a second time.
    """
    if arguments.srt:
        write_text(arguments.srt, to_srt(found.segments))
    if arguments.draw:
        from mmcl.deploy.annotate import annotate

        annotate(found.path, found.recording, found.segments, arguments.draw, progress=sys.stderr.isatty())


def look_at(path: Path, estimator: Estimator, arguments: argparse.Namespace) -> Any:
    """The people in one video.

    Raises:
        BadClip: it cannot be read, or nobody is in it.
    """
    how = refinement_of(arguments)
    check_film(path)
    watch = Watch(estimator, path, how.fps, arguments.timeout)
    glances = list(watched(watch, path.name, sys.stderr.isatty()))
    return gather(glances, (watch.facts.width, watch.facts.height), load_layout(estimator.layout), how)


def rejects_by(rule: Rejection | None) -> Callable[[Ranking], bool]:
    """Whether a ranking is to be taken for none of the classes."""
    return lambda ranking: rule is not None and rule(ranking[0][2], ranking.familiarity)


def span_and_hop(arguments: argparse.Namespace, description: Description) -> tuple[int, int]:
    """Frames of a window, and from one to the next.

    Raises:
        UserError: one of them is below 1.
    """
    span = arguments.span if arguments.span is not None else description.window
    hop = arguments.hop if arguments.hop is not None else max(1, span // 4)
    if span < 1 or hop < 1:
        raise UserError(f"--span and --hop must be one frame or more, not {span} and {hop}")
    return span, hop


def say(found: FilmLabels, arguments: argparse.Namespace, only: list[str] | None) -> None:
    """Print the windows or segments of a video, one a line."""
    start = found.recording.seconds
    rows: list[tuple[float, float, WindowLabel | Segment]] = [
        (float(start[each.begin]), float(start[each.end - 1]), each) for each in found.labels
    ] if arguments.windows else [(each.begin, each.end, each) for each in found.segments]  # fmt: skip
    for begin, end, each in rows:
        print_label(f"{found.path}", each.person, (begin, end), each.ranking, each.rejected, arguments, only)


def print_label(
    source: str, person: int, seconds: tuple[float, float], ranking: Ranking, rejected: bool,
    arguments: argparse.Namespace, only: list[str] | None,
) -> None:  # fmt: skip
    """One line: who does what from when to when."""
    begin, end = seconds
    rows = ranking[: arguments.top]
    if not arguments.json:
        who = f"person {person}" if person else "together"
        named = "  ".join(f"{one_line(name)} {p:.3f}" for _, name, p in rows)
        named = f"{NONE} ({named})" if rejected else named
        more = f"  (open vocabulary, {len(only)} classes)" if only else ""
        print(f"{printable(source)}  {begin:7.2f} - {end:7.2f} s  {who}  {named}{more}", flush=True)
        return
    fields = [
        {**({} if only else {"label": label}), "name": name, "probability": round(p, 6)} for label, name, p in rows
    ]
    record: dict[str, Any] = {"file": source, "person": person or "all", "begin": round(begin, 3), "end": round(end, 3)}
    if ranking.familiarity is not None:
        record["familiarity"] = round(ranking.familiarity, 6)
    record |= {"none_of_these": rejected} | ({"open_vocabulary": only} if only else {})
    print(json_line({**record, "predictions": fields}), flush=True)


@dataclass
class _Followed:
    """Somebody before a camera: their frames, the seconds of those of a window, and when they were seen last."""

    stream: AnyStream
    times: deque[float]
    seen: float = 0.0


def follow_film(
    predictor: Any, only: list[str] | None, description: Description, estimator: Estimator,
    arguments: argparse.Namespace, rule: Rejection | None = None,
) -> int:  # fmt: skip
    """Print a label for each person and hop while a camera, or a video, goes on; until it ends, or Ctrl-C.

    Raises:
        UserError: it cannot be read, or the model and the estimator do not fit.
    """
    if description.planar or estimator.dimensions != 3:
        raise UserError("--follow of pictures takes a model, and an estimator, of joints in space")
    span, _ = span_and_hop(arguments, description)
    how, layout = refinement_of(arguments), load_layout(estimator.layout)
    opened, rejects = open_streams(predictor, description, arguments.span, arguments.hop, persons=1), rejects_by(rule)
    watch = Watch(estimator, arguments.follow, how.fps, arguments.timeout)
    live: Live | None = None
    followed: dict[int, _Followed] = {}
    try:
        for glance in watch:
            live = live or Live(layout, (watch.facts.width, watch.facts.height), how)
            people = live.step(glance)
            for number in people:
                followed.setdefault(number, _Followed(opened(), deque(maxlen=span))).seen = glance.seconds
            followed = {n: one for n, one in followed.items() if glance.seconds - one.seen <= how.longest_gap}
            for number, one in followed.items():
                one.times.append(glance.seconds)
                frame = people.get(number)
                said = one.stream.push(np.zeros((0, layout.joint_count, 4)) if frame is None else frame[None])
                if said is not None and said.ranking:
                    ranking, window = said.ranking, (one.times[0], glance.seconds)
                    print_label(str(arguments.follow), number + 1, window, ranking, rejects(ranking), arguments, only)
        if lost := missing(watch.facts, watch.end):
            complain("warning", f"{arguments.follow}: {lost}")
    except BadClip as error:
        raise UserError(str(error)) from error
    except KeyboardInterrupt:
        return 0
    return 0
