"""``mmcl zero-shot --checkpoint X --data DIR --protocol P``: judge a model on a data set it never saw."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: keep mmcl/ itself off sys.path, so that no module of ours shadows a library
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import argparse
from collections.abc import Sequence
from typing import Any

from mmcl.errors import UserError, run


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl zero-shot``."""
    parser = argparse.ArgumentParser(
        prog="mmcl zero-shot",
        description="Transfer by label map, as MMCL's paper judges it: the classifier sees clips of another data set, "
        "answers with any of its own classes, and is right where a label map pairs the two. No fine-tuning; joints are "
        "converted between layouts by name. (Recognition of unseen classes from text is another protocol.)",
        epilog="example: mmcl zero-shot --checkpoint checkpoints/ntu120 --data data/utd --protocol mmcl/utd_mhad",
    )
    parser.add_argument("--list-protocols", action="store_true", help="print the protocols with their class pairs")
    parser.add_argument("--checkpoint", type=Path, metavar="X", help="run folder, checkpoint or bundle")
    parser.add_argument("--data", metavar="DIR", help="clip store of the other data set")
    parser.add_argument("--protocol", metavar="P", help="protocol name, or a .yaml file with source, target, pairs")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="report folder (default: RUN/report-PROTOCOL, or reports/)"
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="clips at once (default: 64)")
    parser.add_argument("--device", metavar="D", help="torch device (default: a GPU where there is one)")
    return parser


def describe_protocols() -> str:
    """Every shipped protocol with its rule and class pairs."""
    from mmcl.evaluation.transfer import transfer_maps

    blocks = []
    for name, rule in transfer_maps().items():
        pairs = "\n".join(f"    {own} -> {foreign}" for own, foreign in rule.pairs.items())
        head = f"{name}: trained on {rule.source}, judged on {rule.target}, argmax over all source classes"
        blocks.append(f"{head}\n    [{rule.reference}]\n{pairs}")
    return "\n".join(blocks)


def judge(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Score the mapped clips and write the report; returns the report and its folder."""
    from mmcl.data.store import open_store
    from mmcl.device import pick_device
    from mmcl.engine.scoring import score_clips
    from mmcl.evaluation.metrics import chance
    from mmcl.evaluation.model import find_model, load_judged
    from mmcl.evaluation.report import write_report
    from mmcl.evaluation.transfer import load_map, mapped_clips

    rule, store = load_map(arguments.protocol), open_store(arguments.data)
    found = find_model(arguments.checkpoint)
    judged = load_judged(found, store.layout)
    if judged.dataset is not None and judged.dataset != rule.source:
        raise UserError(
            f"protocol '{rule.name}' judges models of '{rule.source}'; {arguments.checkpoint} was trained on "
            f"'{judged.dataset}'"
        )
    names = judged.model.class_names
    clips, labels = mapped_clips(rule, store, names)
    if rule.clips is not None and len(clips) != rule.clips:
        print(f"note: {len(clips)} clips take part, the complete data set has {rule.clips}", file=sys.stderr)
    device = pick_device(arguments.device)
    scores = score_clips(judged.model.to(device), store, clips, device, arguments.batch_size, progress=True)
    out = arguments.out or found.report_folder(rule.name.replace("/", "-"))
    facts = {
        "protocol": rule.name, "kind": "transfer by label map, argmax over all source classes, no fine-tuning",
        "trained_on": judged.dataset or "unknown (the checkpoint does not say)",
        "chance": chance(labels, len(names)), "data": str(arguments.data), "data_fingerprint": store.fingerprint,
        "pairs": {str(own): foreign for own, foreign in rule.pairs.items()}, **judged.facts,
    }  # fmt: skip
    return write_report(out, scores, labels, [store.ids[clip] for clip in clips], names, facts), out


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, judge, print one line."""
    arguments = build_parser().parse_args(argv)
    if arguments.list_protocols:
        print(describe_protocols())
        return 0
    if missing := [f"--{key}" for key in ("checkpoint", "data", "protocol") if getattr(arguments, key) is None]:
        raise UserError(f"zero-shot needs {', '.join(missing)} (or --list-protocols)")
    from mmcl.stack import require_training_stack

    require_training_stack()
    report, out = judge(arguments)
    top5 = f", top-5 {report['top5']:.2%}" if report["top5"] is not None else ""
    print(
        f"{report['protocol']} ({report['kind']}): top-1 {report['top1']:.2%} ({report['correct']} of {report['n']}"
        f"; most frequent class {report['chance']:.2%}){top5}; report in {out}"
    )
    return 0


if __name__ == "__main__":
    run(main)
