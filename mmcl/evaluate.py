"""``mmcl evaluate --checkpoint X``: judge a run or a bundle on a protocol's test clips, and write a report."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.common.arguments import AtLeastOne
from mmcl.common.errors import UserError, run
from mmcl.common.files import check_replaceable

if TYPE_CHECKING:
    import numpy as np

    from mmcl.data.store import ClipStore
    from mmcl.evaluation.model import Found

SIDES = ("train", "test")  # that a protocol must find clips for, if they are what is judged


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl evaluate``."""
    parser = argparse.ArgumentParser(
        prog="mmcl evaluate",
        description="Judge the skeleton branch on a protocol's test clips. Writes a report: report.md to read "
        "(confusion matrix, accuracy by class, calibration, pictures of the clips it was surest of and wrong about), "
        "report.json, per_class.csv, wrong.csv and scores.npz (scores by clip id), which `mmcl ensemble` fuses and "
        "`mmcl compare` sets side by side.",
        epilog="example: mmcl evaluate --checkpoint runs/utd (data and protocol come from the run)",
    )
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="X", help="run folder, checkpoint or bundle")
    parser.add_argument("--data", metavar="DIR", help="clip store (default: the run's own)")
    parser.add_argument("--protocol", metavar="P", help="protocol (default: the run's own)")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test", help="default: test")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="checkpoint of a run (default: last)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="report folder (default: RUN/report-SPLIT, of another protocol or store a longer name; or reports/)",
    )
    parser.add_argument(
        "--batch-size", type=int, action=AtLeastOne, default=64, metavar="N", help="clips at once (default: 64)"
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: a GPU where there is one)")
    return parser


def evaluate(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Score the clips and write the report; returns the report and its folder."""
    from mmcl.common.device import pick_device
    from mmcl.data.learned import overlap
    from mmcl.data.protocols import load_protocol
    from mmcl.data.splitting import split
    from mmcl.data.store import open_store
    from mmcl.engine.scoring import score_clips
    from mmcl.evaluation.model import find_model, load_judged
    from mmcl.evaluation.report import write_report

    found = find_model(arguments.checkpoint, arguments.which)
    data, protocol = arguments.data, arguments.protocol
    if found.config is not None:
        data, protocol = data or found.config.data.path, protocol or found.config.data.protocol
    if data is None or protocol is None:
        raise UserError(f"{arguments.checkpoint} is a bundle: say what to judge it on with --data and --protocol")
    store = open_store(data)
    out = arguments.out or report_folder(found, arguments.split, protocol, store)
    check_replaceable(out, "report.json")
    judged = load_judged(found, store.layout)
    held = None
    if found.config is not None and judged.lessons[0][:2] == (protocol, store.fingerprint):  # what it was trained by
        held = found.config.data.validation
    sides = split(store, load_protocol(protocol), held, needed=[side for side in SIDES if side == arguments.split])
    names = judged.model.class_names
    outputs = own_outputs(names, [store.class_names[label] for label in sides.classes])
    if outputs is None:
        raise UserError(
            f"{arguments.checkpoint} knows {len(names)} classes, and not all {len(sides.classes)} of {protocol} on "
            f"{data}: to judge it on foreign classes use `mmcl zero-shot`"
        )
    clips = getattr(sides, arguments.split)
    if not len(clips):
        raise UserError(f"the run holds no clips out for validation: --split={arguments.split} is empty")
    device = pick_device(arguments.device)
    model = judged.model.to(device)
    scores = score_clips(model, store, clips, device, arguments.batch_size, progress=True)
    facts = {
        "protocol": protocol, "split": arguments.split, "held_out": dict(held) if held else None,
        "data": str(data), "data_fingerprint": store.fingerprint,
        "stream": " + ".join(model.preprocess.options.streams),
    }  # fmt: skip
    ids = [store.ids[clip] for clip in clips]
    labels = outputs[sides.targets(store.labels[clips])]
    if len(outputs) < len(names):
        print(f"note: {data} shows {len(outputs)} of the {len(names)} classes; the answer may be any of them all",
              file=sys.stderr)  # fmt: skip
    if len(sides.unseen_classes):
        print(f"note: {protocol} withholds {len(sides.unseen_classes)} classes: these are clips of the trained ones; "
              "`mmcl zero-shot` judges the others", file=sys.stderr)  # fmt: skip
    learned = overlap(clips, store, judged.lessons) if arguments.split == "test" else ""
    for note in filter(None, (judged.facts.get("note"), learned)):
        print(f"note: {note}", file=sys.stderr)
    facts["learned_from"] = ", ".join(lesson.protocol for lesson in judged.lessons) or None
    facts["warning"] = learned or None
    return write_report(out, scores, labels, ids, names, facts | judged.facts, store), out


def report_folder(found: Found, side: str, protocol: str, store: ClipStore) -> Path:
    """``report-SPLIT`` of a run is what it was trained for; a report by another rule, or of other clips, says so."""
    if found.is_own(protocol, store.location):
        return found.report_folder(side)
    words = re.sub(r"\W+", "-", Path(protocol).stem if protocol.endswith((".yaml", ".yml")) else protocol).strip("-")
    return found.report_folder(f"{side}-{words}", [protocol, store.fingerprint])


def own_outputs(known: list[str], names: list[str]) -> np.ndarray | None:
    """(K,) the output of a model for each class of a store; None where it does not know one of them by its name.

    A store may show some of the classes alone, and new recordings often do.
    """
    import numpy as np

    if known == names:
        return np.arange(len(names))
    if len(set(known)) < len(known) or not set(names) <= set(known):
        return None
    return np.array([known.index(name) for name in names])


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, evaluate, print one line."""
    from mmcl.common.stack import require_training_stack

    arguments = build_parser().parse_args(argv)
    require_training_stack()
    report, out = evaluate(arguments)
    top5 = f", top-5 {report['top5']:.2%}" if report["top5"] is not None else ""
    print(
        f"{report['protocol']} {report['split']}: top-1 {report['top1']:.2%} ({report['correct']} of {report['n']})"
        f"{top5}, mean class accuracy {report['mean_class_accuracy']:.2%}; report in {out}"
    )
    return 0


if __name__ == "__main__":
    run(main)
