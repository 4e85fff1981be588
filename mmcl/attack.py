"""``mmcl attack MODEL [--target MODEL …]``: how robust one's own models are against small changes of skeletons."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcl.attacks import ATTACKS
from mmcl.common.arguments import AtLeastOne, add_which, in_path, out_path
from mmcl.common.errors import UserError, run

ABOUT = """\
For judging one's own models: changes joints a little, within a budget, and reports how often a model errs then.

  noise     a random sign for every coordinate; always tried, as the control
  fgsm      one step along the gradient's sign        ifgsm    many small ones
  mifgsm    with momentum                             dim      with variants of the clip
  mig       gradients along a path                    ensemble of several models at once
  smart     bones, places and accelerations count     basar    black box: answers alone
  tasar     posterior heads, fitted to training clips, and the motion: made to transfer

The model that is given is attacked; with --target, other models are judged on the same changed clips, and with
--every-pair each of them is attacked in turn. Clips count that both models answer right when clean. The report has a
heat map from surrogate to target, intervals over clips and seeds, and how far bones and accelerations are off."""
EXAMPLES = """\
examples:
  mmcl attack runs/utd
  mmcl attack runs/utd --target runs/utd_sttformer --attack ifgsm --attack tasar --epsilon 0.01 --epsilon 0.02
  mmcl attack runs/a/seed-0 --seed-run runs/a/seed-1 --name a --target b=runs/b/seed-0,runs/b/seed-1 --every-pair
  mmcl attack runs/utd --attack tasar --attack tasar/still --option steps=50 --option tasar/still.motion=false
  mmcl attack runs/utd --smoothing 2 --out reports/smoothed
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl attack``."""
    parser = argparse.ArgumentParser(
        prog="mmcl attack", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", type=in_path, metavar="MODEL", help="run folder, checkpoint or bundle with its weights"
    )
    parser.add_argument(
        "--target", action="append", default=[], metavar="[NAME=]MODEL[,MODEL…]",
        help="another model to judge, several folders being seeds of one; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--seed-run", action="append", default=[], metavar="MODEL", help="another seed of MODEL; may be repeated"
    )
    parser.add_argument("--name", default="", help="what MODEL is called in the report (its folder's name)")
    parser.add_argument("--every-pair", action="store_true", help="attack the targets in turn, too")
    parser.add_argument(
        "--attack", action="append", metavar="NAME[/NOTE]",
        help=f"{', '.join(ATTACKS)}; may be repeated, with a note to try one with other options; the first is the main "
        "one (default: ifgsm)",
    )  # fmt: skip
    parser.add_argument(
        "--option", action="append", default=[], metavar="[ATTACK.]KEY=VALUE",
        help="option of an attack, or of all that have it (steps=50); may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--epsilon", action="append", type=float, metavar="E",
        help="budget: how far a coordinate may move; may be repeated, the first is the main one (default: 0.01)",
    )  # fmt: skip
    parser.add_argument(
        "--unit", choices=("metres", "body"), default="metres", help="of the budget; body: the body's size (metres)"
    )
    parser.add_argument("--targeted", action="store_true", help="ask for another class instead of any error")
    parser.add_argument(
        "--smoothing", action="append", type=float, default=[], metavar="S",
        help="judge the models behind input smoothing, too (deviation in frames); attacks on them go through it",
    )  # fmt: skip
    parser.add_argument("--clips", type=int, action=AtLeastOne, default=100, metavar="N", help="at most (default: 100)")
    parser.add_argument("--draws", type=int, action=AtLeastOne, default=1, metavar="N", help="seeds of attacks (1)")
    parser.add_argument("--save-clips", action="store_true", help="keep the changed clips in scores.npz (recordings!)")
    parser.add_argument("--data", metavar="DIR", help="clip store (default: the run's own)")
    parser.add_argument("--protocol", metavar="P", help="protocol (default: the run's own)")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test", help="default: test")
    add_which(parser)
    parser.add_argument(
        "--out", type=out_path, metavar="DIR", help="report folder (default: RUN/report-robustness-SPLIT)"
    )
    parser.add_argument(
        "--batch-size", type=int, action=AtLeastOne, default=64, metavar="N", help="clips at once (default: 64)"
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: a GPU where there is one)")
    return parser


def attack(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Attack, judge, and write the report; returns the report and its folder."""
    from mmcl.common.device import pick_device
    from mmcl.evaluation.base import build_evaluation
    from mmcl.evaluation.judging import judge, report_folder, select
    from mmcl.models.folder import find_model

    names = list(dict.fromkeys(arguments.attack or ["ifgsm"]))
    evaluation = build_evaluation("robustness", {
        "attacks": names, "options": attack_options(arguments.option, names), "unit": arguments.unit,
        "epsilons": arguments.epsilon or [0.01], "targeted": arguments.targeted, "models": targets(arguments.target),
        "seeds": arguments.seed_run, "name": arguments.name, "every_pair": arguments.every_pair,
        "smoothing": arguments.smoothing, "draws": list(range(arguments.draws)), "clips": arguments.clips,
        "save": arguments.save_clips,
    })  # fmt: skip
    saved = find_model(arguments.model, arguments.which)
    data = select(saved, arguments.data, arguments.protocol, arguments.split)
    out = arguments.out or report_folder(saved, data, "robustness")
    return judge(saved, data, evaluation, out, pick_device(arguments.device), arguments.batch_size), out


