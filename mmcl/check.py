"""Look over a prepared clip store: a verdict, the clips behind it, and a picture of skeletons over their frames."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmcl.common.arguments import out_path
from mmcl.common.errors import UserError, run
from mmcl.common.printing import complain
from mmcl.common.stack import require_packages

if TYPE_CHECKING:
    import numpy as np

    from mmcl.data.split import Split
    from mmcl.data.store import ClipStore

EPILOG = """\
example:
  mmcl check data/utd_mhad

Prints what the store holds; for every protocol, how many test clips raw joints alone get right, which a network has to
do better than; one line for each thing found (level, what, how many, which clips, what to do), among them labels that
look exchanged to what has learned from other people's clips; and a verdict: OK, WARN (look at it) or BAD (do not train
on it). Writes check.md and contact_sheet.png into DIR/check, or into --out (of a store behind a URL: into ./check).
Exit status: 0 for OK and WARN, 1 for BAD, 2 where DIR is no store, or one without clips.
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl check``."""
    parser = argparse.ArgumentParser(
        prog="mmcl check", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", metavar="DIR", help="a store made by `mmcl prepare`")
    parser.add_argument("--out", type=out_path, metavar="DIR", help="folder of the report (DIR/check)")
    parser.add_argument("--full", action="store_true", help="read every byte and compare it with what was written")
    parser.add_argument(
        "--prune-features", nargs="?", const="", metavar="NAME",
        help="only delete cached features of towers: those of clips that are not in the store any more, or those of a "
        "NAME that the list says (its first digits are enough), or `all`. They are computed again when they are needed",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check a store, print and write the report. Returns the exit status: 1 where the verdict is BAD."""
    args = build_parser().parse_args(argv)
    require_packages()
    from mmcl.data.crops import DamagedPicture
    from mmcl.data.inspection.checks import CONTENT, check
    from mmcl.data.inspection.findings import BAD
    from mmcl.data.inspection.report import as_text, write
    from mmcl.data.selection import require_clips
    from mmcl.data.store import open_store
    from mmcl.evaluation.exchanged_labels import look_for_exchanged_labels
    from mmcl.towers.kept import prune_features

    store = open_store(args.store)
    if args.prune_features is not None:
        print(f"{prune_features(store, args.prune_features) / 1e6:.1f} MB of cached features deleted")
        print_features(store)
        return 0
    require_clips(store)
    splits = fitting_splits(store)
    report = check(store, sides_of(splits), full=args.full)
    if CONTENT in report.passed:
        report.floors = floors(store, splits)
        look_for_exchanged_labels(report)
        report.sort()
    behind_url = "://" in args.store and not args.store.startswith("file://")  # its folder here is only a cache
    print(as_text(report))
    print_features(store)
    try:
        page, sheet = write(report, args.out or (Path("check") if behind_url else store.path / "check"))
        print(f"report: {page}" + (f"\npicture: {sheet}" if sheet is not None else ""))
    except OSError as error:
        if args.out is not None and not isinstance(error, DamagedPicture):
            raise UserError(f"--out {args.out}: the report cannot be written there ({error})") from error
        complain("warning", f"the report cannot be written ({error}): --out names another folder")
    return 1 if report.verdict == BAD else 0


def print_features(store: ClipStore) -> None:
    """List the cached features of towers that lie in a store."""
    from mmcl.towers.kept import kept_features

    caches = kept_features(store)
    if caches:
        print("cached features (`--prune-features` deletes them; they are computed again when they are needed):")
        print("\n".join(f"  {cache}" for cache in caches))


def official_splits(store: ClipStore) -> dict[str, dict[str, np.ndarray]]:
    """Train and test clips of the protocols that fit the store."""
    return sides_of(fitting_splits(store))


def sides_of(splits: dict[str, Split]) -> dict[str, dict[str, np.ndarray]]:
    """Train and test clips of some splits."""
    return {name: {"train": found.train, "test": found.test} for name, found in splits.items()}


def floors(store: ClipStore, splits: dict[str, Split]) -> dict[str, str]:
    """How many test clips are told apart by raw joints alone, in words; by protocol."""
    from mmcl.evaluation.floors import measure_floors

    whole = {name: found for name, found in splits.items() if not found.stream}  # a stream has the sides of its base
    return {name: str(measure_floors(store, found, found.test)) for name, found in whole.items()}


def fitting_splits(store: ClipStore) -> dict[str, Split]:
    """What the protocols that fit the store make of it, as far as it has clips for both sides.

    Open-vocabulary protocols have the sides of others, and leave some clips out of them.
    """
    from mmcl.data.apply_protocol import split
    from mmcl.data.protocols import load_protocol, protocol_names

    splits = {}
    for protocol in map(load_protocol, protocol_names(store)):
        if protocol.open:
            continue
        with contextlib.suppress(UserError):  # a store of a few subjects: nothing to count
            splits[protocol.name] = split(store, protocol)
    return splits


if __name__ == "__main__":
    run(main)
