"""What ``mmcl bench colearn`` prints."""

from __future__ import annotations

from typing import Any

from mmcl.benchmarks.machine import in_words
from mmcl.benchmarks.steps import PARTS


def table(facts: dict[str, Any]) -> str:
    """The numbers as a Markdown table."""
    found = facts["variants"]
    rows = [["ms a step", *found], ["---", *("--:" for _ in found)]]
    rows += [[part, *(f"{1e3 * v['parts'][part]:.1f}" for v in found.values())] for part in PARTS]
    rows.append(["**total**", *(f"**{1e3 * v['seconds']:.0f}**" for v in found.values())])
    rows.append(
        ["of skeleton", *(f"{v['ratio']:.3f} ({v['ratio_low']:.2f}-{v['ratio_high']:.2f})" for v in found.values())]
    )
    rows.append(["memory of a step, MiB", *(f"{v['step_bytes'] / 2**20:.0f}" for v in found.values())])
    where = facts["machine"]
    rounds = next(iter(found.values()))["rounds"]
    return "\n".join(
        [
            f"{in_words(where)}; {facts['device']}, {facts['threads']} thread(s)",
            f"medians of {rounds} rounds, quartiles in brackets",
            facts["shape"],
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
    )
