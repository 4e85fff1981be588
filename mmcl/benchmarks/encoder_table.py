"""What ``mmcl bench encoder`` prints."""

from __future__ import annotations

from typing import Any

from mmcl.benchmarks.machine import in_words


def table(facts: dict[str, Any]) -> str:
    """The measurements as lines of text and a table in Markdown."""
    here = facts["machine"]
    rows = [
        f"{in_words(here)}; torch {here['versions']['torch']}{', ' + facts['gpu'] if 'gpu' in facts else ''}",
        f"CTR-GCN of width {facts['width']}, {facts['frames']} frames, {facts['joints']} joints, slots for 2 bodies",
        "",
        "| | clips | bodies | threads | variant | ms | times faster (quartiles) | difference |",
        "| --- | ---: | ---: | ---: | --- | ---: | --- | ---: |",
    ]
    for one in facts["lines"]:
        ratio = (
            f"**{one['ratio']:.2f}** ({one['ratio_low']:.2f}-{one['ratio_high']:.2f})" if one["ratio"] else "refused"
        )
        rows.append(
            f"| {one['what']} | {one['clips']} | {one['bodies']} | {one['threads']} | {one['variant']} | "
            f"{1e3 * one['seconds']:.1f} | {ratio} | {one['difference']:.0e} |"
        )
    return "\n".join(rows)
