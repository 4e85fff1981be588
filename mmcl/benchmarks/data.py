"""``mmcl bench data``: NTU recordings from text to batches on this machine, and what that means for NTU-120."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.benchmarks.data_table import table
from mmcl.benchmarks.machine import PeakMemory, machine
from mmcl.benchmarks.reading import time_loader, time_open, time_parse, time_training
from mmcl.benchmarks.recordings import link_recordings
from mmcl.common.arguments import in_path, out_path
from mmcl.common.errors import UserError
from mmcl.common.files import write_json
from mmcl.common.interrupts import stop_as_interrupt
from mmcl.data.preparation.build import prepare
from mmcl.data.preparation.pool import default_workers
from mmcl.data.readers.ntu import NTU120
from mmcl.data.store import ClipStore

PADDED = 300 * 150 * 4  # bytes of a clip in the padded float32 array that is usual in the field
FEWEST = 40  # clips: enough for a few training steps
EPILOG = """\
example:
  mmcl bench data --source nturgb+d_skeletons --clips 5000

The clips are links to the given .skeleton files (or to two dozen made-up ones) under names of NTU RGB+D 120, in a
temporary folder, so that the text mostly comes from the page cache: a slow disk adds its own time. Training takes a few
steps of CTR-GCN as published, on the CPU. The given files are only read. The temporary folder, mmcl-bench-*, is removed
at the end, and so it is after an error, Ctrl-C or SIGTERM; only what ends the process at once (kill -9, a power cut)
leaves it there.
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench data``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench data", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=in_path, metavar="DIR", help="folder of real .skeleton files (made-up ones)")
    parser.add_argument("--clips", type=int, default=1000, metavar="N", help="clips to prepare (1000)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that prepare and load (one a processor)")
    parser.add_argument("--folder", type=out_path, metavar="DIR", help="where the temporary folder is made")
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    args = build_parser().parse_args(argv)
    workers = default_workers() if args.workers is None else args.workers
    if args.clips < FEWEST or workers < 1:
        raise UserError(f"--clips must be at least {FEWEST} and --workers at least 1")
    with stop_as_interrupt(), tempfile.TemporaryDirectory(prefix="mmcl-bench-", dir=args.folder) as folder:
        facts = measure(args.source, Path(folder), args.clips, workers)
    print(table(facts))
    if args.json:
        write_json(args.json, facts)
    return 0


def measure(source: Path | None, folder: Path, clips: int, workers: int, training: bool = True) -> dict[str, Any]:
    """Make the recordings, prepare them, read them back, train a little.

    Args:
        source: folder of real ``.skeleton`` files; None for made-up ones.
        folder: an empty folder for everything.
        clips: how many.
        workers: processes; preparation is also timed with one.
        training: also take the training steps.

    Returns:
        What was measured, by subject; sizes in bytes, times in seconds.
    """
    _say(f"{clips} recordings")
    files = link_recordings(source, folder / "raw", clips)
    text = sum(os.stat(file).st_size for file in (folder / "raw").iterdir())
    reader = NTU120(folder / "raw")
    facts: dict[str, Any] = {
        "machine": machine("numpy", "pyarrow", "torch"),
        "text": {"clips": clips, "files": len(files), "made_up": source is None, "bytes": text},
        "parse": time_parse(reader, files),
        "prepare": [],
    }
    for count in sorted({1, workers}):
        _say(f"preparing with {count} worker{'s' * (count > 1)}")
        with PeakMemory() as memory:
            summary = prepare(reader, folder / f"store-{count}", workers=count, progress=sys.stderr.isatty())
        facts["prepare"].append({"workers": count, "seconds": summary.seconds, "memory": memory.facts()})
    store = summary.store
    facts["store"] = _store_facts(store) | {"open_seconds": time_open(store.path)}
    facts["loader"] = []
    for count in sorted({0, workers}):
        _say(f"loading with {count} workers")
        facts["loader"].append({"workers": count, **time_loader(store, count)})
    if training:
        _say("training steps")
        facts["training"] = time_training(store, folder, workers)
    return facts


def _store_facts(store: ClipStore) -> dict[str, Any]:
    """Sizes as the file system tells them."""
    size = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    return {
        "clips": len(store),
        "skipped": store.info["skipped"],
        "bytes": size,
        "parts": len(store.info["parts"]),
        "frames_mean": float(store.frames.mean()),
        "bodies_mean": float(store.bodies.mean()),
        "joints_bytes": int(np.sum(store.frames * store.bodies) * store.layout.joint_count * 12),
        "padded_bytes": PADDED * len(store),
    }


def _say(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)
