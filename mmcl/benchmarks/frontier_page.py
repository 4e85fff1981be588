"""Table and files of ``mmcl bench frontier``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmcl.benchmarks.frontier_picture import draw_frontier
from mmcl.benchmarks.frontier_points import BASELINE, PRECISIONS, Point, on_frontier
from mmcl.benchmarks.machine import in_words
from mmcl.benchmarks.timing import Timing
from mmcl.common.files import atomic_folder, write_json
from mmcl.common.printing import safe_page
from mmcl.evaluation.reporting.page import table

MARK = "frontier.json"


def in_json(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The rows as plain data."""
    pairs = zip(points, on_frontier(points), strict=True)
    return [{**asdict(point), "value": point.value, "frontier": on} for point, on in pairs]


def frontier_table(points: Sequence[Point], facts: Mapping[str, Any]) -> str:
    """The table, and what its numbers are of."""
    head = ["", "seeds", "top-1 % (95 % interval)", "parameters", "M MACs a clip", "fp32, ms", "int8, ms",
            "int8, times as fast (quartiles)", "int8 agrees", "frontier"]  # fmt: skip
    lines = [
        [
            point.name + (f" ({point.networks} networks)" if point.networks > 1 else ""), len(point.values),
            f"{100 * point.value:.2f} ({100 * point.low:.2f} to {100 * point.high:.2f})", f"{point.parameters:,}",
            f"{point.macs / 1e6:,.1f}", *(f"{1e3 * point.times[precision].seconds:.2f}" for precision in PRECISIONS),
            _ratio(point.times["int8"]), f"{point.agreement:.1%}", "yes" if on else "",
        ]
        for point, on in zip(points, on_frontier(points), strict=True)
    ]  # fmt: skip
    published, versions = points[0].times[BASELINE], facts["machine"]["versions"]
    words = (
        f"Judged by {facts.get('protocol', 'no protocol')} {facts.get('split', '')}".rstrip()
        + f"; one clip, {facts['threads']} thread(s), medians of {published.rounds} rounds taken in turns. "
        f"Times as fast as CTR-GCN as published, eagerly in PyTorch ({1e3 * published.seconds:.2f} ms). "
        f"{in_words(facts['machine'])}; onnxruntime {versions['onnxruntime']}, torch {versions['torch']}."
    )
    return f"{table(head, lines)}\n\n{words}"


def _ratio(timing: Timing) -> str:
    return f"{timing.ratio:.1f} ({timing.ratio_low:.1f} to {timing.ratio_high:.1f})"


def write_frontier(out: Path, points: Sequence[Point], facts: Mapping[str, Any]) -> None:
    """Write frontier.md, frontier.json and frontier.png in one go.

    Raises:
        UserError: ``out`` holds something else.
    """
    with atomic_folder(out, MARK) as folder:
        write_json(folder / MARK, {**facts, "points": in_json(points)})
        page = f"# Accuracy and time\n\n{frontier_table(points, facts)}\n\n![accuracy and time](frontier.png)\n"
        (folder / "frontier.md").write_text(safe_page(page), encoding="utf-8")
        draw_frontier(folder / "frontier.png", points)
