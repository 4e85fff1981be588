"""``mmcl zero-shot``: judge a model on another data set by a label map, or on classes it never saw by their text."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.common.arguments import AtLeastOne, add_model
from mmcl.common.errors import UserError, run
from mmcl.common.files import absolute

if TYPE_CHECKING:
    from mmcl.data.selection import Selection
    from mmcl.evaluation.base import Evaluation
    from mmcl.models.folder import SavedModel

    Plan = tuple[Selection, Evaluation, Path]

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
  mmcl zero-shot --checkpoint runs/dvae0 --gate runs/dvae0_gate --cycles
  mmcl zero-shot --checkpoint checkpoints/open --data data/utd --classes "wave,clap,jog"
"""
NO_GATE = (
    "--gate belongs to a protocol that withholds classes, and to no label map nor --classes; so do --released-gate, "
    "--gate-temperature, --gate-threshold and --cycles"
)


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl zero-shot``."""
    parser = argparse.ArgumentParser(
        prog="mmcl zero-shot", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list-protocols", action="store_true", help="print the protocols with rules and class lists")
    add_model(parser, required=False)
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
    parser.add_argument(
        "--cycles", action="store_true", help="of a run of sa_dvae: judge the cycle that is best on the gate's run"
    )
    parser.add_argument("--released-gate", action="store_true", help="fit and apply the gate as SA-DVAE released it")
    parser.add_argument("--gate-temperature", type=float, metavar="T", help="of the gate (default: chosen by fitting)")
    parser.add_argument("--gate-threshold", type=float, metavar="P", help="of the gate (default: chosen by fitting)")
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


def judged(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Judge and write the report; returns the report and its folder.

    Raises:
        UserError: neither the command line nor the checkpoint says by which protocol, or it withholds no class.
    """
    from mmcl.common.device import pick_device
    from mmcl.evaluation.judging import judge
    from mmcl.models.folder import find_model

    saved, device = find_model(arguments.checkpoint, arguments.which), pick_device(arguments.device)
    kind = _transfer
    if arguments.classes is not None:
        kind = _classes
    elif not _is_map(arguments, saved):
        kind = _open_vocabulary
    data, evaluation, out = kind(arguments, saved)
    return judge(saved, data, evaluation, out, device, arguments.batch_size), out


def _is_map(arguments: argparse.Namespace, saved: SavedModel) -> bool:
    """Whether the protocol is a label map, and no open-vocabulary one."""
    from mmcl.data.protocols import UnknownProtocol, load_protocol
    from mmcl.evaluation.listing import is_map

    own = saved.description.provenance.get("protocol") if saved.checkpoint is not None else None
    name = arguments.protocol or own
    if name is None:
        raise UserError("which protocol? Give --protocol, or --classes (or look at --list-protocols)")
    if is_map(name):
        return True
    try:
        protocol = load_protocol(name)
    except UnknownProtocol as error:
        raise UserError(f"no zero-shot protocol '{name}': look at --list-protocols, or give a .yaml file") from error
    if not protocol.open:
        raise UserError(f"protocol '{name}' withholds no class: `mmcl evaluate` judges it, or see --list-protocols")
    return False


def _transfer(arguments: argparse.Namespace, saved: SavedModel) -> Plan:
    """Transfer by label map: a whole store of the other data set."""
    from mmcl.data.selection import Selection
    from mmcl.data.store import open_store
    from mmcl.evaluation.base import build_evaluation
    from mmcl.evaluation.transfer import load_map

    _refuse_gate(arguments)
    if arguments.data is None:
        raise UserError("transfer by label map needs --data, a clip store of the other data set")
    rule, store = load_map(arguments.protocol), open_store(arguments.data)
    name, content = rule.name.replace("/", "-"), [store.fingerprint] if saved.checkpoint is None else []
    out = arguments.out or saved.report_folder(name, content)
    return Selection(store), build_evaluation("transfer", {"map": arguments.protocol}), out


def _classes(arguments: argparse.Namespace, saved: SavedModel) -> Plan:
    """Open vocabulary among classes that are given by name: a whole store."""
    from mmcl.common.documents import MOST_YAML, read_document
    from mmcl.data.prompts import fingerprint
    from mmcl.data.selection import Selection
    from mmcl.data.store import open_store
    from mmcl.deploy.texts import split_names
    from mmcl.evaluation.base import build_evaluation

    _refuse_gate(arguments)
    if arguments.data is None:
        raise UserError("--classes needs --data, a clip store that holds clips of them")
    store, asked = open_store(arguments.data), arguments.classes
    of_file = asked.endswith((".yaml", ".yml"))
    words = read_document(Path(asked), MOST_YAML) if of_file else asked
    names = [Path(asked).stem] if of_file else split_names(asked) or [""]
    first = re.sub(r"\W+", "_", names[0].strip().casefold())[:24].strip("_")
    name = f"classes-{first}" + (f"-and-{len(names) - 1}" if len(names) > 1 else "")
    out = arguments.out or saved.report_folder(name, [fingerprint(words), store.fingerprint])
    return Selection(store), build_evaluation("classes", {"classes": asked}), out


def _refuse_gate(arguments: argparse.Namespace) -> None:
    """Words of the command line that belong to withheld classes alone."""
    if arguments.gate is not None or arguments.cycles or arguments.released_gate or _fixed(arguments):
        raise UserError(NO_GATE)


def _fixed(arguments: argparse.Namespace) -> dict[str, float]:
    """What is given of the gate instead of chosen."""
    given = {"temperature": arguments.gate_temperature, "threshold": arguments.gate_threshold}
    return {key: value for key, value in given.items() if value is not None}


def _open_vocabulary(arguments: argparse.Namespace, saved: SavedModel) -> Plan:
    """The withheld classes of an open-vocabulary protocol."""
    from mmcl.evaluation.base import build_evaluation
    from mmcl.evaluation.judging import select

    data, gate = select(saved, arguments.data, arguments.protocol, side="unseen"), arguments.gate
    assert data.rule is not None
    if arguments.released_gate and gate is None:
        raise UserError("--released-gate needs --gate, the run that the gate is fitted on")
    if gate is None and (fixed := _fixed(arguments)):
        raise UserError(f"--gate-{next(iter(fixed))} needs --gate, the run that the gate is fitted on")
    name = data.rule.name.replace("/", "-") + ("" if gate is None else f"-gate-{absolute(gate).name}")
    name += "".join(f"-{key}-{value:g}" for key, value in _fixed(arguments).items())
    name += ("-released" if arguments.released_gate else "") + ("-cycles" if arguments.cycles else "")
    out = arguments.out or saved.report_folder(name, [data.store.fingerprint] if saved.checkpoint is None else [])
    options = {"gate": None if gate is None else str(gate), "released": arguments.released_gate,
               **_fixed(arguments)}  # fmt: skip
    if arguments.cycles:
        return data, build_evaluation("cycles", options), out
    return data, build_evaluation("open_vocabulary", {**options, "which": arguments.which}), out


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, judge, print what came out."""
    arguments = build_parser().parse_args(argv)
    if arguments.list_protocols:
        print(describe_protocols())
        return 0
    if arguments.checkpoint is None:
        raise UserError("zero-shot needs a run folder, checkpoint or bundle (or --list-protocols)")
    from mmcl.common.stack import require_packages

    require_packages()
    from mmcl.evaluation.reporting.console import report_lines

    report, out = judged(arguments)
    print("\n".join(report_lines(report, out)))
    return 0


if __name__ == "__main__":
    run(main)