def targets(words: Sequence[str]) -> dict[str, list[str]]:
    """``[NAME=]MODEL[,MODEL…]`` words as name -> folders; the name is the first folder's, where none is given.

    Raises:
        UserError: two of one name, or no folder.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, folders = word.rpartition("=")
        listed = [folder for folder in folders.split(",") if folder]
        name = name if equals else Path(folders.split(",")[0]).name
        if not listed or not name or name in found:
            raise UserError(f"--target {word}: write NAME=FOLDER, or NAME=FOLDER,FOLDER for seeds, each name once")
        found[name] = listed
    return found


def attack_options(words: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``[ATTACK.]KEY=VALUE`` words by attack; a key without an attack is for all that have it.

    Raises:
        UserError: a word of another form, an attack that is not asked for, or a key that no attack has.
    """
    from dataclasses import fields

    from mmcl.evaluation.judging import option_words

    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for word in words:
        key, _, value = word.partition("=")
        name, dot, rest = key.partition(".")
        if dot:
            if name not in found:
                raise UserError(f"--option {word}: no attack '{name}' here, only {', '.join(names)}")
            found[name] |= option_words([f"{rest}={value}" if "=" in word else rest])
            continue
        known = {name: {field.name for field in fields(ATTACKS[name.partition("/")[0]].options_type)} for name in names}
        own = [name for name in names if key in known[name]]
        if not own:
            raise UserError(f"--option {word}: none of {', '.join(names)} has an option '{key}'")
        for name in own:
            found[name] |= option_words([word])
    return {name: options for name, options in found.items() if options}


def summary(report: dict[str, Any], out: Path) -> list[str]:
    """A report in some lines: a number for each attack and budget."""
    lines = [
        f"{report['protocol']} {report['split']}: {report['attacked']} of {report['n']} clips are right when clean; "
        f"under {report['attacks'][0]['attack']} at {report['attacks'][0]['epsilon']:g} "
        f"{report['robust_accuracy']:.1%} of all are right"
    ]
    if (mean := report["robust_accuracy_mean"]) != report["robust_accuracy"]:
        lines[0] += f" in the first draw on the first seed, {mean:.1%} in the mean over draws and seeds"
    for row in report["attacks"]:
        places = [key for key in ("itself", "others") if row[key] is not None]
        rates = [f"{key} {row[key]:.1%} [{row[f'{key}_low']:.1%}, {row[f'{key}_high']:.1%}]" for key in places]
        lines.append(f"  {row['attack']:<9} {row['epsilon']:<6g} errors on {', on '.join(rates)}")
    return [*lines, f"report in {out}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, attack, print a line for each attack."""
    from mmcl.common.stack import require_training_stack

    arguments = build_parser().parse_args(argv)
    require_training_stack()
    report, out = attack(arguments)
    print("\n".join(summary(report, out)))
    return 0


if __name__ == "__main__":
    run(main)
