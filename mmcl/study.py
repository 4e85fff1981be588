"""``mmcl study --config STUDY --out DIR``: arms x seeds from one recipe, resumable, and one table at the end."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmcl.common.arguments import out_path
from mmcl.common.errors import UserError, run
from mmcl.common.printing import complain
from mmcl.common.stack import require_packages
from mmcl.places.options import add_place_options, open_place

if TYPE_CHECKING:
    from mmcl.studies.grid import Study
    from mmcl.studies.run import Run

ABOUT = """\
Train and judge a grid of arms x seeds (x draws of a random protocol), all from one recipe, and put them in one table
with the difference of every arm to the first and its 95 % interval: study.md, study.csv, study.json, study.png. An arm
is a setting that is compared with others: some keys of the recipe with values of their own.

Every run is `mmcl train` and then `mmcl evaluate`, by accuracy or by the evaluation that `judge` names. Both are
processes of their own and work in DIR/ARM/SEED[/DRAW], with a log beside it. The same command again goes on: finished
runs are skipped, interrupted ones resume from their checkpoint. A run that fails is named and does not stop the others
(exit status 1). Ctrl-C saves checkpoints first; jobs of Slurm go on, and the same command takes them up."""
EPILOG = """\
A study file holds

  recipe: [utd_mhad_joint, utd_mhad_colearn]     recipes by name or path; later ones win
  seeds: [0, 1, 2]
  set: {data.path: data/utd}                     keys of a recipe, for all arms
  arms:                                          the first one is the baseline
    skeleton: {task.alignment.weight: 0, task.refinement.weight: 0}
    fam: {task.refinement.weight: 0}
  draws: 30                                      only where a value holds {draw}: data.protocol: sysu/setting-1/{draw}
  In a value, {seed} becomes the run's seed: start.checkpoint: runs/base/{seed}
  In an arm or in judge_on, {protocol} becomes the study's own data.protocol: data.protocol: '{protocol}/stream-3/0'
  judge: top1                                    or another evaluation (`mmcl evaluate --help` lists them)
  judge_options: {}                              its options: {k: [5]} for judge: knn
  also: [groups.few.accuracy]                    other numbers of its report.json, each with a table of its own
  Several, judge: [top1, robustness] with judge_options: {robustness: {…}}, make a picture of every arm by every
  measure, OUT/matrix.png. An arm called ENCODER.TASK stands in row ENCODER and column TASK of each.
  judge_on: {}                                   data, protocol, split, where not the test side of each run's own

examples:
  mmcl study --config utd_mhad --out studies/utd --dry-run
  mmcl study --config utd_mhad --out studies/utd --data.path=data/utd
  mmcl study --config utd_mhad --out studies/utd --only skeleton fam --seeds 0 --jobs 2
  mmcl study --config utd_mhad --out studies/utd --on ray --gpus 0.5
  mmcl study --config utd_mhad --out studies/utd --on slurm --gpus 1 --slurm partition=gpu --slurm time=600
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl study``."""
    parser = argparse.ArgumentParser(
        prog="mmcl study", description=ABOUT, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter, usage="mmcl study --config STUDY --out DIR [options] "
        "[--section.key=value …]",
    )  # fmt: skip
    parser.add_argument("--config", required=True, metavar="STUDY", help="study file, or the name of one in mmcl")
    parser.add_argument("--out", required=True, type=out_path, metavar="DIR", help="folder of runs and table")
    parser.add_argument("--baseline", metavar="ARM", help="compare the others with this arm (the first of the file)")
    parser.add_argument("--only", nargs="+", metavar="ARM", help="run these arms, by name or as "
                        "'*.supervised' (the table has all that is finished)")  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, metavar="S", help="in place of the study file's")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and what is finished; run nothing")
    add_place_options(parser, "run")
    return parser


def settings_of(words: Sequence[str]) -> dict[str, str]:
    """``--section.key=value`` words as a dictionary.

    Raises:
        UserError: a word of another form.
    """
    settings = {}
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not equals:
            raise UserError(
                f"`{word}` is neither an option of mmcl study nor a setting of the form --section.key=value"
            )
        settings[key] = value
    return settings


def select(study: Study, runs: Sequence[Run], only: Sequence[str] | None) -> list[Run]:
    """The runs of some arms, checked: keys that do not exist, and run folders of another study, are found now.

    Folders of the other arms are checked, too, since the table takes in all that is finished.

    Raises:
        UserError: a run that cannot begin or go on; naming the key.
    """
    chosen = [run for run in runs if only is None or run.arm in only]
    first = {run.arm: run for run in reversed(chosen)}
    for run_ in runs:
        if run_ is first.get(run_.arm) or run_.folder.exists():
            run_.check()
    return chosen


def plan(runs: Sequence[Run]) -> str:
    """The commands of the runs, in order, and which are done."""
    lines = []
    for run_ in runs:
        state = "" if run_.commands else "finished"
        lines.append(f"# {run_.name}: {state or ('to go on' if run_.folder.exists() else 'to do')}")
        lines += [f"mmcl {shlex.join(words)}" for words in run_.commands]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run what is not finished, write and print the table."""
    arguments, rest = build_parser().parse_known_args(argv)
    require_packages()
    from mmcl.places.performing import perform
    from mmcl.studies.reading import arms_named, changed, read_study
    from mmcl.studies.statistics import compare_arms, read_reports
    from mmcl.studies.table import write_table

    settings = settings_of(rest)
    written = read_study(arguments.config)
    only = arms_named(written, arguments.only)
    study = changed(written, arguments.seeds, settings, arguments.baseline, only or ())
    runs = study.runs(arguments.out)
    chosen = select(study, runs, only)
    if arguments.dry_run:
        print(plan(chosen))
        return 0
    with open_place(arguments) as place:
        outcome = perform([run_.job for run_ in chosen], place)
    reports = read_reports(runs)
    unfinished = {run_.name: outcome.failed.get(run_.name, "not run yet") for run_ in runs if run_ not in reports}
    print(write_table(arguments.out, study, compare_arms(study, reports), reports, unfinished))
    for name, why in outcome.failed.items():
        complain("failed", f"{name}: {why}")
    print(f"{len(reports)} of {len(runs)} runs finished; table in {arguments.out / 'study.md'}")
    if outcome.stopped:
        print(outcome.farewell)
        return 130
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    run(main)
