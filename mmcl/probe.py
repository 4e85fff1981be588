"""``mmcl probe --checkpoint X``: what an encoder's features are worth, beside what takes no learning at all."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcl.common.arguments import AtLeastOne, add_model, add_which, out_path
from mmcl.common.errors import UserError, run

PROBES = ("knn", "linear", "few_shot", "finetune", "semi")  # among the evaluations


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl probe``."""
    parser = argparse.ArgumentParser(
        prog="mmcl probe", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measure how good the features of an encoder are, trained with labels or without.\n\n"
        "  knn       class of the nearest training clips by cosine\n"
        "  linear    batch norm and a linear layer on features that stay as they are\n"
        "  few_shot  n classes told apart by k clips of each, over many random choices\n"
        "  finetune  the whole encoder trained further with labels, against training from random weights\n"
        "  semi      the same with 1 % and 10 % of the training clips, five draws each\n\n"
        "Beside each number stand the floors: raw coordinates, velocities, a random encoder of the same shape. The\n"
        "protocol's training side is learned from, the side that --split names is judged. Each writes a report.",
        epilog="examples:\n  mmcl probe --checkpoint runs/stars --probe knn --probe linear\n"
        "  mmcl probe --checkpoint runs/stars --probe knn --option 'knn.k=[1,20]' --option knn.weighted=true\n"
        "  mmcl probe --checkpoint runs/stars --probe semi --option 'semi.shots=[1,2,4]'",
    )  # fmt: skip
    add_model(parser)
    parser.add_argument(
        "--probe", action="append", choices=PROBES, metavar="NAME",
        help=f"{', '.join(PROBES)}; may be repeated (default: knn and linear)",
    )  # fmt: skip
    parser.add_argument(
        "--option", action="append", default=[], metavar="PROBE.KEY=VALUE", help="option of a probe; may be repeated"
    )
    parser.add_argument("--data", metavar="DIR", help="clip store (default: the run's own)")
    parser.add_argument("--protocol", metavar="P", help="protocol (default: the run's own)")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="what is judged (test)")
    add_which(parser)
    parser.add_argument(
        "--out", type=out_path, metavar="DIR", help="folder of reports (default: the run's, or reports/)"
    )
    parser.add_argument(
        "--batch-size", type=int, action=AtLeastOne, default=64, metavar="N", help="clips at once (default: 64)"
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: a GPU where there is one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, probe, print a table for each."""
    from mmcl.common.stack import require_packages

    arguments = build_parser().parse_args(argv)
    require_packages()
    from mmcl.common.device import pick_device
    from mmcl.evaluation.base import build_evaluation
    from mmcl.evaluation.judging import judge, report_folder, select
    from mmcl.models.folder import find_model

    names = list(dict.fromkeys(arguments.probe or ("knn", "linear")))
    options = options_by_probe(arguments.option, names)
    evaluations = {name: build_evaluation(name, options[name]) for name in names}
    saved = find_model(arguments.checkpoint, arguments.which)
    data, device = select(saved, arguments.data, arguments.protocol, arguments.split), pick_device(arguments.device)
    for name, evaluation in evaluations.items():
        out = arguments.out / name if arguments.out else report_folder(saved, data, name)
        report = judge(saved, data, evaluation, out, device, arguments.batch_size)
        print("\n".join(table(name, report, out)), flush=True)
    return 0


def options_by_probe(words: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``PROBE.KEY=VALUE`` words, sorted by probe.

    Raises:
        UserError: a word of another form, or of a probe that was not asked for.
    """
    from mmcl.evaluation.judging import option_words

    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for word in words:
        name, dot, rest = word.partition(".")
        if not dot or name not in found:
            raise UserError(f"--option {word}: write PROBE.KEY=VALUE, PROBE being one of {', '.join(names)}")
        found[name] |= option_words([rest])
    return found


def table(name: str, report: Mapping[str, Any], out: Path) -> Iterator[str]:
    """What a report says of readouts and floors, in lines."""
    rows = {row: dict(_cells(entry)) for row, entry in report["top1_by_readout"].items()}
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    width = max(map(len, rows))
    widths = {column: max(len(column), 12) for column in columns}
    yield f"{name} on {report['protocol']} {report['split']}: {report['kind']}"
    if columns != [""]:
        yield " " * width + "".join(f"  {column:>{widths[column]}}" for column in columns)
    for row, cells in rows.items():
        yield f"{row:<{width}}" + "".join(f"  {cells.get(column, ''):>{widths[column]}}" for column in columns)
    if "gain" in report:
        yield f"gain over training from scratch: {_cell(report['gain'])}"
    yield f"report in {out}"


def _cells(entry: Any) -> Iterator[tuple[str, str]]:
    """Columns and cells of a row: a number alone, or numbers and intervals by name."""
    if isinstance(entry, Mapping):
        yield from ((column, _cell(value)) for column, value in entry.items())
    else:
        yield "", _cell(entry)


def _cell(value: Any) -> str:
    """An accuracy in per cent, with its interval where it has one."""
    if isinstance(value, Mapping):
        middle = value.get("top1", value.get("difference"))
        if "low" in value:
            return f"{100 * middle:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
        value = middle
    return "" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    run(main)
