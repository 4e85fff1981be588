"""What ``mmcl bench`` prints of its measurements: lines of text and tables in Markdown."""

from __future__ import annotations

from typing import Any

from mmcl.benchmarks.machine import in_words
from mmcl.benchmarks.roof import roofs_in_words
from mmcl.benchmarks.steps import PARTS


def times_faster(line: dict[str, Any]) -> str:
    """The ratio of a measured line with its quartiles; outputs that should be equal and are not have none."""
    return f"**{line['ratio']:.2f}** ({line['ratio_low']:.2f}-{line['ratio_high']:.2f})" if line["ratio"] else "refused"


def share(line: dict[str, Any]) -> str:
    """The share of the best product that a line reaches, where it was measured beside one."""
    return f"{line['share']:.0%}" if line.get("roof") else "-"


def encoder_table(facts: dict[str, Any]) -> str:
    """The measurements as lines of text and a table in Markdown."""
    here = facts["machine"]
    rows = [
        f"{in_words(here)}; torch {here['versions']['torch']}{', ' + facts['gpu'] if 'gpu' in facts else ''}",
        _encoder_in_words(facts),
        "",
        "| | clips | bodies | threads | variant | ms | times faster (quartiles) | difference | of the best product |",
        "| --- | ---: | ---: | ---: | --- | ---: | --- | ---: | ---: |",
    ]
    for one in facts["lines"]:
        rows.append(
            f"| {one['what']} | {one['clips']} | {one['bodies']} | {one['threads']} | {one['variant']} | "
            f"{1e3 * one['seconds']:.1f} | {times_faster(one)} | {one['difference']:.0e} | {share(one)} |"
        )
    if facts.get("baseline") == "encoder":
        rows += [
            "",
            f"There is no plain form of {facts['encoder']} as published: ratios and differences are to `encoder`.",
        ]
    return "\n".join([*rows, "", roofs_in_words(facts["lines"])]).rstrip()


def _encoder_in_words(facts: dict[str, Any]) -> str:
    clips = f"{facts['frames']} frames, {facts['joints']} joints, slots for {facts.get('persons', 2)} bodies"
    if "encoder" in facts:
        return f"{facts['encoder']} of {facts['parameters']:,} parameters, {clips}"
    return f"CTR-GCN of width {facts['width']}, {clips}"


def colearn_table(facts: dict[str, Any]) -> str:
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


def throughput_rows(lines: list[dict[str, Any]]) -> list[str]:
    """A table of many clips, one row a form and number of threads."""
    rows = [
        f"| {line['variant']} | {line['threads']} | {line['clips_per_second']:.1f} | {line['times']:.2f} | "
        f"{1e3 * line['alone']:.1f} on {line['chosen']} |"
        for line in lines
    ]
    first = f"{lines[0]['threads']} thread{'s' * (lines[0]['threads'] > 1)}"
    head = f"| many clips, one body | threads | clips/s side by side | times {first} | ms for one clip, on threads |"
    return [head, "|---|---|---|---|---|", *rows]


def deploy_table(facts: dict[str, Any]) -> str:
    """The numbers for people."""
    on, rows = facts["machine"], []
    for line in facts["lines"]:
        rows.append(
            f"| {line['threads']} | {line['bodies']} | {line['variant']} | {1e3 * line['seconds']:.1f} | "
            f"{line['ratio']:.2f} ({line['ratio_low']:.2f} to {line['ratio_high']:.2f}) | "
            f"{line['difference']:.1e} | {line['products'] / 1e6:,.0f} | {share(line)} |"
        )
    agreement, stream = facts["agreement"] or {}, facts["stream"]
    sizes = "; ".join(f"{name} {size / 1e6:.2f} MB" for name, size in facts["sizes"].items())
    compared = "; ".join(f"{name} {each['agreement']:.2%} of {each['n']} clips" for name, each in agreement.items())
    starts = "; ".join(f"{name} {seconds:.2f} s" for name, seconds in facts["cold_start"].items())
    return "\n".join(
        [
            f"{facts['parameters']:,} parameters ({facts['weights']}), {facts['persons']} person(s), "
            f"{facts['window']} frames; {in_words(on)}; "
            f"onnxruntime {on['versions']['onnxruntime']}, torch {on['versions']['torch']}",
            "",
            "| threads | bodies | form | ms a clip | times as fast (quartiles) | difference | million products | "
            "of the best product |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            roofs_in_words(facts["lines"]),
            f"A causal network of that size in a stream: {stream['frame'] / 1e6:.2f} million products a frame, "
            f"{stream['share']:.2%} of a window with all bodies ({stream['dearest']:.2%} in its dearest step).",
            f"Bundle with that file alone: {sizes}.",
            f"The network's class is named for: {compared or 'not known, the bundle says nothing of it'}.",
            "",
            *throughput_rows(facts["throughput"]),
            "",
            f"Cold start: {starts}.",
        ]
    )
