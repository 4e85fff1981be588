"""What ``mmcl bench deploy`` prints."""

from __future__ import annotations

from typing import Any

from mmcl.benchmarks.machine import in_words


def table(facts: dict[str, Any]) -> str:
    """The numbers for people."""
    on, rows = facts["machine"], []
    for line in facts["lines"]:
        rows.append(
            f"| {line['threads']} | {line['bodies']} | {line['variant']} | {1e3 * line['seconds']:.1f} | "
            f"{line['ratio']:.2f} ({line['ratio_low']:.2f} to {line['ratio_high']:.2f}) | "
            f"{line['difference']:.1e} | {line['products'] / 1e6:,.0f} |"
        )
    accuracy = facts["accuracy"] or {}
    sizes = "; ".join(f"{name} {size / 1e6:.2f} MB" for name, size in facts["sizes"].items())
    judged = "; ".join(
        f"{name} {each['top1']:.2%} (trained network {each['reference_top1']:.2%}, {each['n']} clips)"
        for name, each in accuracy.items()
    )
    starts = "; ".join(f"{name} {seconds:.2f} s" for name, seconds in facts["cold_start"].items())
    return "\n".join(
        [
            f"{facts['parameters']:,} parameters ({facts['weights']}), {facts['persons']} person(s), "
            f"{facts['window']} frames; {in_words(on)}; "
            f"onnxruntime {on['versions']['onnxruntime']}, torch {on['versions']['torch']}",
            "",
            "| threads | bodies | form | ms a clip | times as fast (quartiles) | difference | million products |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"Bundle with that file alone: {sizes}.",
            f"Top-1: {judged or 'not known, the weights are random or the bundle says nothing of it'}.",
            f"Cold start: {starts}.",
        ]
    )
