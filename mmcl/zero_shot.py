"""``mmcl zero-shot``: judge a model on another data set by a label map, or on classes it never saw by their text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcl.common.arguments import AtLeastOne
from mmcl.common.errors import UserError, run
from mmcl.common.files import check_replaceable

ABOUT = """Three things are called zero-shot in this field. mmcl never mixes them up:

  transfer by label map   a classifier judged on another data set's clips of the actions that both share, argmax over
                          all its own classes, no fine-tuning. MMCL's paper calls this zero-shot.
  open vocabulary         clips of classes that were withheld from training, recognised by their text. What SynSE, SMIE
                          and others call (generalised) zero-shot.
  domain adaptation       trained on one half of the target data set, judged on the other: that is `mmcl train` with
                          --start.checkpoint, and `mmcl evaluate`."""
EXAMPLES = """examples:
  mmcl zero-shot --list-protocols
  mmcl zero-shot --checkpoint checkpoints/ntu120 --data data/utd --protocol mmcl/utd_mhad
  mmcl zero-shot --checkpoint runs/open0 --gate runs/open0_gate       (protocol and data come from the run)
  mmcl zero-shot --checkpoint checkpoints/open --data data/utd --classes "wave,clap,jog"
"""
NO_GATE = "--gate belongs to a protocol that withholds classes, and to no label map nor --classes"


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl zero-shot``."""
    parser = argparse.ArgumentParser(
        prog="mmcl zero-shot", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list-protocols", action="store_true", help="print the protocols with rules and class lists")
    parser.add_argument("--checkpoint", type=Path, metavar="X", help="run folder, checkpoint or bundle")
    parser.add_argument("--data", metavar="DIR", help="clip store to judge on (open vocabulary: the run's own)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--protocol",
        metavar="P",
        help="label map or open-vocabulary protocol, by name or .yaml file (default: the run's)",
    )
    what.add_argument(
        "--classes", metavar="C", help="open vocabulary among these: names separated by commas, or a prompts .yaml file"
    )
    parser.add_argument(
        "--gate", type=Path, metavar="RUN", help="run of P/gate: fits the gate of generalised zero-shot"
    )
    parser.add_argument("--which", choices=("last", "best"), default="last", help="checkpoint of a run (default: last)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="report folder (default: RUN/report-…, or reports/)")
    parser.add_argument(
        "--batch-size", type=int, action=AtLeastOne, default=64, metavar="N", help="clips at once (default: 64)"
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: a GPU where there is one)")
    return parser


def describe_protocols() -> str:
    """Every shipped protocol with its rule and classes, by kind."""
    from mmcl.evaluation.listing import describe_maps, describe_open_protocols

    return (
        "TRANSFER BY LABEL MAP: argmax over all source classes, no fine-tuning\n\n"
        f"{describe_maps()}\n\nOPEN VOCABULARY: withheld classes, recognised by their text\n\n"
        f"{describe_open_protocols()}\n\n"
        "DOMAIN ADAPTATION: `mmcl train --start.checkpoint X`, judged by `mmcl evaluate`; protocols "
        "sysu/setting-1/0 … 29, sysu/setting-2/0 … 29, or any protocol of the target data set"
    )


def judge_transfer(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Score the clips of a label map and write the report; returns the report and its folder."""
    from mmcl.common.device import pick_device
    from mmcl.data.learned import not_learned
    from mmcl.data.store import open_store
    from mmcl.engine.scoring import score_clips
    from mmcl.evaluation.model import find_model, load_judged
    from mmcl.evaluation.report import write_report
    from mmcl.evaluation.transfer import load_map, mapped_clips, transfer_facts

    if arguments.gate is not None:
        raise UserError(NO_GATE)
    if arguments.data is None:
        raise UserError("transfer by label map needs --data, a clip store of the other data set")
    rule, store = load_map(arguments.protocol), open_store(arguments.data)
    found = find_model(arguments.checkpoint, arguments.which)
    judged = load_judged(found, store.layout)
    if judged.dataset is not None and judged.dataset != rule.source:
        raise UserError(
            f"protocol '{rule.name}' judges models of '{rule.source}'; {arguments.checkpoint} was trained on "
            f"'{judged.dataset}'"
        )
    out = arguments.out or found.report_folder(
        rule.name.replace("/", "-"), [store.fingerprint] if found.config is None else []
    )
    check_replaceable(out, "report.json")
    names = judged.model.class_names
    clips, labels = mapped_clips(rule, store, names)
    kept, side = not_learned(clips, store, judged.lessons)
    clips, labels = clips[kept], labels[kept]
    if rule.clips is not None and len(clips) != rule.clips and side == "all":
        print(f"note: {len(clips)} clips take part, the complete data set has {rule.clips}", file=sys.stderr)
    device = pick_device(arguments.device)
    scores = score_clips(judged.model.to(device), store, clips, device, arguments.batch_size, progress=True)
    facts = {
        **transfer_facts(rule, len(names)), "trained_on": judged.dataset or "unknown (the checkpoint does not say)",
        "clips": side, "data": str(arguments.data), "data_fingerprint": store.fingerprint, **judged.facts,
    }  # fmt: skip
    return write_report(out, scores, labels, [store.ids[clip] for clip in clips], names, facts, store), out


def judge_open(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Judge the withheld classes of an open-vocabulary protocol, or the classes named; write the report."""
    from mmcl.common.device import pick_device
    from mmcl.evaluation.model import find_model
    from mmcl.evaluation.open_classes import judge_classes
    from mmcl.evaluation.open_vocabulary import judge_protocol

    found, device = find_model(arguments.checkpoint, arguments.which), pick_device(arguments.device)
    data, out, size = arguments.data, arguments.out, arguments.batch_size
    if arguments.classes is None:
        return judge_protocol(found, data, arguments.protocol, arguments.gate, out, device, size)
    if arguments.gate is not None:
        raise UserError(NO_GATE)
    if data is None:
        raise UserError("--classes needs --data, a clip store that holds clips of them")
    return judge_classes(found, data, arguments.classes, out, device, size)


def is_open(arguments: argparse.Namespace) -> bool:
    """Whether open vocabulary is asked for, rather than transfer by label map.

    Raises:
        UserError: neither the command line nor the checkpoint says which protocol, or it is none.
    """
    from mmcl.data.protocols import UnknownProtocol, load_protocol
    from mmcl.evaluation.listing import is_map
    from mmcl.evaluation.model import find_model

    if arguments.classes is not None:
        return True
    config = find_model(arguments.checkpoint, arguments.which).config
    name = arguments.protocol or (config.data.protocol if config is not None else None)
    if name is None:
        raise UserError("which protocol? Give --protocol, or --classes (or look at --list-protocols)")
    if is_map(name):
        return False
    try:
        protocol = load_protocol(name)
    except UnknownProtocol as error:
        raise UserError(f"no zero-shot protocol '{name}': look at --list-protocols, or give a .yaml file") from error
    if not protocol.open:
        raise UserError(f"protocol '{name}' withholds no class: `mmcl evaluate` judges it, or see --list-protocols")
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, judge, print what came out."""
    arguments = build_parser().parse_args(argv)
    if arguments.list_protocols:
        print(describe_protocols())
        return 0
    if arguments.checkpoint is None:
        raise UserError("zero-shot needs --checkpoint (or --list-protocols)")
    from mmcl.common.stack import require_training_stack

    require_training_stack()
    from mmcl.evaluation.reporting.console import report_lines

    report, out = judge_open(arguments) if is_open(arguments) else judge_transfer(arguments)
    print("\n".join(report_lines(report, out)))
    return 0


if __name__ == "__main__":
    run(main)
